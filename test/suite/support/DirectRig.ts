/** Two sessions over real QUIC, with a relay and a direct way in memory. */
import { direct, keyOf } from "../../../src/protocol/path/PathRef.ts"
import { link, makeNode, type Node, openFlow, settled, startResource } from "./SessionRig.ts"

const CLIENT = { address: "198.51.100.1", port: 4_001 }
const CONNECTOR = { address: "198.51.100.2", port: 4_002 }
export const VICTIM = { address: "203.0.113.9", port: 53 }
export const TO_CONNECTOR = direct({ host: CONNECTOR.address, port: CONNECTOR.port })
/** First byte of a sealed path message, behind the head of a direct frame. */
const SEALED = 0x01

/**
 * A client and a connector whose session goes by the relay and knows a direct way, with a flow over it. `way`: what of the direct way is
 * delivered. The resource is the caller's to close.
 */
export const withDirectWay = async () => {
  const clock = { ahead: 0 }
  const way = { open: true, quic: true }
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
      if (way.open && (way.quic || !isQuic)) setImmediate(() => to.router.onDatagrams(datagram, from))
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
  const session = link({ client, connector, port: resource.port })
  const flow = await openFlow(session, resource.port)
  await settled("the flow is open", () => flow.text() === "hello")
  const peer = session.client.peer
  let pings = 0
  const ask = () => peer.sendPing(TO_CONNECTOR, (pings++).toString(16).padStart(16, "0"), 32)
  await settled("path messages are understood", () => ask() && sent.quic + sent.questions > 2)
  return { ask, clock, connector, flow, peer, resource, sent, session, way }
}

/** The same on the direct path. */
export const onDirectPath = async () => {
  const it = await withDirectWay()
  it.peer.select(TO_CONNECTOR)
  await settled("the session is on the direct path", () => keyOf(it.peer.path) === keyOf(TO_CONNECTOR))
  it.flow.write("a")
  await settled("it came", () => it.resource.received() === "a")
  return it
}
