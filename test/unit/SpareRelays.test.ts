import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as SpareRelays from "../../src/actors/relay/SpareRelays.ts"
import { NORMAL } from "../../src/protocol/trust/Lifetimes.ts"
import * as VirtualRelay from "./support/VirtualRelay.ts"

const POINT = { name: "second", addresses: ["192.0.2.2"], port: 3478 } as const

/** A node's other relays in virtual time. One of them is listed, and bound. */
const start = Effect.gen(function*() {
  const all = VirtualRelay.setup(SpareRelays.make)
  const { driven: spares, isBound, pass, renew, world } = all
  yield* spares.onWaysOut({ keepaliveMs: 25_000, families: [4] }, world.now)
  yield* renew
  yield* spares.onList([POINT], world.now)
  yield* pass(5)
  assert.isTrue(isBound())
  return all
})

describe("the bindings at other relays", () => {
  it.effect("last, life after life of binding and credential", () =>
    Effect.gen(function*() {
      const { isBound, passLives, seen } = yield* start
      const before = seen.told.length
      let { pings } = seen
      yield* passLives((what) => {
        assert.isAbove(seen.pings, pings, what)
        assert.isTrue(isBound(), what)
        pings = seen.pings
      })
      assert.notInclude(seen.told.slice(before), false)
      assert.isAtLeast(seen.binds, VirtualRelay.LIVES)
    }))

  it.effect("are made again each time that the relay was away", () =>
    Effect.gen(function*() {
      const { isBound, pass, renew, seen, world } = yield* start
      for (let time = 1; time <= VirtualRelay.LIVES; time++) {
        world.answers = () => false
        yield* pass(NORMAL.binding)
        assert.isFalse(isBound(), `time ${time}`)
        assert.isFalse(seen.told.at(-1))
        world.answers = () => true
        yield* renew
        yield* pass(60)
        assert.isTrue(isBound(), `time ${time}`)
        assert.isTrue(seen.told.at(-1))
      }
    }))
})
