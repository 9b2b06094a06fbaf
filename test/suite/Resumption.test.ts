import { afterEach, beforeEach, describe, expect, it } from "vitest"
import * as Frame from "../../src/protocol/bytes/Frame.ts"
import { connectionIdOf, KEY_LIFE_MS, TicketKeys } from "../../src/transport/quic/engine/Resumption.ts"
import { bare, redress } from "./support/InitialPacket.ts"
import {
  type Link,
  link,
  type LinkOptions,
  makeNode,
  type Node,
  openFlow,
  type Resource,
  settled,
  startResource
} from "./support/SessionRig.ts"

const open: Array<Link> = []
let client: Node
let connector: Node
let resource: Resource

beforeEach(async () => {
  client = await makeNode("client")
  connector = await makeNode("connector")
  resource = await startResource()
})
afterEach(() => {
  for (const it of open.splice(0)) {
    it.client.close(0, "test over")
    it.connector.close(0, "test over")
  }
  resource.close()
})

const start = (options: Partial<LinkOptions> = {}): Link => {
  const it = link({ client, connector, port: resource.port, ...options })
  open.push(it)
  return it
}
/** A session whose ticket the client has, and that is over. */
const before = async (options: Partial<LinkOptions> = {}): Promise<void> => {
  const it = start(options)
  const of = options.client ?? client
  const at = options.connector ?? connector
  const flow = await openFlow(it, resource.port)
  await settled("the flow is answered", () => flow.text() === "hello")
  await settled("a ticket is saved", () => {
    const session = of.savedSessions.take(at.key, of.now())
    if (session !== null) of.savedSessions.keep(at.key, session, of.now())
    return session !== null
  })
  await end(it)
}
/** The first flight of a resumed session that carries a flow, and the flow open. */
const resumed = async () => {
  const it = start({ limit: 1 })
  const flow = await openFlow(it, resource.port)
  it.release(2)
  await settled("the resource has answered", () => flow.text() === "hello")
  return { it, flow, flight: it.sent.filter(({ stamp }) => stamp === 1).map(({ frames }) => frames) }
}
/** No connection but those, once a flow that began only now is answered. */
const nothingMore = async (opened: number) => {
  const flow = await openFlow(start({ client: await makeNode("client") }), resource.port)
  await settled("another flow is answered", () => flow.text() === "hello")
  expect(resource.opened()).toBe(opened + 1)
}
/**
 * quiche 0.18 says a good-bye from before the handshake is confirmed in a way that the connector cannot read any more. The
 * confirmation travels with, or before, what answers a ping to a connector that is established.
 */
const end = async (it: Link) => {
  it.release(Infinity)
  await settled("the handshake is over", () => it.connector.peer.quic.established)
  for (let i = 0; i < 3; i += 1) {
    const { packetsReceived } = it.client.peer.quic.stats()
    it.client.peer.quic.ping()
    await settled("the ping is answered", () => it.client.peer.quic.stats().packetsReceived > packetsReceived)
  }
  it.client.close(0, "over")
  await settled("the session is over", () => it.closed.connector !== null)
}

describe("Resumption", () => {
  it("opens a new session's flow with the third trip", async () => {
    const it = start({ limit: 2 })
    await settled("the handshake is over for the client", () => it.client.peer.quic.established)
    const flow = await openFlow(it, resource.port)
    expect(resource.opened()).toBe(0)
    it.release(3)
    await settled("the resource is dialled", () => resource.opened() === 1)
    expect(flow.text()).toBe("")
    it.release(4)
    await settled("the first byte", () => flow.text() === "hello")
  })

  it("opens a resumed session's flow with the first trip", async () => {
    await before()
    const it = start({ limit: 1 })
    const flow = await openFlow(it, resource.port)
    await settled("the resource is dialled", () => resource.opened() === 2)
    expect(flow.text()).toBe("")
    it.release(2)
    await settled("the first byte", () => flow.text() === "hello")
    it.release(Infinity)
    await settled(
      "both have proved who they are",
      () => it.client.peer.quic.established && it.connector.peer.quic.established
    )
    flow.write("and more")
    await settled("the flow goes on", () => resource.received() === "and more")
  })

  it("resumes from a resumed session, too", async () => {
    await before()
    await before()
    await resumed()
    expect(resource.opened()).toBe(3)
  })

  it("ignores a first flight repeated in its own session", async () => {
    await before()
    const { flight, it } = await resumed()
    for (const frames of flight) it.inject(frames)
    it.release(Infinity)
    for (const frames of flight) it.inject(frames)
    await nothingMore(2)
    for (const frames of flight) it.inject(frames)
    await nothingMore(3)
  })

  it("ignores a first flight repeated in another session", async () => {
    await before()
    const { flight, it } = await resumed()
    const replay = async () => {
      const elsewhere = start({ limit: 0 }) // nothing of the client's own arrives
      for (const frames of flight) elsewhere.inject(frames)
      await settled("the connector wants nothing of it", () => elsewhere.closed.connector !== null)
      expect(elsewhere.connector.flows).toBe(0)
    }
    await replay()
    await end(it)
    await replay()
    await before() // uses the ticket of the next session, under the same key
    await replay()
    await nothingMore(3)
  })

  it("opens nothing for a first flight in another client's session", async () => {
    await before()
    const { flight } = await resumed()
    const other = await makeNode("client")
    await before({ client: other })
    const elsewhere = start({ client: other, limit: 0 })
    for (const frames of flight) elsewhere.inject(frames)
    await settled("the connector wants nothing of it", () => elsewhere.closed.connector !== null)
    await nothingMore(3)
  })

  it("ignores a first flight that was rewritten for another session", async () => {
    await before()
    const { flight } = await resumed()
    const frames = flight.flatMap(split)
    const inside = (frame: Buffer) => frame.subarray(Frame.RELAYED_HEAD_BYTES)
    const first = frames.findIndex((frame) => (inside(frame)[0]! & 0xf0) === 0xc0)
    for (const attack of ["redressed", "announced", "joined"] as const) {
      const elsewhere = start({ limit: 0 })
      const id = connectionIdOf(elsewhere.id)
      const initial = inside(frames[first]!)
      if (attack === "redressed") elsewhere.inject(framed(redress(initial, id)))
      // A packet that anybody can make comes first, and names the right session.
      else if (attack === "announced") elsewhere.inject(framed(bare(initial, id, 1200)))
      else elsewhere.inject(framed(Buffer.concat([bare(initial, id, 60), initial])))
      for (const frame of frames) elsewhere.inject(frame)
      await settled("the connector wants nothing of it", () => elsewhere.closed.connector !== null)
    }
    await nothingMore(2)
  })

  it("begins no session twice", async () => {
    await before()
    const { it } = await resumed()
    await end(it)
    expect(connector.ticketKeys.claim(client.key, it.id, connector.now())._tag).toBe("Spent")
  })

  it("resumes within a life of the key, life after life", async () => {
    let passedMs = 0
    const now = () => performance.now() + passedMs
    for (const node of [client, connector]) Object.assign(node, { now, hostMs: now })
    /** A flow that is dialled only when the whole handshake is over, and once. */
    const refused = async () => {
      const opened = resource.opened()
      const it = start({ limit: 2 })
      const flow = await openFlow(it, resource.port)
      await settled("the handshake is over for the client", () => it.client.peer.quic.established)
      expect(resource.opened()).toBe(opened)
      it.release(Infinity)
      await settled("the first byte", () => flow.text() === "hello")
      expect(resource.opened()).toBe(opened + 1)
      await end(it)
    }
    for (let life = 1; life <= 4; life++) {
      await before() // with the life's new key
      passedMs += 0.9 * KEY_LIFE_MS
      await end((await resumed()).it)
      passedMs += 0.2 * KEY_LIFE_MS
      await refused() // the client's ticket is young, but sealed by the old key
      passedMs += KEY_LIFE_MS
      expect(client.savedSessions.take(connector.key, client.now())).toBeNull()
    }
  })

  it("delivers the same bytes once if early data is refused", async () => {
    await before()
    connector.ticketKeys = new TicketKeys() // as after a restart
    const it = start({ limit: 2 })
    const flow = await openFlow(it, resource.port)
    await settled("the handshake is over for the client", () => it.client.peer.quic.established)
    expect(resource.opened()).toBe(1)
    it.release(Infinity)
    await settled("the first byte", () => flow.text() === "hello")
    flow.write("and more")
    await settled("the flow goes on", () => resource.received() === "and more")
    expect(resource.opened()).toBe(2)
  })

  it("delivers the same bytes once over a lossy wire", async () => {
    for (let round = 0; round < 6; round++) {
      await before()
      if (round % 2 === 0) connector.ticketKeys = new TicketKeys()
      const opened = resource.opened()
      const it = start()
      it.lostOf = 3 + round
      const flow = await openFlow(it, resource.port)
      await settled("the first byte", () => flow.text() === "hello")
      flow.write(`round ${round};`)
      await settled("the flow goes on", () => resource.received().endsWith(`round ${round};`))
      expect(resource.opened()).toBe(opened + 1)
      it.client.close(0, "next")
    }
  })

  it("dials nothing that the new session's grant does not list", async () => {
    await before()
    const it = start({ limit: 1, granted: 1 })
    const flow = await openFlow(it, resource.port)
    it.release(2)
    await settled("the flow is refused", () => flow.answer !== null)
    expect(flow.answer).toMatchObject({ _tag: "Rejected", verdict: { code: "port_not_listed" } })
    expect(resource.opened()).toBe(1)
  })

  it("identifies a ticket's thief by his own key", async () => {
    await before()
    const thief = await makeNode("client")
    const stolen = client.savedSessions.take(connector.key, client.now())!
    thief.savedSessions.keep(connector.key, stolen, thief.now())
    const it = start({ client: thief })
    const flow = await openFlow(it, resource.port)
    await settled("the flow is answered", () => flow.answer !== null)
    expect(it.connector.peer.peerKey).toBe(thief.key)
    expect(it.connector.peer.quic.established).toBe(true) // by the whole handshake, which early data is no part of

    // Even where a key of another client's were used: the ticket names its own client.
    const key = connector.ticketKeys.claim(client.key, "another", connector.now())
    if (key._tag === "Spent" || key.ticketKey === null) throw new Error("no key")
    thief.savedSessions.keep(connector.key, stolen, thief.now())
    const wrong = start({ client: thief, ticketKey: key.ticketKey })
    const opened = resource.opened()
    await openFlow(wrong, resource.port)
    await settled("the connector closes", () => wrong.closed.connector !== null)
    expect(wrong.closed.connector?.text).toBe("the certificate is not the peer's")
    expect(resource.opened()).toBe(opened)
  })

  it("says nothing to somebody who stands in for the connector", async () => {
    await before()
    const impostor = { ...await makeNode("connector"), key: connector.key } // the relay says that it is
    const it = start({ connector: impostor })
    await openFlow(it, resource.port)
    await settled("the client closes", () => it.closed.client !== null)
    expect(it.closed.client?.text).toBe("the certificate is not the peer's")
    expect(it.connector.flows).toBe(0)
    expect(resource.opened()).toBe(1)
  })
})

const split = (frames: Buffer): ReadonlyArray<Buffer> => {
  const all: Array<Buffer> = []
  for (let at = 0; at < frames.length; at += Frame.lengthAt(frames, at)) {
    all.push(frames.subarray(at, at + Frame.lengthAt(frames, at)))
  }
  return all
}

const framed = (packet: Buffer): Buffer => {
  const frame = Buffer.concat([Buffer.alloc(Frame.RELAYED_HEAD_BYTES), packet])
  Frame.writeRelayedHead(frame, 0, frame.length, 1)
  return frame
}
