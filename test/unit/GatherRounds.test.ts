/** When all STUN servers are asked again. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as GatherRounds from "../../src/actors/stun/GatherRounds.ts"

const SERVERS = [{ host: "192.0.2.1", port: 3478 }, { host: "192.0.2.2", port: 3478 }]

const setup = () => {
  const seen = {
    dropped: 0,
    asked: new Array<string>(),
    published: 0,
    told: [] as Array<unknown>,
    timer: null as number | null
  }
  const rounds = GatherRounds.make({
    questions: {
      ask: ({ server }) => Effect.sync(() => void seen.asked.push(server.host)),
      dropOwn: Effect.sync(() => void seen.dropped++)
    },
    feed: { gathering: { askable: SERVERS }, publish: Effect.sync(() => void seen.published++) },
    onServers: (servers) => Effect.sync(() => void seen.told.push(servers)),
    look: (servers) => Effect.sync(() => void seen.told.push(servers)),
    setTimer: (delayMs) => Effect.sync(() => void (seen.timer = delayMs)),
    clearTimer: Effect.sync(() => void (seen.timer = null))
  })
  return { rounds, seen }
}

describe("rounds of STUN questions", () => {
  it.effect("ask every server, and are not repeated while idle", () =>
    Effect.gen(function*() {
      const { rounds, seen } = setup()
      yield* rounds.gather
      const asked = SERVERS.map(({ host }) => host)
      const told = [SERVERS, SERVERS] // the search for lifetimes, and the look at the route to them
      assert.deepStrictEqual(seen, { asked, told, dropped: 1, published: 1, timer: null })
    }))

  it.effect("begin with the first session, and end with the last", () =>
    Effect.gen(function*() {
      const { rounds, seen } = setup()
      yield* rounds.onActive(1)
      yield* rounds.onActive(2)
      assert.strictEqual(seen.dropped, 1)
      assert.isAtLeast(seen.timer ?? 0, 20_000)
      assert.isBelow(seen.timer ?? 0, 26_000)
      yield* rounds.onActive(0)
      assert.isNull(seen.timer)
      yield* rounds.onActive(1)
      assert.strictEqual(seen.dropped, 2)
    }))
})
