/** What DNS and UDP show about the home relay's addresses. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as HomeAddresses from "../../src/actors/relay/HomeAddresses.ts"

const PORT = 3478
const INFO = { host: "relay.test", httpsPort: 443, udpPort: PORT }
const FIRST = "192.0.2.1"
const MOVED = "192.0.2.2"

const setup = (remembered: ReadonlyArray<string>) => {
  const asked = new Array<string>()
  const home = HomeAddresses.make({
    remembered: () => Effect.succeed(remembered),
    lookUp: (host) => Effect.sync(() => void asked.push(host))
  })
  return { asked, home }
}

describe("the home relay's addresses", () => {
  it.effect("are the stored ones until DNS answers", () =>
    Effect.gen(function*() {
      const { home } = setup([FIRST])
      assert.isNull(home.servers)
      assert.isTrue(yield* home.onInfo(INFO))
      assert.deepStrictEqual(home.place, { hosts: [FIRST], port: PORT })
      assert.strictEqual(yield* home.onResolved(INFO.host, [MOVED], null), "changed")
      assert.deepStrictEqual(home.servers, { servers: [{ host: MOVED, port: PORT }], relayHost: MOVED })
      assert.isTrue(home.isFrom({ host: MOVED, port: PORT }))
      assert.isFalse(home.isFrom({ host: FIRST, port: PORT }))
      assert.isFalse(home.isFrom({ host: MOVED, port: PORT + 1 }))
    }))

  it.effect("begin with the one in use, whatever DNS says", () =>
    Effect.gen(function*() {
      const { home } = setup([FIRST])
      yield* home.onInfo(INFO)
      yield* home.onResolved(INFO.host, [MOVED], FIRST)
      assert.deepStrictEqual(home.place.hosts, [FIRST, MOVED])
    }))

  it.effect("are asked for once at a time, never for literals", () =>
    Effect.gen(function*() {
      const { asked, home } = setup([])
      yield* home.resolve
      yield* home.onInfo(INFO)
      yield* home.resolve
      yield* home.resolve
      assert.deepStrictEqual(asked, [INFO.host])
      yield* home.onResolved(INFO.host, null, null)
      yield* home.resolve
      assert.strictEqual(asked.length, 2)
      yield* home.onResolved(INFO.host, null, null)
      yield* home.onInfo({ ...INFO, host: FIRST })
      yield* home.resolve
      assert.strictEqual(asked.length, 2)
    }))

  it.effect("ignore an answer for a name that was replaced", () =>
    Effect.gen(function*() {
      const { asked, home } = setup([])
      yield* home.onInfo(INFO)
      yield* home.resolve
      yield* home.onInfo({ ...INFO, host: "other.test" })
      assert.strictEqual(yield* home.onResolved(INFO.host, [FIRST], null), "stale")
      assert.deepStrictEqual(home.place.hosts, [])
      assert.deepStrictEqual(asked, [INFO.host, "other.test"])
    }))

  it.effect("say why UDP does not work", () =>
    Effect.gen(function*() {
      const { home } = setup([])
      const cause = () => home.whyNotUdp().cause
      assert.strictEqual(cause(), "waiting")
      yield* home.onInfo({ ...INFO, udpPort: 0 })
      assert.strictEqual(cause(), "no_udp")
      yield* home.onInfo(INFO)
      assert.strictEqual(cause(), "name")
      yield* home.onResolved(INFO.host, [FIRST], null)
      assert.strictEqual(cause(), "udp_unanswered")
      home.onBlocked("too_small", FIRST)
      assert.strictEqual(cause(), "udp_too_small")
      home.onUdpBound()
      assert.strictEqual(cause(), "udp_unanswered")
      yield* home.onResolved(INFO.host, null, null)
      assert.strictEqual(cause(), "name")
      assert.match(home.whyNotUdp().reason, /at its last address/)
    }))
})
