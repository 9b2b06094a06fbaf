/** The loop that keeps a link to the relay open, in virtual time. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber, PubSub, Stream, TestClock } from "effect"
import * as Reconnect from "../../src/actors/signaling/Reconnect.ts"

const FIRST_MS = 100
const MAX_MS = 15_000
const TIMES = 3

/** One try of a link: it lasts for a time, and then ends or fails. Without `upMs` it was never up. */
type Try = { readonly upMs?: number; readonly error?: Error; readonly askedMs?: number }
const unreachable = new Error("unreachable")
const lasting: Try = { upMs: 21_000 }
const failing: Try = { error: unreachable }

/** Starts the loop with the tries to come. Keeps when each began, in ms, and what was told. */
const start = (tries: ReadonlyArray<Try>) =>
  Effect.gen(function*() {
    const began: Array<number> = []
    const told: Array<Reconnect.Down<Error>> = []
    const changes = yield* PubSub.sliding<void>(4)
    const answers = yield* PubSub.sliding<void>(1)
    const run = (onUp: Effect.Effect<void>) =>
      Effect.gen(function*() {
        const { askedMs, error, upMs } = tries[began.length] ?? {}
        if (began.push(yield* Clock.currentTimeMillis) > tries.length) return yield* Effect.never
        if (upMs !== undefined) yield* Effect.zipRight(onUp, Effect.sleep(upMs))
        return error === undefined ? { why: "it was over", delayMs: askedMs ?? null } : yield* Effect.fail(error)
      })
    const loop = yield* Effect.fork(Reconnect.keep({
      firstDelayMs: FIRST_MS,
      run,
      onDown: (down) => Effect.sync(() => void told.push(down)),
      cues: [
        { notices: Stream.fromPubSub(changes), delayMs: Effect.succeed(50), forgives: false },
        { notices: Stream.fromPubSub(answers), delayMs: Effect.succeed(70), forgives: true }
      ]
    }))
    const passUntil = (done: () => boolean) =>
      Effect.raceFirst(
        Effect.iterate(done(), {
          while: (isDone) => !isDone,
          body: () => Effect.map(TestClock.adjust("1 second"), done)
        }),
        Effect.zipRight(Fiber.join(loop), Effect.die("the loop ended"))
      )
    /** Lets all tries be made. Succeeds with the pauses between them, in ms. */
    const pauses = Effect.map(
      passUntil(() => began.length > tries.length),
      () => tries.map(({ upMs = 0 }, n) => began[n + 1]! - began[n]! - upMs)
    )
    return {
      began,
      told,
      loop,
      passUntil,
      pauses,
      changes: PubSub.publish(changes, undefined),
      answers: PubSub.publish(answers, undefined)
    }
  })

const assertBetween = (value: number | undefined, [low, high]: readonly [number, number], what?: string) => {
  assert.isAtLeast(value ?? NaN, low, what)
  assert.isAtMost(value ?? NaN, high, what)
}

describe("a link to the relay", () => {
  it.effect("is made again soon after each good one", () =>
    Effect.gen(function*() {
      const tries = Array.from({ length: TIMES }, () => lasting)
      const { pauses, told } = yield* start(tries)
      for (const pause of yield* pauses) assertBetween(pause, [FIRST_MS / 2, FIRST_MS])
      const expected = { problem: "it was over; connecting again", error: null, known: false }
      assert.deepStrictEqual(told, tries.map(() => expected))
    }))

  it.effect("waits twice as long after each failure", () =>
    Effect.gen(function*() {
      for (let time = 1; time <= TIMES; time++) {
        const tries = [...Array.from({ length: 9 }, () => failing), { upMs: 1 }, lasting]
        const { loop, pauses, told } = yield* start(tries)
        const waited = yield* pauses
        const limits = [200, 400, 800, 1600, 3200, 6400, 12_800, MAX_MS, MAX_MS, MAX_MS, FIRST_MS]
        for (const [n, high] of limits.entries()) assertBetween(waited[n], [high / 2, high], `failure ${n}`)
        assert.deepStrictEqual(told.map(({ known }) => known), limits.map((_, n) => n > 0 && n < 9))
        yield* Fiber.interrupt(loop)
      }
    }))

  it.effect("tells of a known problem again after a link worked", () =>
    Effect.gen(function*() {
      const lost = { upMs: 1, error: unreachable }
      const tries = [failing, failing, lost, lost, failing]
      const { pauses, told } = yield* start(tries)
      yield* pauses
      assert.deepStrictEqual(told.map(({ known }) => known), [false, true, false, false, true])
    }))

  it.effect("waits as long as the relay says", () =>
    Effect.gen(function*() {
      const tries = Array.from({ length: TIMES }, () => ({ ...lasting, askedMs: 4321 }))
      const { pauses } = yield* start(tries)
      assert.deepStrictEqual(yield* pauses, tries.map(() => 4321))
    }))

  it.effect("is tried at once each time that the network changed", () =>
    Effect.gen(function*() {
      const { began, changes, passUntil } = yield* start(Array.from({ length: 20 }, () => failing))
      yield* passUntil(() => began.length >= 10)
      for (let time = 1; time <= TIMES; time++) {
        const before = began.length
        yield* changes
        yield* TestClock.adjust("50 millis")
        assert.strictEqual(began.length, before + 1, `time ${time}`)
        // A change forgives nothing: without another one, the pause is as long as before.
        yield* TestClock.adjust(MAX_MS / 2 - 1)
        assert.strictEqual(began.length, before + 1, `time ${time}`)
      }
    }))

  it.effect("starts short again each time that the relay answers", () =>
    Effect.gen(function*() {
      const { answers, began, passUntil } = yield* start(Array.from({ length: 40 }, () => failing))
      for (let time = 1; time <= TIMES; time++) {
        yield* passUntil(() => began.length > 1 && began.at(-1)! - began.at(-2)! >= MAX_MS / 2)
        const before = began.length
        yield* answers
        yield* TestClock.adjust("70 millis")
        assert.strictEqual(began.length, before + 1, `time ${time}`)
        yield* TestClock.adjust("200 millis")
        assert.strictEqual(began.length, before + 2, `time ${time}`)
      }
    }))
})
