/** Which carrier the leg uses, and who hears of it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, TestClock } from "effect"
import * as LegChoice from "../../src/actors/relay/LegChoice.ts"
import type { LegKind } from "../../src/actors/relay/RelayRpcs.ts"

const RELAY = { host: "192.0.2.1", port: 3478 }
const UNANSWERED: LegChoice.Why = { cause: "udp_unanswered", reason: "UDP to the relay gets no answer" }

const setup = Effect.gen(function*() {
  const seen = { legs: new Array<string>(), answers: 0 }
  const carriers: {
    udp: { -readonly [K in keyof LegChoice.Carriers["udp"]]: LegChoice.Carriers["udp"][K] }
    link: { bound: LegKind | null }
  } = {
    udp: { phase: "udp_blocked", address: RELAY, mapped: null },
    link: { bound: null }
  }
  const leg = yield* LegChoice.make({
    carriers,
    useLeg: (choice) => Effect.sync(() => void seen.legs.push(choice?.kind ?? "none")),
    relayAnswers: Effect.sync(() => void seen.answers++)
  })
  return { carriers, leg, seen }
})

describe("the leg", () => {
  it.effect("is the link until UDP is bound, then UDP", () =>
    Effect.gen(function*() {
      const { carriers, leg, seen } = yield* setup
      const waiting = yield* Effect.fork(leg.awaitBound)
      carriers.link.bound = "relay-tcp"
      yield* leg.settle(UNANSWERED, true)
      yield* Fiber.join(waiting)
      assert.deepStrictEqual(yield* leg.state, { kind: "relay-tcp", relay: RELAY, mapped: null, ...UNANSWERED })
      carriers.udp.phase = "bound"
      yield* leg.settle(LegChoice.WORKS, true)
      assert.strictEqual((yield* leg.state).kind, "relay-udp")
      assert.deepStrictEqual(seen, { legs: ["link", "relay-udp"], answers: 2 })
    }))

  it.effect("is repeated to the data plane only when bound again", () =>
    Effect.gen(function*() {
      const { carriers, leg, seen } = yield* setup
      carriers.udp.phase = "bound"
      yield* leg.settle(LegChoice.WORKS, true)
      yield* leg.settle(LegChoice.WORKS)
      assert.deepStrictEqual(seen, { legs: ["relay-udp"], answers: 1 })
      yield* leg.settle(LegChoice.WORKS, true)
      assert.deepStrictEqual(seen, { legs: ["relay-udp", "relay-udp"], answers: 2 })
    }))

  it.effect("knows since when there is none", () =>
    Effect.gen(function*() {
      const { carriers, leg, seen } = yield* setup
      assert.strictEqual(leg.lostAt, -Infinity)
      carriers.udp.phase = "bound"
      yield* leg.settle(LegChoice.WORKS, true)
      yield* TestClock.adjust("7 seconds")
      carriers.udp.phase = "udp_blocked"
      yield* leg.settle(UNANSWERED)
      assert.strictEqual(leg.lostAt, 7_000)
      yield* TestClock.adjust("7 seconds")
      yield* leg.settle(UNANSWERED)
      assert.strictEqual(leg.lostAt, 7_000)
      assert.deepStrictEqual(seen.legs, ["relay-udp", "none"])
    }))

  it.effect("is none after a new data plane has started", () =>
    Effect.gen(function*() {
      const { carriers, leg } = yield* setup
      carriers.udp.phase = "bound"
      yield* leg.settle(LegChoice.WORKS, true)
      yield* leg.onMuxStarted
      const { cause, kind, relay } = yield* leg.state
      assert.deepStrictEqual([kind, relay, cause], [null, null, "waiting"])
    }))
})
