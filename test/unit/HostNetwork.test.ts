/** What a change of this host's network means. */
import { assert, describe, it } from "vitest"
import * as HostNetwork from "../../src/actors/stun/HostNetwork.ts"
import * as InterfaceUse from "../../src/protocol/candidate/InterfaceUse.ts"
import type * as NetworkWatch from "../../src/services/network/NetworkWatch.ts"

const ETH0: NetworkWatch.InterfaceAddress = {
  name: "eth0",
  host: "10.0.0.2",
  family: 4,
  loopback: false,
  hasMac: true,
  isTun: false,
  isInnerBridge: false
}
const BRIDGE: NetworkWatch.InterfaceAddress = { ...ETH0, name: "docker0", host: "172.17.0.1", isInnerBridge: true }
const at = (...addresses: ReadonlyArray<NetworkWatch.InterfaceAddress>): NetworkWatch.NetworkState => ({
  addresses,
  outward: { v4: addresses.find(({ isInnerBridge }) => !isInnerBridge)?.host ?? null, v6: null },
  wakes: 0
})

describe("this host's network", () => {
  it("has a first state, and changes that need new sockets", () => {
    const network = HostNetwork.make(InterfaceUse.NO_RULES)
    assert.deepStrictEqual(network.addresses, [])
    assert.strictEqual(network.onState(at(ETH0))._tag, "First")
    const step = network.onState(at({ ...ETH0, host: "10.9.0.2" }))
    assert.deepInclude(step, { _tag: "Changed", stale: [4], lost: [4] })
    assert.deepStrictEqual(network.addresses, ["10.9.0.2"])
  })

  it("is not changed by addresses within this machine", () => {
    const network = HostNetwork.make(InterfaceUse.NO_RULES)
    network.onState(at(ETH0))
    assert.strictEqual(network.onState(at(ETH0, BRIDGE))._tag, "Inner")
  })

  it("needs no new sockets after a data plane has started", () => {
    const network = HostNetwork.make(InterfaceUse.NO_RULES)
    network.onState(at(ETH0))
    network.onState(at())
    network.onMuxStarted()
    assert.deepInclude(network.onState(at({ ...ETH0, host: "10.9.0.2" })), { _tag: "Changed", stale: [] })
  })

  it("reports another source address towards the servers once", () => {
    const network = HostNetwork.make(InterfaceUse.NO_RULES)
    assert.isNull(network.onTowards([ETH0.host]))
    network.onState(at(ETH0))
    assert.isNotNull(network.onTowards([ETH0.host]))
    assert.isNull(network.onTowards([ETH0.host]))
  })
})
