/** Periodic jobs of the supervisor: in virtual time each works in its fourth period as in its first, on the state of that moment. */
import { RpcGroup, RpcServer } from "@effect/rpc"
import { assert, describe, it } from "@effect/vitest"
import {
  Deferred,
  type Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  LogLevel,
  Option,
  Random,
  Scope,
  Stream,
  TestClock
} from "effect"
import { MessageChannel } from "node:worker_threads"
import { vi } from "vitest"
import * as ActorAddress from "../../src/actors/runtime/actor/ActorAddress.ts"
import * as MessagePortProtocol from "../../src/actors/runtime/port/MessagePortProtocol.ts"
import type * as Restart from "../../src/actors/runtime/supervisor/Restart.ts"
import * as Supervisor from "../../src/actors/runtime/supervisor/Supervisor.ts"
import { ThreadRpcs } from "../../src/actors/runtime/thread/ThreadContract.ts"
import * as Threads from "../../src/actors/runtime/thread/Threads.ts"
import { someTurns } from "./support/Turns.ts"

const PERIODS = 4

/** A worker thread that ends only by force. Its clock is the test's. */
const worker = vi.hoisted(() => ({ asked: 0, stopped: 0, isStarved: false, now: (): number => 0 }))
vi.mock(import("node:worker_threads"), async (original) => {
  const { EventEmitter } = await import("node:events")
  class Worker extends EventEmitter {
    postMessage = () => void worker.asked++
    terminate = async () => (worker.stopped++, this.emit("exit", 1))
  }
  return { ...await original(), Worker: Worker as never }
})
vi.mock(import("../../src/actors/runtime/liveness/Pulse.ts"), async (original) => ({
  ...await original(),
  ofWorker: () => ({ read: reading(worker.now, worker), close: () => undefined, starting: (start) => start() })
}))

/** What a thread shows that runs all the time that it is given. */
const reading = (now: () => number, thread: { readonly isStarved: boolean; readonly hungSince?: number | null }) => {
  let [cpuMs, readAt] = [0, now()]
  return () => {
    if (!thread.isStarved) cpuMs += now() - readAt
    readAt = now()
    return { cpuMs, beats: thread.hungSince ?? now(), waitedMs: 0, isAsleep: false }
  }
}

const Idle = ActorAddress.make("idle", RpcGroup.make())

const RESTART: Restart.Policy = {
  first: "100 millis",
  max: "1 second",
  forgetAfter: "5 seconds",
  limit: 3,
  patience: 0
}

/** A supervisor, and its only thread, which is as the test says. */
const start = Effect.fnUntraced(function*({ optional = false, restart = {} }: {
  readonly optional?: boolean
  readonly restart?: Partial<Restart.Policy>
} = {}) {
  const clock = yield* Effect.clock
  const now = () => clock.unsafeCurrentTimeMillis()
  const thread = {
    spawned: 0,
    heapUsedBytes: 0,
    hungSince: null as number | null,
    /** How often its actor was asked to start, and whether it does. */
    starts: 0,
    isStarting: true,
    /** Whether it waits for a processor all the time. */
    isStarved: false,
    die: () => {}
  }
  const handlers = (ended: Deferred.Deferred<string>) =>
    ThreadRpcs.toLayer({
      Load: () => Effect.void,
      Start: () =>
        Effect.suspend(() => {
          thread.starts++
          return thread.isStarting ? Effect.void : Effect.never
        }),
      Stop: () => Effect.void,
      Connect: () => Effect.void,
      Serve: () => Effect.void,
      GiveUp: () => Effect.void,
      Health: () =>
        Effect.suspend(() =>
          thread.hungSince !== null ? Effect.never : Effect.succeed({
            loopDelayP99Ms: 0,
            loopDelayMaxMs: 0,
            loopUtilization: 0,
            heapUsedBytes: thread.heapUsedBytes,
            limits: [],
            actors: []
          })
        ),
      Metrics: () => Effect.succeed([]),
      Spans: () => Effect.succeed({ spans: [], dropped: 0 }),
      Deaths: () => Stream.never,
      Tune: () => Effect.void,
      Shutdown: () => Effect.asVoid(Deferred.succeed(ended, "shut down"))
    })
  const spawn: Threads.Spawn = () =>
    Effect.gen(function*() {
      thread.spawned++
      thread.hungSince = null
      const ended = yield* Deferred.make<string>()
      thread.die = () => Deferred.unsafeDone(ended, Effect.succeed("it died"))
      const { port1: control, port2 } = new MessageChannel()
      const serve = Effect.gen(function*() {
        const { protocol } = yield* MessagePortProtocol.makeServer(port2)
        return yield* RpcServer.make(ThreadRpcs, { disableTracing: true }).pipe(
          Effect.provideService(RpcServer.Protocol, protocol),
          Effect.provide(yield* Layer.build(handlers(ended)))
        )
      })
      // As a thread, it ends on its own, and nobody waits for its finalizers.
      yield* Effect.acquireRelease(Effect.forkDaemon(Effect.interruptible(Effect.scoped(serve))), Fiber.interruptFork)
      return {
        control,
        pulse: { read: reading(now, thread), close: () => undefined },
        ended: Deferred.await(ended),
        kill: Effect.asVoid(Deferred.succeed(ended, "killed"))
      }
    })
  const supervisor = yield* Supervisor.make({
    actors: [{ address: Idle, uses: [], config: null, optional }],
    placement: "isolated",
    deadlines: { health: "2 seconds" },
    restart: { ...RESTART, ...restart },
    spawn
  })
  yield* supervisor.awaitUp
  return { hang: () => void (thread.hungSince = now()), supervisor, thread }
})

/** Passes virtual time, and the turns that a thread needs for its answer. */
const pass = (duration: Duration.DurationInput) => Effect.zipRight(TestClock.adjust(duration), someTurns)
const second = pass("1 second")
const seconds = (count: number) => Effect.repeatN(second, count - 1)
/** TestClock takes whole milliseconds only, so pauses have no jitter here. */
const exact = Effect.withRandom(Random.fixed([0.5]))
const quiet = Effect.provide(Logger.minimumLogLevel(LogLevel.None))

/** Lets the thread die. It must be made again after exactly this pause. */
const dieAndPause = (thread: { readonly spawned: number; readonly die: () => void }, ms: number) =>
  Effect.gen(function*() {
    const before = thread.spawned
    thread.die()
    yield* someTurns
    yield* pass(ms - 1)
    assert.strictEqual(thread.spawned, before, `before ${ms} ms`)
    yield* pass(1)
    assert.strictEqual(thread.spawned, before + 1, `after ${ms} ms`)
  })

describe("every period the supervisor", () => {
  it.scoped("shows how the thread is now", () =>
    Effect.gen(function*() {
      const { supervisor, thread } = yield* start()
      const shown = Effect.map(supervisor.status, ([status]) => status?.health?.heapUsedBytes)
      for (let period = 1; period <= PERIODS; period++) {
        thread.heapUsedBytes = 1000 * period
        while ((yield* shown) !== thread.heapUsedBytes) yield* second
      }
      assert.strictEqual(thread.spawned, 1)
    }).pipe(quiet))

  it.scoped("measures the main thread's own event loop", () =>
    Effect.gen(function*() {
      const { supervisor } = yield* start()
      const samples = Effect.map(supervisor.metrics, (families) => {
        const family = families.find(({ name }) => name === "sallyport_thread_loop_delay_seconds")
        if (family?._tag !== "Histogram") return 0
        const counts = family.points.find(({ labels }) => labels["thread"] === "main")?.counts ?? []
        return counts.reduce((sum, count) => sum + count, 0)
      })
      for (let period = 1; period <= PERIODS; period++) {
        const before = yield* samples
        yield* second
        assert.strictEqual((yield* samples) - before, 1, `period ${period}`)
      }
    }).pipe(quiet))

  it.scoped("replaces a thread that hangs, and no other", () =>
    Effect.gen(function*() {
      const { hang, supervisor, thread } = yield* start()
      for (let period = 1; period <= PERIODS; period++) {
        if (period > 1) {
          hang()
          while (thread.spawned < period) yield* second
        }
        yield* seconds(10)
        assert.deepStrictEqual([thread.spawned, yield* supervisor.down], [period, []], `period ${period}`)
      }
    }).pipe(quiet, exact))

  it.scoped("compares an actor's start with its thread's time", () =>
    Effect.gen(function*() {
      const { supervisor, thread } = yield* start({ optional: true })
      thread.isStarting = false
      thread.die()
      yield* second
      for (let period = 1; period <= PERIODS; period++) {
        assert.strictEqual(thread.starts, 1 + period)
        thread.isStarved = true
        yield* seconds(30) // the thread waits for a processor
        thread.isStarved = false
        yield* seconds(9)
        assert.strictEqual(thread.starts, 1 + period, "the actor has time left")
        while (thread.starts === 1 + period) yield* second
      }
      assert.deepStrictEqual([thread.spawned, (yield* supervisor.status)[0]?.state], [2, "up"])
    }).pipe(quiet, exact))
})

describe("a thread that does not end", () => {
  it.scoped("is stopped after the time that it was given", () =>
    Effect.gen(function*() {
      const clock = yield* Effect.clock
      worker.now = () => clock.unsafeCurrentTimeMillis()
      const spawn = Threads.workers({ entry: new URL("file:///nonexistent") })
      for (let period = 1; period <= PERIODS; period++) {
        const scope = yield* Scope.make()
        yield* Scope.extend(spawn("idle"), scope)
        worker.isStarved = true
        const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
        yield* Effect.repeatN(pass("50 millis"), 100) // it waits for a processor
        worker.isStarved = false
        yield* Effect.repeatN(pass("50 millis"), 28)
        assert.deepStrictEqual([worker.asked, worker.stopped], [period, period - 1], "it has 50 ms left")
        yield* pass("50 millis")
        assert.strictEqual(worker.stopped, period)
        yield* Fiber.join(closing)
      }
    }))
})

describe("a thread that dies", () => {
  it.scoped("is restarted after longer pauses, until it has run", () =>
    Effect.gen(function*() {
      const { thread } = yield* start()
      for (let period = 1; period <= PERIODS; period++) {
        for (const pauseMs of [100, 200, 400]) yield* dieAndPause(thread, pauseMs)
        yield* seconds(5) // the row of deaths is forgotten
      }
    }).pipe(quiet, exact))

  it.scoped("is given up when its restarts are used up", () =>
    Effect.gen(function*() {
      const { supervisor, thread } = yield* start({ restart: { patience: "10 seconds" } })
      const givingUp = yield* Effect.fork(Effect.flip(supervisor.awaitGiveUp))
      for (const pauseMs of [100, 200, 400, 800, ...Array.from({ length: 8 }, () => 1000)]) {
        yield* dieAndPause(thread, pauseMs)
        yield* pass(100)
      }
      const { spawned } = thread
      assert.isTrue(Option.isNone(yield* Fiber.poll(givingUp)))
      thread.die()
      yield* seconds(5)
      assert.strictEqual((yield* Fiber.join(givingUp)).lastError, "it died")
      assert.strictEqual(thread.spawned, spawned)
    }).pipe(quiet, exact))

  it.scoped("is restarted without limit if it is optional", () =>
    Effect.gen(function*() {
      const { thread } = yield* start({ optional: true })
      for (let pauseMs = 100; pauseMs < 30_000; pauseMs *= 2) yield* dieAndPause(thread, pauseMs)
      for (let period = 1; period <= PERIODS; period++) yield* dieAndPause(thread, 30_000)
    }).pipe(quiet, exact))
})
