import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Either, Fiber, TestClock } from "effect"
import * as SessionDials from "../../src/actors/mux/sessions/SessionDials.ts"
import { DialRefused } from "../../src/actors/signaling/RelaySignalingRpcs.ts"
import type { FlowSession } from "../../src/transport/plane/FlowSession.ts"

const PERIODS = 4
const target = { kind: "tcp", host: "wiki", port: 443 } as const

/** A session whose connector has owed an answer for so long, in ms. */
const sessionOf = (silentMs: number) => {
  const peer = { silentMs, up: true }
  return { peer, session: { peer } as unknown as FlowSession }
}

/** The dials of a client whose only other connector is the test's to offer. */
const setup = Effect.gen(function*() {
  const other = sessionOf(0)
  const relay = { dials: 0, hasOther: false }
  const up = yield* Deferred.make<FlowSession>()
  yield* Deferred.succeed(up, other.session)
  const signaling = {
    ask: () =>
      Effect.suspend(() => {
        relay.dials++
        return relay.hasOther
          ? Effect.succeed({ connectorKey: "other" })
          : Effect.fail(new DialRefused({ code: "no_connector", message: "no other connector" }))
      })
  }
  const dials = SessionDials.make({
    held: {
      reaching: () => undefined,
      silentPeers: () => ["silent"],
      withPeer: () => undefined,
      isFull: false
    } as never,
    signaling: signaling as never,
    timeKnown: Effect.void,
    documents: { open: () => Either.right({}) } as never,
    begin: () => Effect.succeed({ up } as never)
  })
  return { dials, other, relay }
})

describe("a flow that waits for a silent connector", () => {
  it.scoped("seeks another one until there is one", () =>
    Effect.gen(function*() {
      const { dials, other, relay } = yield* setup
      const { session } = sessionOf(60_000)
      const waiting = yield* Effect.fork(dials.elsewhere(session, target))
      yield* TestClock.adjust("50 millis")
      for (let period = 1; period <= PERIODS; period++) {
        assert.strictEqual(relay.dials, period)
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(relay.dials, period, "2 s and a look must pass")
        relay.hasOther = period === PERIODS
        yield* TestClock.adjust("50 millis")
      }
      assert.strictEqual(yield* Fiber.join(waiting), other.session)
      assert.strictEqual(relay.dials, PERIODS + 1)
    }))

  it.scoped("asks nobody while its connector answers", () =>
    Effect.gen(function*() {
      const { dials, other, relay } = yield* setup
      const { peer, session } = sessionOf(0)
      const waiting = yield* Effect.fork(dials.elsewhere(session, target))
      for (let period = 1; period <= PERIODS; period++) {
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual([relay.dials, waiting.unsafePoll()], [0, null], `period ${period}`)
      }
      relay.hasOther = true
      peer.silentMs = 60_000
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(waiting), other.session)
    }))
})
