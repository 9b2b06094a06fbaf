/** The binding over UDP, when the firewall refuses and when a NAT changes the address. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { BindingLoop } from "../../src/actors/relay/BindingLoop.ts"
import * as UdpLeg from "../../src/actors/relay/UdpLeg.ts"

const HOME = { host: "198.51.100.7", port: 40_123 }
const OTHER = { ...HOME, port: 50_000 }

const setup = () => {
  const seen = { rebinds: 0, starts: 0 }
  const binding = {
    phase: "bound",
    start: () => Effect.sync(() => void seen.starts++),
    onNetworkChanged: () => Effect.sync(() => void seen.rebinds++)
  }
  return { binding, leg: UdpLeg.make(binding as unknown as BindingLoop), seen }
}

describe("the UDP leg", () => {
  it("notices another address only while this host stays", () => {
    const { leg } = setup()
    assert.isFalse(leg.isRemapped(HOME))
    assert.isFalse(leg.isRemapped({ ...HOME }))
    assert.isTrue(leg.isRemapped(OTHER))
    Effect.runSync(leg.onNetworkChanged(0))
    assert.isFalse(leg.isRemapped(HOME))
    Effect.runSync(leg.onMuxStarted(0))
    assert.isFalse(leg.isRemapped(OTHER))
    assert.isTrue(leg.isRemapped(HOME))
  })

  it.effect("binds again once after many refused datagrams", () =>
    Effect.gen(function*() {
      const { binding, leg, seen } = setup()
      for (const now of [0, 1, 4_999]) yield* leg.onForbidden(now)
      assert.strictEqual(seen.rebinds, 1)
      yield* leg.onForbidden(5_000)
      assert.strictEqual(seen.rebinds, 2)
      binding.phase = "udp_blocked"
      yield* leg.onForbidden(60_000)
      assert.strictEqual(seen.rebinds, 2)
    }))
})
