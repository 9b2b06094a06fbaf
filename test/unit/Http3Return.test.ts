/** A node that relays by TCP although its relay has HTTP/3. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import * as Http3Return from "../../src/actors/relay/Http3Return.ts"
import type { LegKind } from "../../src/actors/relay/RelayRpcs.ts"

const setup = () => {
  const world = { bound: "relay-tcp" as LegKind | null, hasHttp3: true, works: false }
  const seen = { tries: 0, waits: new Array<number>() }
  const part = Http3Return.make({
    link: {
      get bound() {
        return world.bound
      }
    },
    hasHttp3: () => world.hasHttp3,
    replace: Effect.suspend(() => {
      seen.tries++
      return world.works ? Effect.void : Effect.fail({ message: "no answer" })
    }),
    fork: (effect) => effect,
    wake: (delay) => Effect.sync(() => void seen.waits.push(Duration.toSeconds(delay)))
  })
  return { part, seen, world }
}

describe("a link by TCP to a relay with HTTP/3", () => {
  it.effect("tries HTTP/3 again and again, ever less often", () =>
    Effect.gen(function*() {
      const { part, seen } = setup()
      yield* part.onOpened("relay-tcp")
      for (let time = 0; time < 8; time++) yield* part.onDue
      assert.deepStrictEqual(seen, { tries: 8, waits: [10, 20, 40, 80, 160, 320, 600, 600, 600] })
      yield* part.onNetworkChanged
      yield* part.onDue
      assert.deepStrictEqual(seen.waits.slice(-2), [10, 20])
    }))

  it.effect("ends its tries when one has worked", () =>
    Effect.gen(function*() {
      const { part, seen, world } = setup()
      yield* part.onOpened("relay-tcp")
      world.works = true
      yield* part.onDue
      world.bound = "relay-h3"
      yield* part.onOpened("relay-h3")
      yield* part.onNetworkChanged
      yield* part.onDue
      assert.deepStrictEqual(seen, { tries: 1, waits: [10] })
    }))

  it.effect("makes no tries while unbound or without HTTP/3", () =>
    Effect.gen(function*() {
      const { part, seen, world } = setup()
      world.hasHttp3 = false
      yield* part.onOpened("relay-tcp")
      yield* part.onDue
      world.hasHttp3 = true
      for (const kind of ["relay-udp", null] as const) {
        world.bound = kind
        yield* part.onDue
      }
      assert.deepStrictEqual(seen, { tries: 0, waits: [] })
    }))
})
