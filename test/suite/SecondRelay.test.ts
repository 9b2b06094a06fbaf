/** What a second relay knows: the authority's public key. No state, no link, no word with the first one. */
import { afterEach, assert, describe, it } from "@effect/vitest"
import * as World from "./support/RelayWorld.ts"

const toClose: Array<{ close: () => void }> = []
afterEach(() => {
  for (const one of toClose.splice(0)) one.close()
})

const startRelay = async (name: string) => {
  const relay = await World.Relay.start({ name })
  toClose.push(relay.udp)
  return relay
}
const bound = async (relay: World.Relay, name: string, identity: World.Identity) => {
  const peer = await new World.Peer(relay.port, identity).open()
  toClose.push(peer)
  peer.relayName = name
  return peer.bind()
}

describe("two relays of one authority", () => {
  it("open a ticket at both relays, and survive the first", async () => {
    const [client, connector] = [World.newIdentity(), World.newIdentity()]
    const pair = World.ticket(client, connector)
    const legs = []
    for (const name of ["", "relay-2"]) {
      const relay = await startRelay(name)
      const from = await bound(relay, name, client)
      const to = await bound(relay, name, connector)
      await from.openSession(pair, pair.clientTag)
      await to.openSession(pair, pair.connectorTag)
      await World.until(() => from.seen("PeerLeg").length > 0)
      legs.push({ relay, from, to })
    }
    const [first, second] = legs
    first!.from.sendData(pair.clientTag, 300)
    await World.until(() => first!.to.received.length === 1)
    first!.relay.udp.close()
    toClose.splice(toClose.indexOf(first!.relay.udp), 1)
    second!.from.sendData(pair.clientTag, 300)
    await World.until(() => second!.to.received.length === 1)
    assert.strictEqual(second!.relay.server.stats.forwarded.packets, 1)
  })

  it("refuse what another authority signed, and what is over", async () => {
    const relay = await startRelay("relay-2")
    const client = World.newIdentity()
    const peer = await bound(relay, "relay-2", client)
    const rogue = World.newIdentity()
    for (const options of [{ by: rogue }, { seconds: -60 }]) {
      const pair = World.ticket(client, World.newIdentity(), options)
      peer.apply(peer.binding.onTicket(pair.session, pair.clientTag, pair.ticket, performance.now()))
    }
    await World.until(() => peer.seen("TicketRefused").length === 2)
    const reasons = peer.outputs.flatMap((one) => one._tag === "TicketRefused" ? [one.reason] : [])
    assert.deepStrictEqual(reasons.toSorted(), ["bad_ticket", "expired"])
    assert.strictEqual(relay.server.sessions, 0)
  })
})
