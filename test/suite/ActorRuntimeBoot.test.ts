import { assert, describe, it } from "@effect/vitest"
import { Chunk, Effect, Logger, LogLevel, Stream } from "effect"
import { createHook } from "node:async_hooks"
import { fork } from "node:child_process"
import { once } from "node:events"
import { existsSync } from "node:fs"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, vi } from "vitest"
import * as Processes from "../../src/actors/runtime/thread/Processes.ts"
import * as Threads from "../../src/actors/runtime/thread/Threads.ts"
import * as Bundle from "./runtime/Bundle.ts"
import { eventually, kinds, QUIET, restart, start, startBroken, startUp } from "./runtime/Harness.ts"
import { registry } from "./runtime/TestActors.ts"
import { Broken, BrokenImport, Echo } from "./runtime/TestRpcs.ts"

vi.setConfig({ testTimeout: 300_000, hookTimeout: 120_000 }) // a hung thread is ended by its own processor time

let bundle: Bundle.Bundle
beforeAll(async () => {
  bundle = await Bundle.make()
})
afterAll(() => bundle.remove())

const quiet = Logger.minimumLogLevel(LogLevel.None)
const spawns = [
  { name: "in-thread", spawn: () => Threads.inThread(registry) },
  { name: "worker thread", spawn: () => Threads.workers({ entry: bundle.entry, telemetry: QUIET }) },
  { name: "child process", spawn: () => Processes.processes({ entry: bundle.entry, telemetry: QUIET }) }
]

describe.each(spawns)("an actor that does not start, $name", ({ spawn }) => {
  it.scopedLive.each([
    { how: "import", told: "import: Error: no such module" },
    { how: "layer", told: "the port is taken" },
    { how: "defect", told: "a bug at boot" },
    { how: "nonsense", told: "config: " },
    { how: "hang", told: "timed_out: " }
  ])("is reported and given up: $how", ({ how, told }) =>
    Effect.gen(function*() {
      const supervisor = yield* startBroken(spawn(), how, {
        deadlines: { boot: how === "hang" ? "1500 millis" : "10 seconds" }
      })
      const ref = supervisor.ref(how === "import" ? BrokenImport : Broken)
      const ask = ref.ask((client) => client.Nothing(), { deadline: "1 millis" })
      assert.strictEqual((yield* Effect.flip(ask)).reason, "starting")
      const error = yield* Effect.flip(supervisor.awaitUp)
      assert.strictEqual((yield* Effect.flip(ask)).reason, "gave_up")
      assert.strictEqual(error._tag, "GaveUp")
      assert.include(error.lastError, told)
      const [thread] = yield* supervisor.status
      assert.strictEqual(thread?.state, "up")
      assert.include(thread?.actors[0], { state: "gave_up", incarnation: 3, restarts: 2 })
    }).pipe(Effect.provide(quiet)))
})

describe("a thread", () => {
  it.scopedLive.each([
    { what: "whose entry throws", entry: () => bundle.throwing, told: "bad entry" },
    { what: "whose entry is absent", entry: () => new URL("absent.mjs", bundle.entry), told: "absent.mjs" },
    { what: "that never answers", entry: () => bundle.hanging, told: "boot deadline" }
  ])("$what is reported and given up, with its actors", ({ entry, told }) =>
    Effect.gen(function*() {
      const spawn = Threads.workers({ entry: entry(), telemetry: QUIET })
      const supervisor = yield* startBroken(spawn, "layer", {
        restart: { ...restart, first: "1 millis", max: "1 millis", limit: 1 },
        deadlines: { boot: told === "boot deadline" ? "300 millis" : "10 seconds" }
      })
      const error = yield* Effect.flip(supervisor.awaitGiveUp)
      assert.strictEqual(error.what, "thread broken")
      assert.include(error.lastError, told)
      const [thread] = yield* supervisor.status
      assert.strictEqual(thread?.actors[0]?.state, "gave_up")
    }).pipe(Effect.provide(quiet)))

  it.scopedLive("ends alone and says so when its memory runs out", () =>
    Effect.gen(function*() {
      const supervisor = yield* startBroken(
        Threads.workers({ entry: bundle.entry, telemetry: QUIET, resourceLimits: { maxOldGenerationSizeMb: 1 } }),
        "layer",
        { restart: { ...restart, first: "1 millis", max: "1 millis", limit: 1 } }
      )
      const error = yield* Effect.flip(supervisor.awaitGiveUp)
      assert.include(error.lastError, "memory")
    }).pipe(Effect.provide(quiet)))
})

describe("a child process", () => {
  it.scopedLive.each([
    { what: "whose entry throws", entry: () => bundle.throwing, told: "the process ended with code 1" },
    { what: "that never answers", entry: () => bundle.hanging, told: "boot deadline" }
  ])("$what is reported and given up, with its actors", ({ entry, told }) =>
    Effect.gen(function*() {
      const supervisor = yield* startBroken(Processes.processes({ entry: entry(), telemetry: QUIET }), "layer", {
        restart: { ...restart, first: "1 millis", max: "1 millis", limit: 1 },
        deadlines: { boot: told === "boot deadline" ? "300 millis" : "10 seconds" }
      })
      assert.include((yield* Effect.flip(supervisor.awaitGiveUp)).lastError, told)
    }).pipe(Effect.provide(quiet)))

  it.scopedLive("tells by which signal it was killed", () =>
    Effect.gen(function*() {
      const child = yield* Processes.processes({ entry: bundle.entry, telemetry: QUIET })("one")
      yield* child.kill
      assert.strictEqual(yield* child.ended, "the process ended with SIGKILL")
    }))

  it("ignores signals to its group, and ends with its parent", async () => {
    const child = fork(bundle.entry, {
      execArgv: [],
      serialization: "advanced",
      stdio: ["ignore", "ignore", "inherit", "ipc"]
    })
    const ended = once(child, "exit")
    child.send({ thread: "one", telemetry: QUIET })
    const request = { _tag: "Request", id: "1", tag: "Health", payload: null, headers: [] }
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      child.send({ channel: Processes.CONTROL, message: request, ports: [] })
      await once(child, "message") // it is up
      child.kill(signal)
    }
    child.send({ channel: Processes.CONTROL, message: request, ports: [] })
    await once(child, "message")
    child.disconnect()
    assert.deepStrictEqual(await ended, [1, null])
  })
})

describe("a thread whose event loop hangs", () => {
  it.scopedLive("is killed and started again", () =>
    Effect.gen(function*() {
      const [, oneWorker] = kinds
      assert.isDefined(oneWorker)
      const supervisor = yield* start(oneWorker, bundle.entry, undefined, { health: "1500 millis" })
      yield* supervisor.awaitUp
      const echo = supervisor.ref(Echo)
      const hung = yield* Effect.flip(echo.ask((client) => client.BlockThread(), { deadline: "200 millis" }))
      assert.strictEqual(hung.reason, "timed_out")
      const during = echo.ask((client) => client.Echo({ n: 3 }), { deadline: "4 minutes" })
      assert.strictEqual((yield* Effect.flip(during)).reason, "died")
      assert.strictEqual(yield* during, 3)
      const [thread] = yield* supervisor.status
      assert.strictEqual(thread?.incarnation, 2)
      assert.match(thread?.lastError ?? "", /^its event loop hangs: it ran for \S+ s without a turn$/)
    }).pipe(Effect.provide(quiet)))
})

describe("a thread inside a native library", () => {
  const KILLS = 20

  it.scopedLive(`is killed ${KILLS} times without harm to the process`, () =>
    Effect.gen(function*() {
      const dir = yield* Effect.acquireRelease(
        Effect.promise(() => mkdtemp(join(tmpdir(), "killed-"))),
        (dir) => Effect.promise(() => rm(dir, { recursive: true }))
      )
      const spawn = Threads.workers({ entry: bundle.query, telemetry: QUIET })
      for (let kill = 0; kill < KILLS; kill++) {
        const path = join(dir, `${kill}.db`)
        const thread = yield* spawn(path)
        yield* eventually(Effect.sync(() => existsSync(path)))
        yield* Effect.sleep(30 + kill) // and now it asks and asks
        yield* thread.kill
        assert.strictEqual(yield* thread.ended, "the thread exited with code 1")
      }
    }))
})

describe("a supervisor", () => {
  const [inThread, oneWorker] = kinds

  it.scopedLive("reports states as events, and queues and load as status", () =>
    Effect.gen(function*() {
      assert.isDefined(oneWorker)
      const supervisor = yield* startUp(oneWorker, bundle.entry)
      const events = yield* supervisor.events.pipe(
        Stream.filter(({ name }) => name === "echo"),
        Stream.take(2),
        Stream.runCollect
      )
      assert.deepStrictEqual(Chunk.toReadonlyArray(events).map(({ state }) => state), ["starting", "up"])
      yield* eventually(Effect.map(supervisor.status, ([thread]) => thread?.health !== null))
      const [thread] = yield* supervisor.status
      assert.isAbove(thread?.health?.heapUsedBytes ?? 0, 1_000_000)
      const echo = thread?.actors.find(({ name }) => name === "echo")
      assert.deepStrictEqual(echo?.queues, [{ name: "inbox", capacity: 16, depth: 0 }])
    }).pipe(Effect.provide(quiet)))

  it.scopedLive("refuses a placement that leaves an actor out", () =>
    Effect.gen(function*() {
      assert.isDefined(inThread)
      const error = yield* Effect.flip(start({ ...inThread, placement: { one: ["echo", "middle"] } }, bundle.entry))
      assert.include(error.message, "front")
    }).pipe(Effect.provide(quiet)))

  it.scopedLive("leaves no handle and no thread behind, fifty times over", () =>
    Effect.gen(function*() {
      assert.isDefined(inThread)
      assert.isDefined(oneWorker)
      const once = (kind: typeof inThread) =>
        Effect.scoped(Effect.flatMap(startUp(kind, bundle.entry), (supervisor) =>
          supervisor.ref(Echo).ask((client) =>
            client.Echo({ n: 1 })
          )))
      const kinds = [inThread, inThread, inThread, inThread, oneWorker] // ten of the fifty with a thread
      yield* once(oneWorker) // whatever Node keeps for good
      yield* once(inThread)
      yield* Effect.sleep("100 millis")
      const { handles } = yield* countHandles
      yield* Effect.scoped(Effect.zipRight(
        startUp(inThread, bundle.entry),
        Effect.sync(() =>
          assert.include(handles(), "PORT")
        )
      ))
      for (let at = 0; at < 50; at++) {
        yield* once(kinds[at % kinds.length] ?? inThread)
      }
      yield* eventually(Effect.sync(() => handles() === ""))
    }).pipe(Effect.provide(quiet)))
})

/** Ports and workers of this process that are not closed. (Node's own list of active resources leaves idle ports out.) */
const countHandles = Effect.acquireRelease(
  Effect.sync(() => {
    const open = new Map<number, string>()
    const hook = createHook({
      init: (id, type) => void (/^(MESSAGEPORT|WORKER)$/.test(type) && open.set(id, type)),
      destroy: (id) => void open.delete(id)
    }).enable()
    return { hook, handles: () => [...open.values()].sort().join() }
  }),
  ({ hook }) => Effect.sync(() => hook.disable())
)
