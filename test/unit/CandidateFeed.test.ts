/** When this host's candidates are published. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Fiber, Stream } from "effect"
import * as CandidateFeed from "../../src/actors/stun/CandidateFeed.ts"
import type { Answer } from "../../src/actors/stun/StunQuestions.ts"

const SERVER = { host: "192.0.2.1", port: 3478 }
const MAPPED = { host: "198.51.100.7", port: 40_123 }

describe("the candidates of this host", () => {
  it.effect("are published when complete, and once for each change", () =>
    Effect.gen(function*() {
      const { changes, gathering, now, onLifetime, publish } = yield* CandidateFeed.make({ advertise: [], port: 0 })
      yield* publish
      assert.isNull(yield* now)
      const reading = yield* Effect.fork(Stream.runCollect(Stream.take(changes, 3)))
      yield* Effect.yieldNow()
      gathering.onHosts([{ host: "10.0.0.2" } as never])
      gathering.onPorts({ v4: 5_000 })
      gathering.onServers([SERVER], SERVER.host)
      gathering.onMapped(SERVER, MAPPED)
      yield* publish
      yield* publish
      yield* Effect.yieldNow()
      const lifetime = { seconds: 60 } as never
      yield* onLifetime(lifetime)
      yield* onLifetime(lifetime)
      yield* Effect.yieldNow()
      yield* onLifetime(null)
      const [first, second, third] = yield* Fiber.join(reading)
      assert.include(first?.candidates.map(({ address }) => address.host) ?? [], MAPPED.host)
      assert.strictEqual(second?.lifetime, lifetime)
      assert.isUndefined(third?.lifetime)
    }))

  it.effect("follow the answers of the servers", () =>
    Effect.gen(function*() {
      const { gathering, now, onAnswer } = yield* CandidateFeed.make({ advertise: [], port: 0 })
      const answered = Effect.fnUntraced(function*(answer: Answer) {
        yield* onAnswer({ server: SERVER, reply: null, of: null }, answer)
        return yield* now
      })
      gathering.onHosts([{ host: "10.0.0.2" } as never])
      gathering.onPorts({ v4: 5_000 })
      gathering.onServers([SERVER], SERVER.host)
      const mapped = yield* answered(Either.right({ mapped: MAPPED, rttMs: 1 }))
      assert.deepStrictEqual(mapped?.candidates.map(({ address }) => address.host), [MAPPED.host])
      assert.strictEqual((yield* answered(Either.left({} as never)))?.udp, "blocked")
    }))
})
