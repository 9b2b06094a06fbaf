/** Periodic jobs of the supervisor: in virtual time each works in its fourth period as in its first, on the state of that moment. */
import { RpcGroup, RpcServer } from "@effect/rpc"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Logger, LogLevel, Random, Stream, TestClock } from "effect"
import { MessageChannel } from "node:worker_threads"
import * as ActorAddress from "../../src/actors/runtime/actor/ActorAddress.ts"
import * as MessagePortProtocol from "../../src/actors/runtime/port/MessagePortProtocol.ts"
import * as Supervisor from "../../src/actors/runtime/supervisor/Supervisor.ts"
import { ThreadRpcs } from "../../src/actors/runtime/thread/ThreadContract.ts"
import type { Spawn } from "../../src/actors/runtime/thread/Threads.ts"
import { someTurns } from "./support/Turns.ts"

const PERIODS = 4
const Idle = ActorAddress.make("idle", RpcGroup.make())

/** A supervisor, and its only thread, which is as the test says. */
const start = Effect.gen(function*() {
  const clock = yield* Effect.clock
  const now = () => clock.unsafeCurrentTimeMillis()
  const thread = { spawned: 0, heapUsedBytes: 0, hungSince: null as number | null }
  const handlers = (ended: Deferred.Deferred<string>) =>
    ThreadRpcs.toLayer({
      Load: () => Effect.void,
      Start: () => Effect.void,
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
  const spawn: Spawn = () =>
    Effect.gen(function*() {
      thread.spawned++
      thread.hungSince = null
      const ended = yield* Deferred.make<string>()
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
      // It runs all the time. Its event loop turns until it hangs.
      const read = () => ({ beats: thread.hungSince ?? now(), cpuMs: now(), waitedMs: 0, isAsleep: false })
      return {
        control,
        pulse: { read, close: () => undefined },
        ended: Deferred.await(ended),
        kill: Effect.asVoid(Deferred.succeed(ended, "killed"))
      }
    })
  const supervisor = yield* Supervisor.make({
    actors: [{ address: Idle, uses: [], config: null }],
    placement: "isolated",
    deadlines: { health: "2 seconds" },
    restart: { first: "100 millis", max: "1 second", forgetAfter: "5 seconds", limit: 3, patience: 0 },
    spawn
  })
  yield* supervisor.awaitUp
  return { hang: () => void (thread.hungSince = now()), supervisor, thread }
})

/** Passes a second of virtual time, and the turns that a thread needs for its answer. */
const second = Effect.zipRight(TestClock.adjust("1 second"), someTurns)
const quiet = Effect.provide(Logger.minimumLogLevel(LogLevel.None))

describe("every period the supervisor", () => {
  it.scoped("shows how the thread is now", () =>
    Effect.gen(function*() {
      const { supervisor, thread } = yield* start
      const shown = Effect.map(supervisor.status, ([status]) => status?.health?.heapUsedBytes)
      for (let period = 1; period <= PERIODS; period++) {
        thread.heapUsedBytes = 1000 * period
        while ((yield* shown) !== thread.heapUsedBytes) yield* second
      }
      assert.strictEqual(thread.spawned, 1)
    }).pipe(quiet))

  it.scoped("measures the main thread's own event loop", () =>
    Effect.gen(function*() {
      const { supervisor } = yield* start
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
      const { hang, supervisor, thread } = yield* start
      for (let period = 1; period <= PERIODS; period++) {
        if (period > 1) {
          hang()
          while (thread.spawned < period) yield* second
        }
        for (let passed = 0; passed < 10; passed++) yield* second
        assert.deepStrictEqual([thread.spawned, yield* supervisor.down], [period, []], `period ${period}`)
      }
    }).pipe(quiet, Effect.withRandom(Random.fixed([0.5])))) // TestClock takes whole milliseconds only
})
