/** The ports of the data plane's sockets, and the mapping at the gateway that follows them. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { ActorUnavailable } from "../../src/actors/runtime/actor/ActorRef.ts"
import * as SocketPorts from "../../src/actors/stun/SocketPorts.ts"

const setup = (isMapped = true) => {
  const world = { isUp: true, isFree: false }
  const seen = {
    followed: new Array<number | null>(),
    read: new Array<unknown>(),
    taken: 0,
    retries: new Array<number>()
  }
  const whenUp = <A>(value: () => A) =>
    Effect.suspend(() =>
      world.isUp
        ? Effect.sync(value)
        : Effect.fail(new ActorUnavailable({ actor: "streamMux", reason: "died" }))
    )
  const ports = SocketPorts.make({
    sockets: { localPorts: whenUp(() => ({ v4: 5_000, missed: [1] })), takeConfigured: whenUp(() => world.isFree) },
    follow: (port) => Effect.sync(() => void seen.followed.push(port)),
    isMapped,
    fork: (effect) => effect,
    onRead: (read, missed) => Effect.sync(() => void seen.read.push([read, missed])),
    onTaken: Effect.sync(() => void seen.taken++),
    retryAfter: (delay) => Effect.sync(() => void seen.retries.push(Duration.toSeconds(delay)))
  })
  return { ports, seen, world }
}

describe("the ports of the sockets", () => {
  it.effect("are mapped while that is wanted", () =>
    Effect.gen(function*() {
      const { ports, seen } = setup(false)
      yield* ports.onPorts({ v4: 5_000 }, false)
      yield* ports.onWanted(true)
      yield* ports.onPorts({ v6: 5_001 }, false)
      yield* ports.onWanted(false)
      assert.deepStrictEqual(seen.followed, [null, 5_000, null, null])
      assert.deepStrictEqual(seen.retries, [])
    }))

  it.effect("are tried again until the configured one is free", () =>
    Effect.gen(function*() {
      const { ports, seen, world } = setup()
      yield* ports.onPorts({ v4: 5_000 }, true)
      assert.deepStrictEqual(seen.retries, [30])
      yield* ports.retry
      assert.deepStrictEqual([seen.taken, seen.read], [0, [[{ v4: 5_000 }, true]]])
      world.isFree = true
      yield* ports.retry
      assert.deepStrictEqual([seen.taken, seen.read.length], [1, 1])
    }))

  it.effect("are not known while the data plane is down", () =>
    Effect.gen(function*() {
      const { ports, seen, world } = setup()
      world.isUp = false
      yield* ports.read
      yield* ports.retry
      assert.deepStrictEqual([seen.read, seen.taken], [[], 0])
    }))
})
