/** Two sessions over real QUIC, with a relay and a direct way in memory: when a peer falls silent, what still goes to its address. */
import { afterEach, describe, expect, it } from "vitest"
import * as Frame from "../../src/protocol/Frame.ts"
import * as PathMessage from "../../src/protocol/PathMessage.ts"
import { direct, keyOf } from "../../src/protocol/PathRef.ts"
import { CONSENT_MS } from "../../src/transport/plane/Consent.ts"
import { link, makeNode, type Node, openFlow, type Resource, settled, startResource } from "./support/SessionRig.ts"

const CLIENT = { address: "198.51.100.1", port: 4_001 }
const CONNECTOR = { address: "198.51.100.2", port: 4_002 }
const VICTIM = { address: "203.0.113.9", port: 53 }
const TO_CONNECTOR = direct({ host: CONNECTOR.address, port: CONNECTOR.port })
/** First byte of a sealed path message, behind the head of a direct frame. */
const SEALED = 0x01

const resources: Array<Resource> = []
afterEach(() => resources.splice(0).forEach(({ close }) => close()))

/** A client and a connector whose session is on a direct path, with a flow over it. */
const onDirectPath = async () => {
  const clock = { ahead: 0 }
  const way = { open: true }
  const sent = { quic: 0, questions: 0, byConnector: 0, toVictim: 0 }
  const nodeOf = async (role: "client" | "connector"): Promise<Node> => {
    const node = await makeNode(role)
    return Object.assign(node, { now: () => performance.now() + clock.ahead })
  }
  const client = await nodeOf("client")
  const connector = await nodeOf("connector")
  const way4 = (from: typeof CLIENT, to: Node) => {
    const send = (bytes: Uint8Array, offset: number, length: number, _port: number, address: string) => {
      if (address === VICTIM.address) {
        sent.toVictim += length
        return
      }
      const datagram = Buffer.from(bytes.subarray(offset, offset + length))
      const isQuic = datagram[2] !== SEALED
      sent[isQuic ? "quic" : "questions"]++
      if (isQuic && from === CONNECTOR) sent.byConnector++
      if (way.open) setImmediate(() => to.router.onDatagrams(datagram, from))
    }
    return {
      send,
      sendTrain: (bytes: Uint8Array, length: number, _segment: number, port: number, address: string) =>
        send(bytes, 0, length, port, address)
    }
  }
  client.router.v4 = way4(CLIENT, connector)
  connector.router.v4 = way4(CONNECTOR, client)

  const resource = await startResource()
  resources.push(resource)
  const session = link({ client, connector, port: resource.port })
  const flow = await openFlow(session, resource.port)
  await settled("the flow is open", () => flow.text() === "hello")
  const peer = session.client.peer
  let pings = 0
  const ask = () => peer.sendPing(TO_CONNECTOR, (pings++).toString(16).padStart(16, "0"), 32)
  await settled("path messages are understood", () => ask() && sent.quic + sent.questions > 2)
  peer.select(TO_CONNECTOR)
  await settled("the session is on the direct path", () => keyOf(peer.path) === keyOf(TO_CONNECTOR))
  flow.write("a")
  await settled("it came", () => resource.received() === "a")
  return { ask, clock, connector, flow, resource, sent, session, way }
}

describe("consent to send", () => {
  it("lapses when nothing was proved for half a minute: QUIC goes nowhere, questions do, and an answer brings all back", async () => {
    const { ask, clock, flow, resource, sent, way } = await onDirectPath()
    ask()
    way.open = false
    const before = sent.quic
    flow.write("b")
    await settled("QUIC tries", () => sent.quic > before)
    clock.ahead += CONSENT_MS
    const lapsed = sent.quic
    flow.write("c")
    ask()
    await new Promise((resolve) => {
      setTimeout(resolve, 500)
    })
    expect(sent.quic).toBe(lapsed)
    expect(sent.questions).toBeGreaterThan(0)
    way.open = true
    ask()
    await settled("what was written has come, once and in order", () => resource.received() === "abc", 3_000)
  })

  it("is kept by the peer's own questions, when this side asks nothing", async () => {
    const { ask, clock, flow, resource, sent } = await onDirectPath()
    for (let turn = 0; turn < 3; turn++) {
      clock.ahead += CONSENT_MS - 1_000
      const before = sent.questions
      ask()
      await settled("it was asked and has answered", () => sent.questions >= before + 2)
    }
    const before = sent.byConnector
    flow.write("d")
    await settled("it came", () => resource.received() === "ad", 3_000)
    await settled("the connector acknowledges it", () => sent.byConnector > before, 3_000)
  })

  it("goes no further than a few times what came, to an address that somebody else may have", async () => {
    const { ask, connector, sent, session } = await onDirectPath()
    const { peer } = session.client
    const { quic } = session.connector.peer
    const questions = sent.questions
    ask() // by its number the connector knows the path
    await settled("it was asked and has answered", () => sent.questions >= questions + 2)
    const box = peer.sealed({
      _tag: "Ping",
      txId: new Uint8Array(PathMessage.TX_ID_BYTES),
      pathId: peer.quic.activeSlot,
      flags: PathMessage.FLAG_ACTIVE,
      padTo: 0
    })!
    const forged = Buffer.concat([Buffer.alloc(Frame.DIRECT_HEAD_BYTES), box])
    Frame.writeDirectHead(forged, 0, forged.length)
    connector.router.onDatagrams(forged, VICTIM)
    expect(session.connector.path).toMatchObject({ remote: { host: VICTIM.address } })
    const download = () => {
      for (let i = 0; i < 20; i++) quic.sendDatagram(Buffer.alloc(1000))
    }
    download()
    await new Promise((resolve) => {
      setTimeout(resolve, 500)
    })
    expect(sent.toVictim).toBeGreaterThan(0)
    expect(sent.toVictim).toBeLessThan(6 * forged.length)
    // The path is the client's again as soon as it asks, and has answered.
    const before = sent.byConnector
    ask()
    await settled("it is proved", () => {
      download()
      return sent.byConnector >= before + 20
    })
  })
})
