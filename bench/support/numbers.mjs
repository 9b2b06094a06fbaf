/** A long download of numbers from the lab's resource, checked as it comes, and how long it stands still. */
import { fileURLToPath } from "node:url"
import { sleep } from "./processes.mjs"

const PROGRAM = fileURLToPath(new URL("../../test/natlab/lab/resource.mjs", import.meta.url))

/** The arguments with which node serves the numbers at an address and port. */
export const server = (host, port) => [PROGRAM, host, String(port), "/dev/null"]

/** The download: each word is one more than the word before. `start` makes a child process whose output it is. */
export class Flow {
  words = 0
  wrong = 0
  ended = false
  lastAt = performance.now()
  #arrivals = []
  #rest = Buffer.alloc(0)

  /** @param {(args: ReadonlyArray<string>) => import("node:child_process").ChildProcess} curl on the client's host */
  constructor(curl, { host, port, rate, socks }) {
    const proxy = socks === undefined ? [] : ["--socks5-hostname", `127.0.0.1:${socks}`]
    this.child = curl(["--silent", "--no-buffer", ...proxy, `http://${host}:${port}/count?rate=${rate}`])
    this.child.stdout.on("data", (part) => this.#take(part))
    this.child.once("close", () => (this.ended = true))
  }

  #take(part) {
    this.lastAt = performance.now()
    this.#arrivals.push(this.lastAt)
    const bytes = this.#rest.length === 0 ? part : Buffer.concat([this.#rest, part])
    const whole = bytes.length - bytes.length % 4
    for (let at = 0; at < whole; at += 4) if (bytes.readUInt32BE(at) !== ++this.words) this.wrong++
    this.#rest = Buffer.from(bytes.subarray(whole))
  }

  /** Bytes came within the last `ms`. */
  isMoving(ms = 100) {
    return !this.ended && this.words > 0 && performance.now() - this.lastAt < ms
  }

  /** The longest time without a byte that ended after `since`, or has not ended yet; what was before `since` does not count. */
  stall(since) {
    let last = since
    let longest = 0
    for (const at of [...this.#arrivals, performance.now()]) {
      if (at < since) continue
      longest = Math.max(longest, at - last)
      last = at
    }
    return longest
  }

  /** When the first byte came after the longest time without one that began after `since`. Now, if none has come. */
  stalledUntil(since) {
    let [last, longest, until] = [since, 0, since]
    for (const at of [...this.#arrivals, performance.now()]) {
      if (at < since) continue
      if (at - last > longest) [longest, until] = [at - last, at]
      last = at
    }
    return until
  }

  /** Nothing before now will be asked for. */
  forget() {
    this.#arrivals = []
  }
}

/** Whether it came true within the time. */
export const comes = async (is, withinMs) => {
  const end = performance.now() + withinMs
  while (!is()) {
    if (performance.now() > end) return false
    await sleep(20)
  }
  return true
}

const quantile = (sorted, q) => Math.round(sorted[Math.min(sorted.length - 1, Math.ceil(q * sorted.length) - 1)])

/** Of stalls, milliseconds. */
export const summary = (stalls) => {
  if (stalls.length === 0) return { n: 0 }
  const sorted = stalls.toSorted((a, b) => a - b)
  const [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1].map((q) => quantile(sorted, q))
  return { n: sorted.length, p50, p90, p99, max }
}
