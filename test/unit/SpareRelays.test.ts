import { assert, describe, it } from "@effect/vitest"
import { Effect, Either } from "effect"
import * as SpareRelays from "../../src/actors/relay/SpareRelays.ts"
import * as RelayWire from "../../src/protocol/relay/RelayWire.ts"
import { NORMAL } from "../../src/protocol/trust/Lifetimes.ts"
import type { NodeKey } from "../../src/protocol/trust/NodeKey.ts"

const LIVES = 4
const POINT = { name: "second", addresses: ["192.0.2.2"], port: 3478 } as const
const KEY = "A".repeat(43) as NodeKey
const COOKIE = new Uint8Array(20).fill(0xcc)
const MARK = new Uint8Array(8).fill(0xaa)
/** A credential that says when it was issued, in ms. */
const credential = (issuedAt: number) => ({
  payload: new Uint8Array(new Float64Array([issuedAt]).buffer),
  signature: new Uint8Array(64)
})

/** A node's other relays in virtual time, and one such relay, which ends what has expired. Times in ms. */
const setup = () => {
  const world = { now: 1_000_000, answering: true }
  const seen = { told: new Array<boolean>(), binds: 0, pings: 0 }
  /** What the relay knows of this node. */
  let held = { heardAt: -Infinity, endsAt: -Infinity }
  let answers: Array<RelayWire.Message> = []
  const onAsked = (asked: RelayWire.Message) => {
    if (!world.answering) return
    if (asked._tag === "BindRequest") answers.push({ _tag: "Cookie", nonce: asked.nonce, cookie: COOKIE })
    if (asked._tag === "Ping") {
      seen.pings++
      if (!isBound()) return
      held.heardAt = world.now
      answers.push({ _tag: "Pong", echo: asked.echo })
    }
    if (asked._tag === "Bind") {
      const [issuedAt = 0] = new Float64Array(Uint8Array.from(asked.credential.payload).buffer)
      const endsAt = issuedAt + NORMAL.credential * 1000
      if (endsAt <= world.now) return
      seen.binds++
      held = { heardAt: world.now, endsAt }
      const mapped = { host: "198.51.100.7", port: 40_123 }
      answers.push({ _tag: "Bound", nonce: asked.nonce, mark: MARK, lifetimeSeconds: NORMAL.binding, mapped })
    }
  }
  const isBound = () => world.now < held.endsAt && world.now - held.heardAt < NORMAL.binding * 1000
  const mux = {
    SendControl: ({ bytes }: { bytes: Uint8Array }) =>
      Effect.sync(() => onAsked(Either.getOrThrow(RelayWire.decode(bytes)))),
    UseRelay: ({ bound }: { bound: boolean }) => Effect.sync(() => void seen.told.push(bound))
  }
  const spares = SpareRelays.make({
    identity: { key: KEY, sign: () => new Uint8Array(64) },
    mux: { ask: (call: (it: typeof mux) => Effect.Effect<unknown>) => call(mux) } as never,
    tickets: new Map()
  })
  const renew = Effect.suspend(() => spares.onCredential(credential(world.now), world.now))
  const pass = Effect.fnUntraced(function*(seconds: number) {
    const until = world.now + seconds * 1000
    for (;;) {
      for (const message of answers.splice(0)) {
        yield* spares.onMessage({ host: POINT.addresses[0], port: POINT.port }, message, world.now)
      }
      if (answers.length > 0) continue
      if (spares.wakeAt > until) break
      world.now = Math.max(world.now, spares.wakeAt)
      yield* spares.onTick(world.now)
    }
    world.now = until
  })
  return { isBound, pass, renew, seen, spares, world }
}

describe("the bindings at other relays", () => {
  it.effect("last, life after life of binding and credential", () =>
    Effect.gen(function*() {
      const { isBound, pass, renew, seen, spares, world } = setup()
      yield* spares.onWaysOut(25_000, [4], world.now)
      yield* renew
      yield* spares.onList([POINT], world.now)
      yield* pass(5)
      assert.isTrue(isBound())
      const before = seen.told.length
      for (let second = 0; second < LIVES * NORMAL.credential; second += NORMAL.credentialRefresh) {
        const { pings } = seen
        yield* pass(NORMAL.credentialRefresh)
        assert.isAbove(seen.pings, pings, `after ${second} s`)
        assert.isTrue(isBound(), `after ${second} s`)
        yield* renew
        yield* pass(5)
      }
      assert.notInclude(seen.told.slice(before), false)
      assert.isAtLeast(seen.binds, LIVES)
    }))

  it.effect("are made again each time that the relay was away", () =>
    Effect.gen(function*() {
      const { isBound, pass, renew, seen, spares, world } = setup()
      yield* spares.onWaysOut(25_000, [4], world.now)
      yield* renew
      yield* spares.onList([POINT], world.now)
      yield* pass(5)
      for (let time = 1; time <= LIVES; time++) {
        world.answering = false
        yield* pass(NORMAL.binding)
        assert.isFalse(isBound(), `time ${time}`)
        assert.isFalse(seen.told.at(-1))
        world.answering = true
        yield* renew
        yield* pass(60)
        assert.isTrue(isBound(), `time ${time}`)
        assert.isTrue(seen.told.at(-1))
      }
    }))
})
