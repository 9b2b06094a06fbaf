/** Much data and many flows through the programs: what memory they take, and that no byte is lost, changed or kept back. */
import { createHash, type Hash, randomBytes } from "node:crypto"
import type { Socket } from "node:net"
import { monitorEventLoopDelay } from "node:perf_hooks"
import { setTimeout as sleep } from "node:timers/promises"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import { HANG_MS } from "../support/Hang.ts"
import { resource, serve, type Served, until, World } from "./support/Programs.ts"

const MIB = 1 << 20
/** `npm run test:programs:full` */
const FULL = process.env["SALLYPORT_FULL"] === "1"
const BLOCK = randomBytes(MIB)
/** Of each process, over what it had when its heaps had seen some traffic. */
const GROWTH_MIB = 64
const WARM_UP = 64 * MIB

interface Sending {
  hash: Hash
  bytes: number
}

/** Writes `total` bytes, each MiB another, and never faster than they are taken. */
const send = (socket: Socket, total: number): Sending => {
  const sending = { hash: createHash("sha256"), bytes: 0 }
  const more = () => {
    while (sending.bytes < total) {
      const block = Buffer.from(BLOCK)
      block.writeUInt32BE(sending.bytes / MIB)
      sending.hash.update(block)
      sending.bytes += block.length
      if (!socket.write(block)) return
    }
    socket.end()
  }
  socket.on("drain", more)
  more()
  return sending
}

describe.each(
  [
    { path: "relay", total: 500 * MIB, pauseMs: 10_000 },
    { path: "auto", total: (FULL ? 500 : 200) * MIB, pauseMs: FULL ? 10_000 : 2_000 }
  ] as const
)("a large download, path $path", ({ path, pauseMs, total }) => {
  let server: Served
  let world: World
  let sending: Sending | null = null
  let wanted = WARM_UP

  beforeAll(async () => {
    server = await serve((socket) => void (sending = send(socket, wanted)))
    world = await World.start({ resources: [resource("file", server.port)], node: { path } })
  })
  afterEach(({ task }) => {
    if (task.result?.state === "fail") world.tell()
  })
  afterAll(async () => {
    await world?.stop()
    server?.close()
  })

  const download = async (pauseAt: number) => {
    const socket = await world.dial("file", server.port)
    const hash = createHash("sha256")
    let bytes = 0
    let paused = 0
    socket.on("data", (part: Buffer) => {
      hash.update(part)
      bytes += part.length
      if (bytes < pauseAt || paused > 0) return
      socket.pause()
      paused = 1
      setTimeout(() => {
        paused = (sending?.bytes ?? 0) - bytes // what is under way when nobody reads
        socket.resume()
      }, pauseMs)
    })
    await new Promise((resolve, reject) => socket.once("end", resolve).once("error", reject))
    socket.destroy()
    return { bytes, digest: hash.digest("hex"), paused }
  }

  // When V8 collects is chance, and a peak may hold garbage; what is truly kept is kept each time.
  it("reaches a pausing reader whole, and fills no memory", { retry: 2 }, async () => {
    await download(Infinity)
    if (path === "auto") await world.direct()
    wanted = total
    const before = world.all.map(([role, program]) => {
      program.forgetPeak()
      return { role, program, rss: program.rss().now }
    })
    const { bytes, digest, paused } = await download(total / 2)
    assert.strictEqual(bytes, total)
    assert.strictEqual(digest, sending?.hash.digest("hex"))
    assert.isAbove(paused, 1)
    assert.isBelow(paused, 128 * MIB, "the sender was held back while the reader paused")
    const grown = before.map(({ program, role, rss }) => [role, Math.round(program.rss().peak - rss)] as const)
    process.stderr.write(
      `RSS growth, MiB (${path}): ${JSON.stringify(grown)}; before ${
        before.map(({ rss }) => Math.round(rss)).join(" ")
      }\n`
    )
    for (const [role, mib] of grown) assert.isAtMost(mib, GROWTH_MIB, role)
  })
})

// ------------------------------------------------------------------------------------------------------------ many flows

const FLOWS = 500
const HALF_CLOSED = 300
/** More than a stream's first window: every tenth flow has so much. */
const WHOLE_WINDOW = 600 * 1024
/** Three hundred of these are more than the session's window: all senders wait for it. */
const LARGE = 128 * 1024
const SMALL = 64 * 1024
/** A promise only of a machine that does nothing else, which the full size asks for; the figure is printed always. */
const STALL_MS = FULL ? 1_000 : 10_000
const PATTERN = randomBytes(MIB + 7)

/** The byte stream of one flow in one direction: no two are alike. */
const offsetOf = (flow: number, up: boolean) => (flow * 7919 + (up ? 1 : 500_000)) % PATTERN.length

const piece = (start: number, at: number, length: number) => {
  const from = (start + at) % PATTERN.length
  return PATTERN.subarray(from, Math.min(PATTERN.length, from + length))
}

/** Checks each byte of one direction as it comes, and remembers the longest time without one. */
class Checker {
  bytes = 0
  stallMs = 0
  wrong = false
  readonly #start: number
  readonly #gap: Gap

  constructor(start: number, gap: Gap) {
    this.#start = start
    this.#gap = gap
  }

  take(part: Buffer): void {
    this.#gap.progress()
    for (let at = 0; at < part.length;) {
      const expected = piece(this.#start, this.bytes, part.length - at)
      if (part.compare(expected, 0, expected.length, at, at + expected.length) !== 0) this.wrong = true
      at += expected.length
      this.bytes += expected.length
    }
  }
}

/** The longest time in which a flow got no byte either way. */
class Gap {
  longestMs = 0
  #last = Infinity

  /** The first call begins the time. */
  progress(): void {
    const now = performance.now()
    this.longestMs = Math.max(this.longestMs, now - this.#last)
    this.#last = now
  }
}

const write = (socket: Socket, start: number, total: number): void => {
  let at = 0
  const more = () => {
    while (at < total) {
      const part = piece(start, at, Math.min(64 * 1024, total - at))
      at += part.length
      if (!socket.write(part)) return
    }
    socket.off("drain", more)
    socket.end() // at once behind the last byte: far more is waiting than any window takes
  }
  socket.on("drain", more)
  more()
}

type Kind = "client-ends-first" | "server-ends-first" | "both-at-once"
const kindOf = (flow: number): Kind =>
  flow >= HALF_CLOSED ? "both-at-once" : flow % 2 === 0 ? "client-ends-first" : "server-ends-first"

/** The side that ends first has the more to say. */
const sizeOf = (flow: number, way: "up" | "down"): number =>
  kindOf(flow) !== (way === "up" ? "client-ends-first" : "server-ends-first")
    ? SMALL
    : flow % 10 < 2
    ? WHOLE_WINDOW
    : LARGE

/** Reads one direction to its end. */
const readAll = (socket: Socket, checker: Checker): Promise<void> =>
  new Promise((resolve, reject) => {
    socket.on("data", (part: Buffer) => checker.take(part)).once("end", resolve).once("error", reject)
    socket.once("close", () => reject(new Error("closed before the end")))
  })

describe("five hundred flows at once", () => {
  const gaps = Array.from({ length: FLOWS }, () => new Gap())
  const down = gaps.map((gap, flow) => new Checker(offsetOf(flow, false), gap))
  const up = gaps.map((gap, flow) => new Checker(offsetOf(flow, true), gap))
  const served: Array<Promise<void>> = []
  let server: Served
  let world: World

  /** The first four bytes say which flow it is. */
  const answer = async (socket: Socket) => {
    const head = await new Promise<Buffer>((resolve) => {
      const onReadable = () => {
        const bytes = socket.read(4) as Buffer | null
        if (bytes === null) return
        socket.off("readable", onReadable)
        resolve(bytes)
      }
      socket.on("readable", onReadable)
    })
    const flow = head.readUInt32BE()
    const kind = kindOf(flow)
    const checker = up[flow]!
    if (kind === "server-ends-first" || kind === "both-at-once") {
      write(socket, offsetOf(flow, false), sizeOf(flow, "down"))
    }
    if (kind === "client-ends-first") await sleep(200) // its window fills meanwhile
    gaps[flow]!.progress()
    await readAll(socket, checker)
    if (kind === "client-ends-first") write(socket, offsetOf(flow, false), sizeOf(flow, "down"))
  }

  const ask = async (flow: number) => {
    const kind = kindOf(flow)
    const socket = await world.dial("many", server.port)
    const head = Buffer.alloc(4)
    head.writeUInt32BE(flow)
    socket.write(head)
    gaps[flow]!.progress()
    if (kind === "client-ends-first" || kind === "both-at-once") write(socket, offsetOf(flow, true), sizeOf(flow, "up"))
    if (kind === "server-ends-first") await sleep(200)
    gaps[flow]!.progress()
    const whole = readAll(socket, down[flow]!)
    if (kind === "server-ends-first") {
      void whole.then(() => write(socket, offsetOf(flow, true), sizeOf(flow, "up")), () => undefined)
    }
    await whole
    if (kind === "server-ends-first") await until("all is sent", () => socket.writableFinished || null, HANG_MS)
  }

  beforeAll(async () => {
    server = await serve((socket) => void served.push(answer(socket)))
    world = await World.start({ resources: [resource("many", server.port)] })
  })
  afterEach(({ task }) => {
    if (task.result?.state === "fail") world.tell()
  })
  afterAll(async () => {
    await world?.stop()
    server?.close()
  })

  it("delivers every byte of all flows, whichever side ends first", async () => {
    const lag = monitorEventLoopDelay({ resolution: 10 })
    lag.enable()
    const began = performance.now()
    const asked = await Promise.allSettled(Array.from({ length: FLOWS }, (_, flow) => ask(flow)))
    await Promise.all(served)
    const ms = performance.now() - began
    lag.disable()
    assert.deepStrictEqual(asked.filter(({ status }) => status === "rejected"), [])
    for (let flow = 0; flow < FLOWS; flow++) {
      assert.deepStrictEqual(
        [up[flow]!.bytes, up[flow]!.wrong, down[flow]!.bytes, down[flow]!.wrong],
        [sizeOf(flow, "up"), false, sizeOf(flow, "down"), false],
        `flow ${flow}, ${kindOf(flow)}`
      )
    }
    const carried = [...up, ...down].reduce((sum, { bytes }) => sum + bytes, 0)
    const longest = gaps.map(({ longestMs }) => longestMs).sort((left, right) => right - left)
    process.stderr.write(
      `${FLOWS} flows, ${Math.round(carried / MIB)} MiB in ${ms.toFixed(0)} ms; longest stalls ${
        longest.slice(0, 5).map((gap) => gap.toFixed(0)).join(" ")
      } ms; this process stood still ${(lag.max / 1e6).toFixed(0)} ms\n`
    )
    assert.isBelow(longest[0]!, STALL_MS)
    await until("no flow is left", async () => (await world.status()).peers[0]?.flows === 0 || null, HANG_MS)
  })
})
