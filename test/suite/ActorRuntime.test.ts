import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Logger, LogLevel, Option, type Scope, Stream } from "effect"
import { afterAll, beforeAll } from "vitest"
import { ActorUnavailable } from "../../src/actors/runtime/actor/ActorRef.ts"
import { HANG_MS } from "../support/Hang.ts"
import * as Bundle from "./runtime/Bundle.ts"
import { eventually, type Kind, kinds, newChannel, start, startUp, told } from "./runtime/Harness.ts"
import { Echo, EchoFailed, Front, Middle } from "./runtime/TestRpcs.ts"

let bundle: Bundle.Bundle
beforeAll(async () => {
  bundle = await Bundle.make()
})
afterAll(() => bundle.remove())

const quiet = Logger.minimumLogLevel(LogLevel.None)

describe.each(kinds)("actors, $name", (kind: Kind) => {
  const scoped = <E>(name: string, test: () => Effect.Effect<unknown, E, Scope.Scope>) =>
    it.scopedLive(name, () => Effect.provide(test(), quiet))
  const up = Effect.suspend(() => startUp(kind, bundle.entry))

  scoped("answer calls, and keep the order of messages", () =>
    Effect.gen(function*() {
      const supervisor = yield* up
      const echo = supervisor.ref(Echo)
      assert.strictEqual(yield* echo.ask((client) => client.Echo({ n: 41 })), 41)
      const wanted = Array.from({ length: 500 }, (_, n) => n)
      yield* echo.ask((client) =>
        Effect.forEach(wanted, (n) => client.Append({ n }), { concurrency: "unbounded", discard: true })
      )
      assert.deepStrictEqual([...yield* echo.ask((client) => client.Appended())], wanted)
    }))

  scoped("fail with the typed errors of a call", () =>
    Effect.gen(function*() {
      const echo = (yield* up).ref(Echo)
      const error = yield* Effect.flip(echo.ask((client) => client.Fail({ why: "because" })))
      assert.instanceOf(error, EchoFailed)
      assert.strictEqual(error.why, "because")
    }))

  scoped(
    "contain a handler's defect: the asker gets ActorUnavailable, other calls and the state go on",
    () =>
      Effect.gen(function*() {
        const echo = (yield* up).ref(Echo)
        yield* echo.ask((client) => client.Bump())
        const hanging = yield* Effect.fork(echo.ask((client) => client.Hang()))
        yield* Effect.sleep("20 millis")
        const error = yield* Effect.flip(echo.ask((client) => client.HandlerDies()))
        assert.instanceOf(error, ActorUnavailable)
        assert.strictEqual(error.reason, "died")
        assert.isTrue(Option.isNone(yield* Fiber.poll(hanging)))
        assert.strictEqual(yield* echo.ask((client) => client.Bump()), 2)
      })
  )

  scoped("leave an asker's own defects to the asker", () =>
    Effect.gen(function*() {
      const echo = (yield* up).ref(Echo)
      const exit = yield* Effect.exit(echo.ask(() => Effect.die(new Error("mine"))))
      assert.isTrue(Exit.isFailure(exit) && Cause.isDie(exit.cause))
    }))

  scoped("stream whole and in order, with the stream's own error at its end", () =>
    Effect.gen(function*() {
      const echo = (yield* up).ref(Echo)
      const sum = yield* Stream.runSum(echo.subscribe((client) => client.Numbers({ to: 1000 })))
      assert.strictEqual(sum, 500_500)
      const got: Array<number> = []
      const failing = echo.subscribe((client) => client.FailingStream())
      const error = yield* Effect.flip(Stream.runForEach(failing, (n) => Effect.sync(() => void got.push(n))))
      assert.instanceOf(error, EchoFailed)
      assert.deepStrictEqual(got, [1, 2])
    }))

  scoped("hold a stream back when its reader is slow, and serve other calls meanwhile", () =>
    Effect.gen(function*() {
      const echo = (yield* up).ref(Echo)
      const stuck = yield* Effect.fork(
        Stream.runForEach(echo.subscribe((client) => client.Numbers({ to: 100_000 })), () => Effect.never)
      )
      const produced = echo.ask((client) => client.Produced())
      yield* eventually(Effect.map(produced, (count) => count > 0))
      yield* Effect.sleep("100 millis") // time to produce more
      assert.isAtMost(yield* produced, 100)
      assert.strictEqual(yield* echo.ask((client) => client.Echo({ n: 7 })), 7)
      yield* Fiber.interrupt(stuck)
      yield* eventually(Effect.gen(function*() {
        const before = yield* produced
        yield* Effect.sleep("50 millis")
        return (yield* produced) === before
      }))
      assert.isAtMost(yield* produced, 100)
    }))

  scoped("end an ask at its deadline, and interrupt the handler across the thread", () =>
    Effect.gen(function*() {
      const supervisor = yield* up
      const echo = supervisor.ref(Echo)
      const error = yield* Effect.flip(echo.ask((client) => client.Hang(), { deadline: "50 millis" }))
      assert.strictEqual(error.reason, "timed_out")
      yield* eventually(Effect.map(echo.ask((client) => client.Interrupted()), (n) => n === 1))
      const asking = yield* Effect.fork(echo.ask((client) => client.Hang()))
      yield* Effect.sleep("20 millis")
      yield* Fiber.interrupt(asking)
      yield* eventually(Effect.map(echo.ask((client) => client.Interrupted()), (n) => n === 2))
      const middle = supervisor.ref(Middle)
      assert.strictEqual(yield* middle.ask((client) => client.AskHang({ deadlineMs: 30 })), "timed_out")
    }))

  scoped("move buffers instead of copying them, both ways", () =>
    Effect.gen(function*() {
      const echo = (yield* up).ref(Echo)
      const bytes = new Uint8Array(64 * 1024).fill(7)
      const back = yield* echo.ask((client) => client.Move({ bytes }))
      assert.strictEqual(bytes.byteLength, 0)
      assert.strictEqual(back.byteLength, 64 * 1024)
      assert.strictEqual(back[5], 7)
    }))

  scoped("carry one trace over two hops and into an inbox", () =>
    Effect.gen(function*() {
      const front = (yield* up).ref(Front)
      const { here, ids } = yield* Effect.gen(function*() {
        const here = yield* Effect.currentSpan
        return { here: here.traceId, ids: yield* front.ask((client) => client.Trace()) }
      }).pipe(Effect.withSpan("test"))
      assert.deepStrictEqual([...ids], [here, here, here, here])
    }))

  scoped("restart an actor that died alone, and leave its neighbours' state", () =>
    Effect.gen(function*() {
      const supervisor = yield* up
      const [echo, middle] = [supervisor.ref(Echo), supervisor.ref(Middle)]
      yield* echo.ask((client) => client.Bump())
      yield* middle.ask((client) => client.Bump())
      const hanging = yield* Effect.fork(Effect.flip(echo.ask((client) => client.Hang())))
      yield* Effect.sleep("20 millis")
      const error = yield* Effect.flip(echo.ask((client) => client.LoopDies()))
      assert.strictEqual(error.reason, "died")
      assert.strictEqual((yield* Fiber.join(hanging)).reason, "died")
      assert.strictEqual(yield* echo.ask((client) => client.Bump()), 1)
      assert.strictEqual(yield* middle.ask((client) => client.Bump()), 2)
      assert.strictEqual(yield* middle.ask((client) => client.AskEcho({ n: 3 })), 3) // rewired
      const status = (yield* supervisor.status).flatMap((thread) => thread.actors).find((it) => it.name === "echo")
      assert.include(status, { incarnation: 2, restarts: 1, state: "up" })
      assert.include(status?.lastError ?? "", "told to die")
    }))

  scoped(
    "survive the end of a thread during a call: that ask fails at once, the next succeeds",
    () =>
      Effect.gen(function*() {
        const supervisor = yield* up
        const [echo, middle] = [supervisor.ref(Echo), supervisor.ref(Middle)]
        yield* middle.ask((client) => client.Bump())
        const through = yield* Effect.fork(
          Effect.either(middle.ask((client) => client.AskHang({ deadlineMs: HANG_MS })))
        )
        const direct = yield* Effect.fork(Effect.flip(echo.ask((client) => client.Hang())))
        yield* Effect.sleep("50 millis")
        yield* kind.isThread
          ? Effect.flip(echo.ask((client) => client.CrashThread()))
          : supervisor.kill(kind.echoThread)
        assert.strictEqual((yield* Fiber.join(direct)).reason, "died")
        assert.strictEqual(yield* echo.ask((client) => client.Echo({ n: 5 })), 5)
        const relayed = yield* Fiber.join(through)
        // On the same thread middle died, too; elsewhere it lives, and was told.
        if (kind.shared) assert.strictEqual(relayed._tag, "Left")
        else assert.deepStrictEqual(relayed, yield* Effect.either(Effect.succeed("died")))
        const bumps = yield* middle.ask((client) => client.Bump())
        assert.strictEqual(bumps, kind.shared ? 1 : 2)
        assert.strictEqual(yield* middle.ask((client) => client.AskEcho({ n: 6 })), 6)
      })
  )

  scoped("re-subscribe at each new incarnation", () =>
    Effect.gen(function*() {
      const supervisor = yield* up
      const [echo, middle] = [supervisor.ref(Echo), supervisor.ref(Middle)]
      const seen = new Set<number>()
      const watching = (stream: Stream.Stream<{ readonly incarnation: number }, ActorUnavailable>) =>
        stream.pipe(
          Stream.tap(({ incarnation }) => Effect.sync(() => seen.add(incarnation))),
          Stream.takeUntil(({ incarnation }) => incarnation === 3),
          Stream.runDrain,
          Effect.fork
        )
      const direct = yield* watching(echo.subscribe((client) => client.Ticks()))
      const through = yield* watching(middle.subscribe((client) => client.Ticks()))
      const incarnations = yield* Effect.fork(echo.incarnations.pipe(Stream.take(2), Stream.runCollect))
      yield* eventually(Effect.sync(() => seen.has(1)))
      yield* Effect.flip(echo.ask((client) => client.LoopDies()))
      yield* eventually(Effect.sync(() => seen.has(2)))
      yield* supervisor.kill(kind.echoThread)
      yield* Fiber.join(direct)
      yield* Fiber.join(through)
      assert.deepStrictEqual([...seen], [1, 2, 3])
      assert.deepStrictEqual([...yield* Fiber.join(incarnations)], [1, 2])
    }))

  scoped(
    "give up after the limit, tell main and every caller, and leave the others running",
    () =>
      Effect.gen(function*() {
        const supervisor = yield* up
        const [echo, middle] = [supervisor.ref(Echo), supervisor.ref(Middle)]
        for (let death = 0; death <= 5; death++) yield* Effect.flip(echo.ask((client) => client.LoopDies()))
        const error = yield* Effect.flip(supervisor.awaitGiveUp)
        assert.strictEqual(error.what, "actor echo")
        assert.include(error.lastError, "told to die")
        assert.strictEqual((yield* Effect.flip(echo.ask((client) => client.Echo({ n: 1 })))).reason, "gave_up")
        yield* eventually(Effect.map(middle.ask((client) => client.AskEcho({ n: 1 })), (it) => it === "gave_up"))
        yield* middle.ask((client) => client.Bump())
      })
  )

  scoped(
    "never give up one that is optional once it has been up, however often it and its thread die",
    () =>
      Effect.gen(function*() {
        const supervisor = yield* start(kind, bundle.entry, newChannel(), {}, { optional: true })
        yield* supervisor.awaitUp
        const [echo, middle] = [supervisor.ref(Echo), supervisor.ref(Middle)]
        for (let death = 0; death <= 7; death++) {
          if (death % 2 === 0 && kind.isThread) yield* supervisor.kill(kind.echoThread)
          else yield* Effect.flip(echo.ask((client) => client.LoopDies()))
          yield* eventually(Effect.isSuccess(echo.ask((client) => client.Echo({ n: 1 }))))
        }
        yield* middle.ask((client) => client.Bump())
      })
  )

  scoped("stop callers before those they use", () =>
    Effect.gen(function*() {
      const channel = newChannel()
      const ready = Effect.flatMap(
        startUp(kind, bundle.entry, channel),
        // Its first call shows that middle has been connected with echo.
        (supervisor) => supervisor.ref(Middle).ask((client) => client.AskEcho({ n: 1 }))
      )
      yield* Effect.scoped(ready)
      assert.deepStrictEqual(told(channel), ["front", "middle answered", "echo"])
    }))
})
