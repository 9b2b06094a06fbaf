import { assert, describe, it } from "@effect/vitest"
import { build } from "esbuild"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdirSync } from "node:fs"
import { mkdtemp, readdir, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll } from "vitest"

/**
 * Each worker passes packets to the library, each in a buffer of its own, and reports how many bytes are still in memory
 * afterwards. With `together`, the main thread and both workers have loaded the library before a worker passes packets.
 * Otherwise the second worker starts after the first one has ended.
 */
const PROGRAM = `
import { once } from "node:events"
import { setImmediate } from "node:timers/promises"
import { isMainThread, parentPort, Worker } from "node:worker_threads"
import * as Binding from "./src/transport/quic/engine/Binding.ts"

const use = async (turns) => {
  for (let turn = 0; turn < turns; turn++) {
    for (let i = 0; i < 1000; i++) Binding.native().quiche.Header.fromSlice(new Uint8Array(1200).fill(0x40), 16)
    await setImmediate()
  }
  for (let turn = 0; turn < 8; turn++) {
    await setImmediate()
    gc()
  }
}
const tell = (held) => console.log(JSON.stringify(held))
const start = () => {
  const worker = new Worker(new URL(import.meta.url))
  return { worker, loaded: once(worker, "message"), ended: once(worker, "exit") }
}
const run = async ({ worker, ended }) => {
  const held = once(worker, "message")
  worker.postMessage("begin")
  tell((await held)[0])
  await ended
}
if (!isMainThread) {
  Binding.native()
  const begin = once(parentPort, "message")
  parentPort.postMessage("loaded")
  await begin
  await use(40)
  parentPort.postMessage(process.memoryUsage().arrayBuffers)
} else {
  Binding.share()
  if (process.argv[2] === "together") {
    await use(1)
    const threads = [start(), start()]
    for (const { loaded } of threads) await loaded
    await Promise.all(threads.map(run))
  } else {
    for (let i = 0; i < 2; i++) {
      const thread = start()
      await thread.loaded
      await run(thread)
    }
  }
}
`
/** Most bytes that a worker may still have in memory. It passes 48 MB. */
const HELD_BYTES = 10_000_000
const CACHE = join(import.meta.dirname, "../../node_modules/.cache") // packages outside the bundle are found from here

let dir: string
let program: string
beforeAll(async () => {
  mkdirSync(CACHE, { recursive: true })
  dir = await mkdtemp(join(CACHE, "binding-"))
  program = join(dir, "program.mjs")
  const stdin = { contents: PROGRAM, resolveDir: join(import.meta.dirname, "../..") }
  await build({ stdin, bundle: true, format: "esm", platform: "node", external: ["@infisical/quic"], outfile: program })
})
afterAll(() => rm(dir, { recursive: true, force: true }))

const run = async (how: string, env: Readonly<Record<string, string>> = {}) => {
  const child = spawn(process.execPath, ["--expose-gc", program, how], { env: { ...process.env, ...env } })
  let out = ""
  let err = ""
  child.stdout.on("data", (bytes) => (out += String(bytes)))
  child.stderr.on("data", (bytes) => (err += String(bytes)))
  const [code, signal] = await once(child, "close")
  assert.deepStrictEqual([code, signal], [0, null], err)
  const held = out.trim().split("\n").map(Number)
  assert.lengthOf(held, 2)
  return held
}

const ON_LINUX = process.platform === "linux" && process.arch === "x64"

describe.runIf(ON_LINUX)("the QUIC library in several threads of a process", () => {
  it("releases the packets of threads that run together", async () => {
    for (const bytes of await run("together")) assert.isBelow(bytes, HELD_BYTES)
  })

  it("releases the packets of a restarted thread", async () => {
    const tmp = await mkdtemp(join(tmpdir(), "binding-"))
    for (const bytes of await run("in turn", { TMPDIR: tmp })) assert.isBelow(bytes, HELD_BYTES)
    assert.deepStrictEqual(await readdir(tmp), [], "the copy of the library is removed")
    await rm(tmp, { recursive: true })
  })

  it("finds another directory if the temporary one is unusable", async () => {
    for (const bytes of await run("in turn", { TMPDIR: "/proc" })) assert.isBelow(bytes, HELD_BYTES)
  })
})
