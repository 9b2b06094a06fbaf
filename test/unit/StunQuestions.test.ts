/** STUN requests in progress: which answers count, and when a request is repeated. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Either, TestClock } from "effect"
import * as StunQuestions from "../../src/actors/stun/StunQuestions.ts"
import type { Mapped, StunTimeout, StunUnavailable } from "../../src/actors/stun/StunRpcs.ts"
import * as Stun from "../../src/protocol/nat/Stun.ts"

const SERVER = { host: "192.0.2.1", port: 3478 }
const MAPPED = { host: "198.51.100.7", port: 40_123 }
const OWN: StunQuestions.Question = { server: SERVER, reply: null, of: null }

const setup = () => {
  let made = 0
  const seen = {
    sent: new Array<Uint8Array>(),
    timers: new Map<string, number>(),
    own: new Array<StunQuestions.Answer>()
  }
  const questions = StunQuestions.make({
    send: (_, txId) => Effect.sync(() => void seen.sent.push(txId)),
    randomBytes: (count) => Effect.sync(() => new Uint8Array(count).fill(++made)),
    setTimer: (id, delayMs) => Effect.sync(() => void seen.timers.set(id, delayMs)),
    clearTimer: (id) => Effect.sync(() => void seen.timers.delete(id)),
    onOwn: (_, answer) => Effect.sync(() => void seen.own.push(answer))
  })
  const answer = (txId: Uint8Array, from = SERVER) =>
    questions.onDatagram({ from, bytes: Stun.encodeSuccess({ txId, mapped: MAPPED }) })
  return { answer, questions, seen }
}

describe("a STUN request", () => {
  it.effect("is answered only by its server, and only once", () =>
    Effect.gen(function*() {
      const { answer, questions, seen } = setup()
      yield* questions.ask(OWN)
      const [txId] = seen.sent
      yield* TestClock.adjust("30 millis")
      assert.isNull(yield* answer(txId!, { ...SERVER, port: 1 }))
      assert.isNull(yield* answer(txId!, { ...SERVER, host: "192.0.2.2" }))
      assert.isNull(yield* answer(new Uint8Array(Stun.TX_ID_BYTES).fill(99)))
      assert.deepStrictEqual(seen.own, [])
      assert.deepStrictEqual((yield* answer(txId!))?.server, SERVER)
      assert.deepStrictEqual(seen.own, [Either.right({ mapped: MAPPED, rttMs: 30 })])
      assert.isNull(yield* answer(txId!))
      assert.strictEqual(seen.timers.size, 0)
    }))

  it.effect("is repeated until it has failed", () =>
    Effect.gen(function*() {
      const { questions, seen } = setup()
      yield* questions.ask(OWN)
      while (seen.own.length === 0) {
        const [[id, delayMs]] = [...seen.timers] as [[string, number]]
        yield* TestClock.adjust(delayMs)
        yield* questions.onRetry(id)
      }
      assert.isAbove(seen.sent.length, 1)
      assert.strictEqual(Either.getOrThrow(Either.flip(seen.own[0]!))._tag, "StunTimeout")
    }))

  it.effect("of a caller is not dropped by a new round", () =>
    Effect.gen(function*() {
      const { answer, questions, seen } = setup()
      const reply = yield* Deferred.make<Mapped, StunTimeout | StunUnavailable>()
      yield* questions.ask({ ...OWN, reply })
      yield* questions.ask(OWN)
      yield* questions.dropOwn
      const [asked, dropped] = seen.sent
      assert.isNull(yield* answer(dropped!))
      assert.isNull(yield* answer(asked!))
      assert.deepStrictEqual((yield* Deferred.await(reply)).mapped, MAPPED)
      assert.deepStrictEqual(seen.own, [])
    }))

  it.effect("is not sent without a socket, or to a name", () =>
    Effect.gen(function*() {
      const { questions, seen } = setup()
      for (const [host, sent] of [["stun.example.com", 0], ["2001:db8::1", 0], [SERVER.host, 1]] as const) {
        const reply = yield* Deferred.make<Mapped, StunTimeout | StunUnavailable>()
        yield* questions.discover({ ...SERVER, host }, reply, (literal) => !literal.includes(":"))
        assert.strictEqual(seen.sent.length, sent)
        if (sent === 0) assert.strictEqual((yield* Effect.flip(Deferred.await(reply)))._tag, "StunUnavailable")
      }
    }))

  it.effect("measures from its last repetition", () =>
    Effect.gen(function*() {
      const { answer, questions, seen } = setup()
      yield* questions.ask(OWN)
      const [[id, delayMs]] = [...seen.timers] as [[string, number]]
      yield* TestClock.adjust(delayMs)
      yield* questions.onRetry(id)
      yield* TestClock.adjust("40 millis")
      yield* answer(seen.sent[1]!)
      assert.deepStrictEqual(seen.own, [Either.right({ mapped: MAPPED, rttMs: 40 })])
    }))

  it.effect("is refused while too many are under way", () =>
    Effect.gen(function*() {
      const { questions, seen } = setup()
      for (let count = 0; count < 65; count++) yield* questions.ask(OWN)
      assert.strictEqual(seen.sent.length, 64)
      assert.strictEqual(Either.getOrThrow(Either.flip(seen.own[0]!))._tag, "StunUnavailable")
    }))
})
