import { assert, describe, it } from "@effect/vitest"
import { build } from "esbuild"
import { spawn } from "node:child_process"
import { EventEmitter, once } from "node:events"
import { readdirSync, readFileSync } from "node:fs"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { Worker } from "node:worker_threads"
import { afterAll, beforeAll } from "vitest"
import * as TiedChild from "../../src/services/host/TiedChild.ts"

/** Starts a shell that says its process id and sleeps; passes that on to the parent thread or to standard output. */
const STARTER = `
import { parentPort } from "node:worker_threads"
import * as TiedChild from "./src/services/host/TiedChild.ts"
const tell = (pid) => parentPort === null ? console.log(pid) : parentPort.postMessage(pid)
TiedChild.start("sh", ["-c", "echo $$; exec sleep 600"], { onOutput: (pid) => tell(String(pid)), onEnd: () => {} })
parentPort?.on("message", () => process.exit(1))
setInterval(() => {}, 1000)
`

let dir: string
let starter: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tied-"))
  starter = join(dir, "starter.mjs")
  const stdin = { contents: STARTER, resolveDir: join(import.meta.dirname, "../..") }
  await build({ stdin, bundle: true, format: "esm", platform: "node", outfile: starter })
})
afterAll(() => rm(dir, { recursive: true }))

/** Processes of this process's group, the watcher included, that have not ended. Whoever adopted them reaps them in time. */
const runningIn = (group: number) =>
  readdirSync("/proc").filter((pid) => {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, "latin1")
      const [state, , itsGroup] = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
      return state !== "Z" && Number(itsGroup) === group
    } catch {
      return false // no process, or one that has just ended
    }
  })

const groupOf = (pid: number) => {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1")
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[2])
}

const untilGone = async (group: number) => {
  while (runningIn(group).length > 0) await sleep(10)
}

describe.runIf(process.platform === "linux")("a tied child", () => {
  it.each(["exits", "is terminated"])("ends when its thread %s", async (how) => {
    const worker = new Worker(starter)
    const [pid] = await once(worker, "message") as [string]
    const group = groupOf(Number(pid))
    assert.strictEqual(runningIn(group).length, 2)
    if (how === "exits") worker.postMessage("exit")
    else await worker.terminate()
    await untilGone(group)
  })

  it("ends when its process is killed", async () => {
    const parent = spawn(process.execPath, [starter], { stdio: ["ignore", "pipe", "inherit"] })
    const [pid] = await once(parent.stdout, "data") as [Buffer]
    const group = groupOf(Number(String(pid)))
    assert.strictEqual(runningIn(group).length, 2)
    parent.kill("SIGKILL")
    await untilGone(group)
  })

  const run = (command: string, args: ReadonlyArray<string>) => {
    const output = new EventEmitter<{ data: [Buffer]; end: [TiedChild.How] }>()
    const end = TiedChild.start(command, args, {
      onOutput: (bytes) => output.emit("data", bytes),
      onEnd: (how) => output.emit("end", how)
    })
    return { output, end }
  }

  it("ends on request, and says so", async () => {
    const { end, output } = run("sh", ["-c", "echo $$ \"$0 $1\"; exec sleep 600", "a b", "c"])
    const [line] = await once(output, "data") as [Buffer]
    const [, pid, args] = /^(\d+) (.*)\n$/.exec(String(line)) ?? []
    assert.strictEqual(args, "a b c")
    const group = groupOf(Number(pid))
    const ended = once(output, "end")
    end()
    assert.deepStrictEqual(await ended, ["ended"])
    await untilGone(group)
  })

  it("leaves no watcher behind when it ends by itself", async () => {
    const { output } = run("sh", ["-c", "echo $$; exec sleep 0.2"])
    const [pid] = await once(output, "data") as [Buffer]
    const group = groupOf(Number(String(pid)))
    assert.deepStrictEqual(await once(output, "end"), ["ended"])
    await untilGone(group)
  })

  it("says that its command is not installed", async () => {
    const { output } = run("no-such-command-here", [])
    assert.deepStrictEqual(await once(output, "end"), ["absent"])
  })
})
