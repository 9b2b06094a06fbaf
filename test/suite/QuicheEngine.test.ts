import { randomBytes } from "node:crypto"
import { beforeAll, expect, it } from "vitest"
import { type QuicConnection } from "../../src/transport/quic/engine/QuicEngine.ts"
import { engine } from "../../src/transport/quic/engine/QuicheEngine.ts"
import { makeIdentity } from "./support/MemoryWire.ts"

const PACKET = 1200
const STREAM = 4
let identity: Awaited<ReturnType<typeof makeIdentity>>

beforeAll(async () => {
  identity = await makeIdentity()
})

const pair = (ticketKey: Uint8Array, savedSession: Uint8Array | null) => {
  const clientId = randomBytes(16)
  const base = { ...identity, maxPacket: PACKET, slot: 0 }
  return {
    client: engine.open({ ...base, role: "client", resumption: { clientId, savedSession, ticketKey: null } }),
    connector: engine.open({ ...base, role: "connector", resumption: { clientId, savedSession: null, ticketKey } })
  }
}

const flush = (from: QuicConnection, to: QuicConnection) => {
  const packet = Buffer.alloc(PACKET)
  for (let length = from.send(packet); length > 0; length = from.send(packet)) {
    to.receive(0, Buffer.from(packet.subarray(0, length)))
  }
}

const ticketFrom = (ticketKey: Uint8Array): Uint8Array => {
  const { client, connector } = pair(ticketKey, null)
  for (let trip = 0; trip < 6; trip += 1) {
    flush(client, connector)
    flush(connector, client)
  }
  const saved = client.savedSession()
  if (saved === null) throw new Error("no ticket")
  return saved
}

const KEY = randomBytes(48)

it.each([
  { what: "takes", ticketKey: KEY },
  { what: "refuses", ticketKey: randomBytes(48) }
])("shows the connector's certificate first, where it $what early data", ({ ticketKey }) => {
  const { client, connector } = pair(ticketKey, ticketFrom(KEY))
  client.write(STREAM, Buffer.from("early"))
  flush(client, connector)
  client.write(STREAM, Buffer.from(" and late"))
  flush(connector, client)
  expect(client.isEstablished()).toBe(true)
  expect(client.peerCertificate()).not.toBeNull()
  client.close(2, "the certificate is not the peer's")
  flush(client, connector)
  const into = Buffer.alloc(100)
  const got = connector.read(STREAM, into)
  expect(into.toString("utf8", 0, Math.max(0, got))).toBe(ticketKey === KEY ? "early" : "")
})
