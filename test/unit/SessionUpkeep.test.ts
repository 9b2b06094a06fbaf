/** The check of a node's sessions once a second: which ends, and why. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { type Held, HeldSessions } from "../../src/actors/mux/sessions/HeldSessions.ts"
import * as SessionUpkeep from "../../src/actors/mux/sessions/SessionUpkeep.ts"
import * as PeerLoss from "../../src/protocol/path/PeerLoss.ts"
import { LIFETIMES } from "../../src/protocol/trust/Lifetimes.ts"

const IDLE_MS = LIFETIMES.idleSession * 1000

/** A connector with one session, whose state the test changes. */
const setup = () => {
  const held = new HeldSessions()
  const state = { flows: 1, isReached: true, lastFlowAt: 0, now: 0, silentMs: 0, standing: null as string | null }
  const seen = { closed: new Array<string>(), dials: 0, renewals: 0, ticks: 0 }
  const session = {
    get flows() {
      return state.flows
    },
    get lastFlowAt() {
      return state.lastFlowAt
    },
    standing: () => state.standing,
    close: (_: number, why: string) => void seen.closed.push(why),
    peer: {
      peerKey: "a",
      get silentMs() {
        return state.silentMs
      },
      tick: () => void seen.ticks++
    }
  }
  const target = { kind: "tcp", host: "web", port: 80 }
  held.add("s", { session, target, upAt: 0, redialAt: 0, loss: PeerLoss.start } as unknown as Held)
  const tick = SessionUpkeep.make({
    held,
    node: { role: "connector", now: () => state.now } as never,
    feed: { onActivity: () => undefined },
    renewal: { onTick: () => void seen.renewals++ },
    signaling: {} as never,
    isReached: () => state.isReached,
    dial: () => Effect.sync(() => void seen.dials++),
    fork: (effect) => Effect.runSync(effect)
  })
  return { held, seen, state, tick }
}

describe("the upkeep of sessions", () => {
  it.effect("renews a session that is used and permitted", () =>
    Effect.gen(function*() {
      const { seen, tick } = setup()
      yield* tick
      assert.deepStrictEqual(seen, { closed: [], dials: 0, renewals: 1, ticks: 1 })
    }))

  it.effect("ends what is not permitted, and says why", () =>
    Effect.gen(function*() {
      const { seen, state, tick } = setup()
      state.standing = "grant_expired"
      yield* tick
      state.isReached = false
      yield* tick
      const expired = "the grant has expired"
      assert.deepStrictEqual(seen.closed, [expired, `${expired}, and the relay cannot be reached`])
    }))

  it.effect("ends what is idle and has no flow", () =>
    Effect.gen(function*() {
      const { seen, state, tick } = setup()
      state.now = IDLE_MS + 1
      yield* tick
      assert.deepStrictEqual(seen.closed, [])
      state.flows = 0
      state.lastFlowAt = 1
      yield* tick
      assert.deepStrictEqual(seen.closed, [])
      state.now++
      yield* tick
      assert.deepStrictEqual(seen.closed, ["idle"])
    }))

  it.effect("dials every 10 s while flows wait for silence", () =>
    Effect.gen(function*() {
      const { seen, state, tick } = setup()
      state.silentMs = 3000
      for (let second = 0; second <= 10; second++) {
        state.now = second * 1000
        yield* tick
      }
      assert.deepStrictEqual([seen.dials, seen.closed.length], [2, 0])
    }))
})
