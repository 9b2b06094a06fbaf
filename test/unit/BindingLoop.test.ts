/** The binding at one relay, in virtual time. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as BindingLoop from "../../src/actors/relay/BindingLoop.ts"
import * as VirtualRelay from "./support/VirtualRelay.ts"

const HOSTS = ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
const PORT = 3478

/** A node's binding at its home relay, and what it reported. */
const start = Effect.gen(function*() {
  const told: Array<string> = []
  const tell = (what: string) => Effect.sync(() => void told.push(what))
  const all = VirtualRelay.setup((node) => {
    const binding = BindingLoop.make({
      node,
      carrier: "udp",
      relay: null,
      place: { hosts: HOSTS, port: PORT },
      ways: { keepaliveMs: 25_000, families: [4] },
      onBound: (mapped) => tell(`bound as ${mapped?.host}`),
      onLost: (reason) => tell(`lost: ${reason}`),
      onBlocked: (_, host, again) => tell(`blocked at ${host}${again ? " again" : ""}`),
      onForbidden: Effect.void,
      onMoved: tell("moved")
    })
    const { onCredential, onTick } = binding
    return {
      binding,
      onCredential,
      onTick,
      onMessage: (_: unknown, ...args: Parameters<typeof binding.onMessage>) => binding.onMessage(...args),
      get wakeAt() {
        return binding.wakeAt
      }
    }
  })
  const { driven: { binding }, pass, renew, world } = all
  yield* binding.start(world.now)
  yield* renew
  yield* pass(5)
  assert.deepStrictEqual(told.splice(0), ["bound as 198.51.100.7"])
  return { ...all, binding, told }
})

describe("a binding", () => {
  it.effect("lasts, life after life of binding and credential", () =>
    Effect.gen(function*() {
      const { isBound, passLives, seen, told } = yield* start
      yield* passLives((what) => assert.isTrue(isBound(), what))
      assert.isAtLeast(seen.binds, VirtualRelay.LIVES)
      assert.deepStrictEqual(told, [])
    }))

  it.effect("moves on each time that an address is silent", () =>
    Effect.gen(function*() {
      const { binding, pass, renew, told, world } = yield* start
      for (let time = 1; time <= VirtualRelay.LIVES; time++) {
        yield* renew
        const silent = binding.address?.host
        world.answers = ({ host }) => host !== silent
        yield* pass(180)
        assert.strictEqual(binding.phase, "bound", `time ${time}`)
        assert.notStrictEqual(binding.address?.host, silent)
        const lost = ["lost: unanswered", `blocked at ${silent}`, "bound as 198.51.100.7"]
        assert.deepStrictEqual(told.splice(0), lost, `time ${time}`)
      }
    }))

  it.effect("moves with this host between IPv4 and IPv6", () =>
    Effect.gen(function*() {
      const { binding, pass, seen, told, world } = yield* start
      for (let time = 1; time <= VirtualRelay.LIVES; time++) {
        const version = time % 2 === 1 ? 6 : 4
        yield* binding.onWaysOut({ keepaliveMs: 25_000, families: [version] }, world.now)
        yield* pass(5)
        const host = version === 6 ? HOSTS[2] : HOSTS[0]
        assert.deepStrictEqual([binding.address?.host, seen.sentTo.at(-1)], [host, host])
        assert.deepStrictEqual(told.splice(0), ["moved", "bound as 198.51.100.7"], `time ${time}`)
      }
    }))

  it.effect("is made again by each new data plane", () =>
    Effect.gen(function*() {
      const { binding, pass, seen, told, world } = yield* start
      for (let time = 1; time <= VirtualRelay.LIVES; time++) {
        const { binds } = seen
        yield* binding.start(world.now)
        assert.strictEqual(binding.phase, "binding")
        yield* pass(5)
        assert.deepStrictEqual([seen.binds, binding.phase], [binds + 1, "bound"], `time ${time}`)
        assert.deepStrictEqual(told.splice(0), ["bound as 198.51.100.7"])
      }
    }))
})
