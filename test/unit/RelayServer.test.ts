import { afterEach, assert, describe, it } from "@effect/vitest"
import { Either, FastCheck as fc } from "effect"
import { Buffer } from "node:buffer"
import * as Frame from "../../src/protocol/bytes/Frame.ts"
import * as Stun from "../../src/protocol/nat/Stun.ts"
import * as RelayWire from "../../src/protocol/relay/RelayWire.ts"
import * as Crypto from "../../src/services/host/Crypto.ts"
import { type Output, RelayServer } from "../../src/transport/relay/RelayServer.ts"
import type { Link } from "../../src/transport/relay/RelayTable.ts"
import * as World from "../suite/support/RelayWorld.ts"
import { runs } from "../support/Runs.ts"

const toClose: Array<{ close: () => void }> = []
afterEach(() => {
  for (const one of toClose.splice(0)) one.close()
})
const startRelay = async (...args: Parameters<typeof World.Relay.start>) => {
  const relay = await World.Relay.start(...args)
  toClose.push(relay.udp)
  return relay
}
const peerOf = async (relay: World.Relay, identity?: World.Identity) => {
  const peer = await new World.Peer(relay.port, identity).open()
  toClose.push(peer)
  return peer
}
const connect = async (relay: World.Relay, offload = true) => {
  const all = await World.connect(relay, offload)
  toClose.push(all.client, all.connector)
  return all
}
const dataFrame = (tag: number, length: number) => {
  const bytes = new Uint8Array(length)
  Frame.writeRelayedHead(bytes, 0, length, tag)
  return bytes
}
const settle = () => new Promise((resolve) => setTimeout(resolve, 120))
const refusals = (peer: World.Peer) => peer.outputs.flatMap((one) => one._tag === "TicketRefused" ? [one.reason] : [])

/** A link that keeps what it was given. */
const fakeLink = (kind: Link["kind"] = "relay-tcp") => {
  const frames: Array<Uint8Array> = []
  const state = { buffered: 0 }
  const link: Link = { kind, send: (bytes) => frames.push(bytes), bufferedBytes: () => state.buffered }
  const messages = () =>
    frames.flatMap((frame) =>
      Either.isRight(RelayWire.decode(frame)) ? [Either.getOrThrow(RelayWire.decode(frame))] : []
    )
  return { link, frames, state, messages }
}

for (const offload of [true, false]) {
  describe(`RelayServer, offload ${offload}`, () => {
    it("passes frames and trains both ways between two bound nodes", async () => {
      const relay = await startRelay({}, offload)
      const { client, connector, pair } = await connect(relay, offload)
      client.sendData(pair.clientTag, 1448, 40, 0x41)
      connector.sendData(pair.connectorTag, 300, 1, 0x42)
      await World.until(() => connector.received.length === 40 && client.received.length === 1)
      for (const frame of connector.received) {
        assert.strictEqual(frame.length, 1448)
        assert.strictEqual(Frame.tagAt(frame, 0), pair.clientTag)
        assert.isTrue(frame.subarray(8).every((byte) => byte === 0x41))
      }
      assert.strictEqual(client.received[0]!.length, 300)
      assert.strictEqual(relay.server.stats.forwarded.bytes, 1448 * 40 + 300)
    })
  })
}

describe("RelayServer", () => {
  it("cuts a buffer of mixed frames by session", async () => {
    const relay = await startRelay()
    const { client, connector, pair } = await connect(relay)
    const third = await (await peerOf(relay)).bind()
    const other = World.ticket(client.identity, third.identity)
    await client.openSession(other, other.clientTag)
    await third.openSession(other, other.clientTag === 0 ? 0 : other.connectorTag)
    const frame = (tag: number, length: number) => {
      const bytes = Buffer.alloc(length, 0x40)
      Frame.writeRelayedHead(bytes, 0, length, tag)
      return bytes
    }
    const lengths: Record<string, Array<number>> = { connector: [], third: [] }
    connector.onData = (bytes) => lengths["connector"]!.push(bytes.length)
    third.onData = (bytes) => lengths["third"]!.push(bytes.length)
    client.sendRaw(
      Buffer.concat([
        frame(pair.clientTag, 100),
        frame(pair.clientTag, 100),
        frame(other.clientTag, 90),
        frame(pair.clientTag, 50)
      ])
    )
    await World.until(() => lengths["connector"]!.length === 3 && lengths["third"]!.length === 1)
    assert.deepStrictEqual(lengths, { connector: [100, 100, 50], third: [90] })
  })

  it("tells a node its address and its peer's presence", async () => {
    const relay = await startRelay()
    const { client, connector } = await connect(relay)
    assert.deepStrictEqual(client.binding.mapped, { host: "127.0.0.1", port: client.udp.address().port })
    const first = client.seen("Opened")[0]
    assert.isNull(first?._tag === "Opened" ? first.peerLeg : "none")
    assert.deepStrictEqual(client.seen("PeerLeg").map((one) => one._tag === "PeerLeg" ? one.peerLeg : null), [
      "relay-udp"
    ])
    relay.server.revoke(connector.identity.key)
    await World.until(() => client.seen("PeerLeg").length === 2)
    assert.include(client.seen("PeerLeg")[1], { peerLeg: null })
  })

  it("asks a node at a new port to bind again", async () => {
    const relay = await startRelay()
    const { client, connector, pair } = await connect(relay)
    await client.open() // another socket, another port
    client.sendData(pair.clientTag, 200)
    await World.until(() => client.binding.mapped?.port === client.udp.address().port)
    assert.strictEqual(connector.received.length, 0)
    client.sendData(pair.clientTag, 201)
    connector.sendData(pair.connectorTag, 202)
    await World.until(() => connector.received.length === 1 && client.received.length === 1)
    assert.strictEqual(connector.received[0]!.length, 201)
    assert.strictEqual(relay.server.nodes, 2)
  })

  it("asks nodes of unknown sessions to bind, as after restarts", async () => {
    const [before, after] = [await startRelay(), await startRelay()]
    const { client, connector, pair } = await connect(before)
    for (const peer of [client, connector]) peer.relayPort = after.port
    client.sendData(pair.clientTag, 200)
    connector.sendData(pair.connectorTag, 200)
    await World.until(() => after.server.sessions === 1 && after.server.nodes === 2)
    await World.until(() => client.seen("Opened").length === 2 && connector.seen("Opened").length === 2)
    client.sendData(pair.clientTag, 201)
    await World.until(() => connector.received.length === 1)
    assert.strictEqual(connector.received[0]!.length, 201)
  })

  it("asks an unbound sender at most four times a second", async () => {
    const relay = await startRelay()
    const stranger = await peerOf(relay)
    let notices = 0
    stranger.onControl = () => void notices++
    for (let sent = 0; sent < 20; sent++) stranger.sendData(0x123456789abc, 300)
    await World.until(() => relay.server.stats.drops.unknownTag === 20)
    await settle()
    assert.strictEqual(notices, 1)
  })

  it("sends no rebind notice for a shorter frame", async () => {
    const relay = await startRelay()
    const { client, pair } = await connect(relay)
    await client.open()
    client.sendData(pair.clientTag, 16)
    await World.until(() => relay.server.stats.drops.tooShort === 1)
    await settle()
    assert.strictEqual(client.seen("SendBind").length, 1)
  })

  it("drops a bound session's frames from anybody else", async () => {
    const relay = await startRelay()
    const { client, connector, pair } = await connect(relay)
    const stranger = await peerOf(relay)
    const bound = await (await peerOf(relay)).bind()
    stranger.sendData(pair.clientTag, 300)
    bound.sendData(pair.clientTag, 300)
    connector.sendData(pair.clientTag, 300) // the peer's tag, from the wrong end
    bound.sendData(0x123456789abc, 300)
    await World.until(() => relay.server.stats.drops.foreignSource === 3 && relay.server.stats.drops.unknownTag === 1)
    await settle()
    assert.strictEqual(client.received.length + connector.received.length, 0)
    assert.strictEqual(relay.server.stats.forwarded.packets, 0)
  })

  it("forwards nothing until both ends have opened the session", async () => {
    const relay = await startRelay()
    const client = await (await peerOf(relay)).bind()
    const connector = await (await peerOf(relay)).bind()
    const pair = World.ticket(client.identity, connector.identity)
    await client.openSession(pair, pair.clientTag)
    client.sendData(pair.clientTag, 300)
    await World.until(() => relay.server.stats.drops.notOpen === 1)
    assert.strictEqual(connector.received.length, 0)
  })

  it("refuses credentials that are forged, over, or not the binder's", async () => {
    const relay = await startRelay()
    const rogue = World.newIdentity()
    const cases: ReadonlyArray<[RelayWire.Refusal, (peer: World.Peer) => void]> = [
      ["bad_credential", (peer) => peer.credential = World.credential(peer.identity.key, 300, rogue)],
      ["expired", (peer) => peer.credential = World.credential(peer.identity.key, -60)],
      ["bad_signature", (peer) => peer.credential = World.credential(rogue.key)]
    ]
    for (const [reason, spoil] of cases) {
      const peer = await peerOf(relay)
      spoil(peer)
      peer.apply(peer.binding.onCredential(true, performance.now()))
      await World.until(() => relay.server.stats.refused[reason] === 1)
      await World.until(() => peer.binding.phase === "refused")
    }
    assert.strictEqual(relay.server.nodes, 0)
  })

  it("refuses a signature that was made for another relay", async () => {
    const second = await startRelay({ name: "relay-2" })
    const peer = await peerOf(second)
    peer.apply(peer.binding.onCredential(true, performance.now()))
    await World.until(() => second.server.stats.refused.bad_signature === 1)
    const mindful = await peerOf(second)
    mindful.relayName = "relay-2"
    await mindful.bind()
    assert.strictEqual(second.server.nodes, 1)
  })

  it("refuses a cookie of another port before verifying anything", async () => {
    let verified = 0
    const relay = await startRelay({ verify: { authority: () => (verified++, true), node: () => (verified++, true) } })
    const thief = await peerOf(relay)
    const peer = await peerOf(relay)
    const cookies: Array<Uint8Array> = []
    const apply = peer.apply.bind(peer)
    peer.apply = (outputs) => {
      for (const one of outputs) if (one._tag === "SendBind") cookies.push(one.cookie)
      apply(outputs.filter((one) => one._tag !== "SendBind"))
    }
    peer.apply(peer.binding.onCredential(true, performance.now()))
    await World.until(() => cookies.length > 0)
    const signature = Crypto.sign(thief.identity.privateKey, RelayWire.bindText(cookies[0]!, ""))
    thief.sendRaw(
      RelayWire.encode({
        _tag: "Bind",
        nonce: new Uint8Array(8),
        cookie: cookies[0]!,
        signature,
        credential: thief.credential
      })
    )
    await World.until(() => relay.server.stats.refused.bad_cookie === 1)
    assert.strictEqual(verified, 0)
    relay.clock.skewMs = 300_000 // both periods are over
    peer.sendRaw(
      RelayWire.encode({
        _tag: "Bind",
        nonce: new Uint8Array(8),
        cookie: cookies[0]!,
        signature,
        credential: peer.credential
      })
    )
    await World.until(() => relay.server.stats.refused.bad_cookie === 2)
  })

  it("refuses forged, expired and foreign tickets, and used tags", async () => {
    const relay = await startRelay()
    const { client, connector, pair } = await connect(relay)
    const outsider = await (await peerOf(relay)).bind()
    const take = (peer: World.Peer, pair: World.Pair) =>
      peer.apply(peer.binding.onTicket(pair.session, pair.clientTag, pair.ticket, performance.now()))
    take(outsider, pair)
    await World.until(() => refusals(outsider).length === 1)
    take(outsider, World.ticket(outsider.identity, client.identity, { by: outsider.identity }))
    await World.until(() => refusals(outsider).length === 2)
    take(outsider, World.ticket(outsider.identity, client.identity, { seconds: -60 }))
    await World.until(() => refusals(outsider).length === 3)
    const used = pair.clientTag.toString(16).padStart(12, "0")
    take(outsider, World.ticket(outsider.identity, client.identity, { clientTag: used }))
    await World.until(() => refusals(outsider).length === 4)
    take(outsider, World.ticket(outsider.identity, client.identity, { session: pair.session }))
    await World.until(() => refusals(outsider).length === 5)
    assert.deepStrictEqual(refusals(outsider), ["foreign_ticket", "bad_ticket", "expired", "bad_ticket", "bad_ticket"])
    client.sendData(pair.clientTag, 99)
    await World.until(() => connector.received.length === 1)
  })

  it("ends a revoked node's sessions until it is readmitted", async () => {
    const relay = await startRelay()
    const { client, connector, pair } = await connect(relay)
    relay.server.revoke(client.identity.key)
    assert.strictEqual(relay.server.sessions, 0)
    connector.sendData(pair.connectorTag, 300)
    client.sendData(pair.clientTag, 300)
    await World.until(() => client.seen("Lost").some((one) => one._tag === "Lost" && one.reason === "revoked"))
    await World.until(() => relay.server.stats.drops.unknownTag >= 2)
    assert.strictEqual(client.received.length + connector.received.length, 0)
    client.apply(client.binding.onNetworkChanged(performance.now()))
    await World.until(() => relay.server.stats.refused.revoked === 1)
    relay.server.readmit(client.identity.key)
    client.apply(client.binding.onNetworkChanged(performance.now()))
    await World.until(() => client.binding.phase === "bound")
  })

  it("forgets bindings after 300 s of silence", async () => {
    const relay = await startRelay()
    const { client, connector } = await connect(relay)
    relay.clock.skewMs = 200_000
    client.credential = World.credential(client.identity.key, 600)
    client.apply(client.binding.onNetworkChanged(performance.now()))
    await World.until(() => relay.server.stats.bound.udp === 3)
    relay.clock.skewMs = 290_000
    relay.server.tick()
    assert.deepStrictEqual([relay.server.nodes, relay.server.sessions], [2, 1])
    relay.clock.skewMs = 310_000
    relay.server.tick()
    assert.deepStrictEqual([relay.server.nodes, relay.server.sessions], [1, 1])
    await World.until(() => client.seen("PeerLeg").length === 2)
    connector.sendRaw(RelayWire.encode({ _tag: "Ping", echo: new Uint8Array(8) })) // unknown by now
    relay.clock.skewMs = 510_000
    relay.server.tick()
    assert.deepStrictEqual([relay.server.nodes, relay.server.sessions], [0, 0])
  })

  it("ends a session with its ticket, however busy", async () => {
    const relay = await startRelay()
    const { client, connector, pair } = await connect(relay)
    client.apply(client.binding.onTicket(pair.session, pair.clientTag, pair.ticket, performance.now()))
    relay.clock.skewMs = 301_000
    client.sendData(pair.clientTag, 100)
    connector.sendData(pair.connectorTag, 100)
    await World.until(() => client.received.length === 1 && connector.received.length === 1)
    relay.server.tick()
    assert.deepStrictEqual([relay.server.nodes, relay.server.sessions], [0, 0])
    const later = await startRelay()
    const two = await connect(later)
    const short = World.ticket(two.client.identity, two.connector.identity, { seconds: 30 })
    await two.client.openSession(short, short.clientTag)
    assert.strictEqual(later.server.sessions, 2)
    later.clock.skewMs = 60_000
    later.server.tick()
    assert.deepStrictEqual([later.server.nodes, later.server.sessions], [2, 1])
  })

  it("keeps bindings and sessions when the directory's time is set", async () => {
    const relay = await startRelay()
    const { client, connector, pair } = await connect(relay)
    for (const jump of [86_400_000, -86_400_000]) {
      relay.clock.jumpMs = jump
      relay.server.tick()
      assert.deepStrictEqual([relay.server.nodes, relay.server.sessions], [2, 1])
    }
    client.sendData(pair.clientTag, 100)
    await World.until(() => connector.received.length === 1)
    relay.clock.jumpMs = 86_400_000 // what is shown now is judged by the time of now
    const late = World.ticket(client.identity, connector.identity)
    client.apply(client.binding.onTicket(late.session, late.clientTag, late.ticket, performance.now()))
    await World.until(() => refusals(client).length === 1)
    assert.deepStrictEqual(refusals(client), ["expired"])
  })

  it("keeps what was valid before an outage", async () => {
    const outage = { seconds: 0 }
    const relay = await startRelay({ outageSeconds: () => outage.seconds })
    const { client, connector, pair } = await connect(relay)
    const removed = await (await peerOf(relay)).bind()
    relay.server.revoke(removed.identity.key)
    const pass = async (seconds: number) => {
      relay.clock.skewMs += seconds * 1000
      if (outage.seconds > 0) outage.seconds += seconds
      const before = connector.received.length + client.received.length
      client.sendData(pair.clientTag, 100)
      connector.sendData(pair.connectorTag, 100)
      await World.until(() => connector.received.length + client.received.length === before + 2)
      relay.server.tick()
    }
    outage.seconds = 1
    // The credentials last 300 s, the ticket 600 s, and a revoked node is refused for 3,700 s.
    for (let at = 0; at < 5_000; at += 250) await pass(250)
    assert.deepStrictEqual([relay.server.nodes, relay.server.sessions], [2, 1])

    // Both nodes bind and open the session again, as after a change of their network.
    for (const [node, tag] of [[client, pair.clientTag], [connector, pair.connectorTag]] as const) {
      node.apply(node.binding.onNetworkChanged(performance.now()))
      await World.until(() => node.binding.phase === "bound")
      await node.openSession(pair, tag)
    }
    await pass(250)
    const old = await peerOf(relay)
    old.credential = World.credential(old.identity.key, -60)
    old.apply(old.binding.onCredential(true, performance.now()))
    await World.until(() => relay.server.stats.refused.expired === 1)
    removed.apply(removed.binding.onNetworkChanged(performance.now()))
    await World.until(() => relay.server.stats.refused.revoked >= 1)

    outage.seconds = 0
    relay.server.tick()
    assert.deepStrictEqual([relay.server.nodes, relay.server.sessions], [0, 0])
  })

  it("tells every node that it is full, its owner once", async () => {
    const full: Array<string> = []
    const relay = await startRelay({ limits: { nodes: 2, sessionsPerNode: 1 }, onFull: (table) => full.push(table) })
    const { client } = await connect(relay)
    const third = await peerOf(relay)
    third.apply(third.binding.onCredential(true, performance.now()))
    await World.until(() => relay.server.stats.refused.full === 1)
    const more = World.ticket(client.identity, third.identity)
    client.apply(client.binding.onTicket(more.session, more.clientTag, more.ticket, performance.now()))
    await World.until(() => refusals(client).includes("full"))
    assert.deepStrictEqual(full, ["nodes"])
  })

  it("holds a node to its rate with few notices", async () => {
    const relay = await startRelay({ limits: { bytesPerSecond: 1000, burstBytes: 65_536 } })
    const { client, connector, pair } = await connect(relay)
    for (let i = 0; i < 100; i++) client.sendData(pair.clientTag, 1400)
    await World.until(() => client.seen("RateLimited").length > 0)
    await settle()
    assert.isAtMost(connector.received.length, 48)
    assert.isAtLeast(connector.received.length, 40)
    assert.isAtMost(client.seen("RateLimited").length, 2)
    const notice = client.seen("RateLimited")[0]
    assert.isAbove(notice?._tag === "RateLimited" ? notice.retryAfterMs : 0, 0)
  })

  it("bounds how much it verifies, whoever asks", async () => {
    let verified = 0
    const relay = await startRelay({
      rates: { verifications: 5, verificationsPerPrefix: 5, answersPerPrefix: 1000 },
      verify: { authority: (...args) => (verified++, World.verify.authority(...args)), node: World.verify.node }
    })
    const peers = await Promise.all(Array.from({ length: 12 }, () => peerOf(relay)))
    for (const peer of peers) peer.apply(peer.binding.onCredential(true, performance.now()))
    await World.until(() => relay.server.stats.refused.busy > 0)
    assert.isAtMost(verified, 6) // 10 in the buckets, two for each bind
    await World.until(() => peers.every((peer) => peer.binding.phase === "bound"))
  })

  it("answers STUN, with a limit for each prefix", async () => {
    const relay = await startRelay({ rates: { stunPerPrefix: 10 } })
    const peer = await peerOf(relay)
    for (let i = 0; i < 40; i++) peer.sendRaw(Stun.encodeRequest({ txId: Crypto.randomBytes(12) }))
    await World.until(() => relay.server.stats.drops.overRate > 0)
    await settle()
    assert.strictEqual(relay.server.stats.answered.stun, 20)
    const reply = Either.getOrThrow(Stun.decode(peer.received[0]!.subarray(0, Stun.lengthAt(peer.received[0]!, 0))))
    assert.deepStrictEqual(reply._tag === "Success" ? reply.mapped : null, {
      host: "127.0.0.1",
      port: peer.udp.address().port
    })
  })

  it("uses a node's link, and drops what it cannot take", async () => {
    const relay = await startRelay()
    const { client, connector, pair } = await connect(relay)
    const { frames, link, messages, state } = fakeLink()
    const leg = relay.server.attachLink(connector.identity.key, link)!
    await World.until(() => client.seen("PeerLeg").some((one) => one._tag === "PeerLeg" && one.peerLeg === "relay-tcp"))
    assert.strictEqual(messages()[0]!._tag, "Bound")
    client.sendData(pair.clientTag, 500, 3)
    await World.until(() => frames.length >= 2)
    assert.strictEqual(frames.slice(1).reduce((sum, one) => sum + one.length, 0), 1500)
    const answer = new Uint8Array(700)
    Frame.writeRelayedHead(answer, 0, 700, pair.connectorTag)
    relay.server.onLinkFrames(leg, answer)
    Frame.writeRelayedHead(answer, 0, 700, pair.clientTag) // not the link's tag
    relay.server.onLinkFrames(leg, answer)
    await World.until(() => client.received.length === 1)
    assert.strictEqual(relay.server.stats.drops.foreignSource, 1)
    state.buffered = 64 * 1024 * 1024
    client.sendData(pair.clientTag, 500)
    await World.until(() => relay.server.stats.drops.linkFull === 1)
    relay.server.detachLink(leg)
    client.sendData(pair.clientTag, 500)
    await World.until(() => connector.received.length === 1) // by UDP again
    relay.server.onLinkFrames(leg, answer)
    assert.strictEqual(relay.server.stats.drops.unbound, 1)
  })

  it("answers padded requests with as many bytes", async () => {
    const relay = await startRelay()
    const peer = await peerOf(relay)
    const lengths: Array<number> = []
    const nonce = new Uint8Array(8).fill(7)
    for (const bound of [false, true]) {
      if (bound) await peer.bind()
      const onMessage = relay.udp.send.bind(relay.udp)
      relay.udp.send = (bytes, offset, length, port, address) => {
        lengths.push(length)
        onMessage(bytes, offset, length, port, address)
      }
      for (const padTo of [0, 300, RelayWire.PROOF_BYTES]) {
        const before = lengths.length
        peer.sendRaw(RelayWire.encode(bound ? { _tag: "Ping", echo: nonce } : { _tag: "BindRequest", nonce }, padTo))
        await World.until(() => lengths.length > before)
      }
      relay.udp.send = onMessage
    }
    assert.deepStrictEqual(lengths, [37, 300, RelayWire.PROOF_BYTES, 17, 300, RelayWire.PROOF_BYTES])
  })

  it("binds nobody any more at a socket that is dropped", async () => {
    const relay = await startRelay()
    const { client } = await connect(relay)
    assert.strictEqual(relay.server.nodes, 2)
    relay.server.dropSocket(0)
    assert.strictEqual(relay.server.nodes, 0)
    relay.server.setPort(0, relay.udp) // another address has its number now
    const [echo] = [new Uint8Array(8).fill(9)]
    client.sendRaw(RelayWire.encode({ _tag: "Ping", echo }))
    await World.until(() => client.binding.phase === "bound" && relay.server.stats.bound.udp >= 2)
  })

  it("never sends an unproved address more than it received", () => {
    const nonce = new Uint8Array(8)
    const empty = { payload: new Uint8Array(5), signature: new Uint8Array(64) }
    const sample = fc.constantFrom(
      RelayWire.encode({ _tag: "BindRequest", nonce }),
      RelayWire.encode({ _tag: "BindRequest", nonce }, RelayWire.PROOF_BYTES),
      RelayWire.encode({ _tag: "Ping", echo: nonce }, RelayWire.PROOF_BYTES),
      RelayWire.encode({
        _tag: "Bind",
        nonce,
        cookie: new Uint8Array(20),
        signature: new Uint8Array(64),
        credential: empty
      }),
      RelayWire.encode({ _tag: "Open", nonce, ticket: empty }),
      RelayWire.encode({ _tag: "Ping", echo: nonce }),
      RelayWire.encode({ _tag: "Close", tag: 5 }),
      dataFrame(0x123456789abc, 12),
      dataFrame(0x123456789abc, 60),
      Stun.encodeRequest({ txId: new Uint8Array(12) }),
      Stun.encodeRequest({ txId: new Uint8Array(12), bytes: 28, change: { address: true, port: false } })
    )
    const mutated = fc.tuple(sample, fc.nat(), fc.nat(255)).map(([bytes, at, value]) => {
      const copy = bytes.slice()
      copy[at % copy.length] = value
      return copy
    })
    const parts = fc.array(fc.oneof(sample, mutated, fc.uint8Array({ maxLength: 60 })), { minLength: 1, maxLength: 6 })
    let now = 0
    let out = 0
    let answered = 0
    const port: Output = {
      send: (_bytes, _offset, length) => void (out += length, answered++),
      sendTrain: () => assert.fail("nothing is forwarded")
    }
    const rates = { verifications: 1e9, verificationsPerPrefix: 1e9, answersPerPrefix: 1e9, stunPerPrefix: 1e9 }
    const server = new RelayServer({ verify: World.verify, now: () => now, epochSeconds: World.epochSeconds, rates })
    server.setPort(0, port)
    fc.assert(
      fc.property(parts, fc.boolean(), (parts, v6) => {
        now += 1000
        out = 0
        const bytes = Buffer.concat(parts)
        server.onUdp(bytes, { address: v6 ? "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff" : "192.0.2.1", port: 65535 }, 0)
        assert.isAtMost(out, bytes.length)
      }),
      { numRuns: runs(5000) }
    )
    assert.isAbove(answered, 1000)
    assert.deepStrictEqual([server.nodes, server.sessions], [0, 0])
  })
})
