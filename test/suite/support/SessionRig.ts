/** Sessions of clients with a connector, over a relay in memory that counts trips, holds, loses, records and injects frames. */
import { Effect, Either } from "effect"
import { randomBytes, X509Certificate } from "node:crypto"
import { once } from "node:events"
import net from "node:net"
import * as Frame from "../../../src/protocol/bytes/Frame.ts"
import type { Grant, Ticket } from "../../../src/protocol/trust/Documents.ts"
import { type NodeKey } from "../../../src/protocol/trust/NodeKey.ts"
import * as Pki from "../../../src/services/identity/Pki.ts"
import type { Answer } from "../../../src/session/FlowStart.ts"
import { FlowSession, type FlowSessionEvents, type NodeContext } from "../../../src/transport/plane/FlowSession.ts"
import { PacketRouter } from "../../../src/transport/plane/PacketRouter.ts"
import { READ_NOTHING } from "../../../src/transport/quic/engine/QuicEngine.ts"
import { engine } from "../../../src/transport/quic/engine/QuicheEngine.ts"
import { SavedSessions, TicketKeys } from "../../../src/transport/quic/engine/Resumption.ts"
import { type CloseReason } from "../../../src/transport/quic/QuicSession.ts"
import { HANG_MS } from "../../support/Hang.ts"
import { makeIdentity } from "./MemoryWire.ts"

export interface Node extends NodeContext {
  ticketKeys: TicketKeys
  /** What carries the frames of each session, by the tag that they bear. */
  readonly carriers: Map<number, (frames: Uint8Array) => void>
}

export const makeNode = async (role: "client" | "connector"): Promise<Node> => {
  const identity = await makeIdentity()
  const keyOf = (der: Uint8Array) => Either.getOrElse(Pki.publicKeyOfCert(der), () => null)
  const key = keyOf(new X509Certificate(identity.certificate).raw)
  if (key === null) throw new Error("no key")
  const carriers: Node["carriers"] = new Map()
  const router = new PacketRouter(() => undefined)
  router.leg = { kind: "relay-tcp", send: (frames) => carriers.get(Frame.tagAt(frames, 0))?.(frames) }
  return {
    ...identity,
    role,
    key,
    router,
    carriers,
    engine,
    keyOfCertificate: keyOf,
    savedSessions: new SavedSessions(),
    ticketKeys: new TicketKeys(),
    now: () => performance.now(),
    nowSeconds: () => Math.floor(Date.now() / 1000),
    hostMs: () => performance.now(),
    openGrant: () => Either.left("this rig renews nothing"),
    leg: () => null
  }
}

/** What a client sent: one train of frames, and the trips that had to be made before it could be. */
export interface Recorded {
  readonly frames: Buffer
  readonly stamp: number
}

export interface Link {
  readonly id: string
  readonly client: FlowSession
  readonly connector: FlowSession
  readonly closed: { client: CloseReason | null; connector: CloseReason | null }
  readonly up: { client: boolean }
  readonly sent: Array<Recorded>
  /** Packets that need more trips than this before them are held; Infinity: none. */
  limit: number
  /** One packet in so many is lost, by turns. */
  lostOf: number
  readonly release: (limit: number) => void
  /** Frames as they were recorded, now under this session's tag. */
  readonly inject: (frames: Buffer) => void
}

export interface LinkOptions {
  readonly client: Node
  readonly connector: Node
  readonly port: number
  /** Where the grant lists another. */
  readonly granted?: number
  readonly session?: string
  readonly limit?: number
  /** In place of what `TicketKeys` gives. */
  readonly ticketKey?: Uint8Array
}

const tag = () => randomBytes(6).toString("hex")

export const link = (options: LinkOptions): Link => {
  const { client, connector } = options
  const id = options.session ?? randomBytes(16).toString("hex")
  const nowSeconds = client.nowSeconds()
  const ticket: Ticket = {
    session: id,
    clientKey: client.key,
    connectorKey: connector.key,
    clientTag: tag(),
    connectorTag: tag(),
    expiresAt: nowSeconds + 600
  }
  const grant = grantOf(client.key, connector.key, options.granted ?? options.port, nowSeconds)
  const closed: Link["closed"] = { client: null, connector: null }
  const up: Link["up"] = { client: false }
  const events = (side: "client" | "connector"): FlowSessionEvents => ({
    onUp: () => {
      if (side === "client") up.client = true
    },
    onDown: (_, reason) => {
      closed[side] = reason
    },
    onFlow: () => ({ onVerdict: ignore, onFirst: ignore, onDone: ignore }),
    onCandidates: ignore,
    onCandidatesAck: ignore,
    onOpened: ignore,
    onPing: ignore,
    onPong: ignore,
    onHeard: ignore,
    onTraffic: ignore,
    onIce: ignore,
    onSwitchRequest: ignore,
    onPath: ignore
  })
  const sent: Array<Recorded> = []
  let count = 0
  const clocks = { client: 0, connector: 0 }
  const held: Array<{ stamp: number; deliver: () => void }> = []
  const carry =
    (from: "client" | "connector", to: "client" | "connector", router: PacketRouter) => (frames: Uint8Array) => {
      const stamp = clocks[from] + 1
      const copy = Buffer.from(frames)
      if (from === "client") sent.push({ frames: Buffer.from(frames), stamp }) // QUIC opens packets in place
      for (let at = 0; at < copy.length; at += Frame.lengthAt(copy, at)) {
        const frame = copy.subarray(at, at + Frame.lengthAt(copy, at))
        if (++count % it.lostOf === 0) continue
        const deliver = () =>
          void setImmediate(() => {
            clocks[to] = Math.max(clocks[to], stamp)
            router.onLinkFrames(frame)
          })
        if (stamp > it.limit) held.push({ stamp, deliver })
        else deliver()
      }
    }
  client.carriers.set(Frame.tagFromHex(ticket.clientTag), carry("client", "connector", connector.router))
  connector.carriers.set(Frame.tagFromHex(ticket.connectorTag), carry("connector", "client", client.router))
  const claim = connector.ticketKeys.claim(client.key, id, connector.now())
  if (claim._tag === "Spent") throw new Error("the session has begun before")
  const it: Link = {
    id,
    closed,
    up,
    sent,
    limit: options.limit ?? Infinity,
    lostOf: Infinity,
    connector: new FlowSession(connector, { ticket, grant }, events("connector"), options.ticketKey ?? claim.ticketKey),
    client: new FlowSession(client, { ticket, grant }, events("client")),
    release: (limit) => {
      it.limit = limit
      for (const { deliver, stamp } of held.splice(0)) if (stamp <= limit) deliver()
    },
    inject: (frames) => {
      const copy = Buffer.from(frames)
      for (let at = 0; at < copy.length; at += Frame.lengthAt(copy, at)) {
        Frame.writeTag(copy, at + 2, Frame.tagFromHex(ticket.clientTag))
      }
      connector.router.onLinkFrames(copy)
    }
  }
  return it
}

const ignore = () => undefined

const grantOf = (clientKey: NodeKey, connectorKey: NodeKey, port: number, nowSeconds: number): Grant => ({
  id: "1",
  clientKey,
  clientName: "client",
  connectorKey,
  connectorName: "connector",
  resources: [{
    name: "r",
    network: "n",
    address: "127.0.0.1",
    tcp: [{ from: port, to: port }],
    udp: [],
    allowLoopback: true
  }],
  issuedAt: nowSeconds - 1,
  expiresAt: nowSeconds + 299
})

export interface Resource {
  readonly port: number
  /** Connections that were ever opened to it. */
  readonly opened: () => number
  readonly received: () => string
  readonly close: () => void
}

/** Says "hello" to whoever connects, and keeps what it is told. */
export const startResource = async (): Promise<Resource> => {
  let opened = 0
  let received = ""
  const server = net.createServer((socket) => {
    opened += 1
    socket.on("error", ignore)
    socket.on("data", (data) => {
      received += data.toString("latin1")
    })
    socket.write("hello")
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  return {
    port: (server.address() as net.AddressInfo).port,
    opened: () => opened,
    received: () => received,
    close: () => server.close()
  }
}

export interface Flow {
  answer: Answer | null
  readonly text: () => string
  readonly write: (text: string) => void
}

/** As soon as the client takes flows. */
export const openFlow = async (it: Link, port: number): Promise<Flow> => {
  await settled("the client takes flows", () => it.up.client)
  let text = ""
  const flow: Flow = { answer: null, text: () => text, write: () => undefined }
  it.client.openFlow({ kind: "tcp", host: "127.0.0.1", port, traceparent: null }, (answer) => {
    flow.answer = answer
    if (answer._tag === "Rejected") return
    text += Buffer.from(answer.rest).toString("latin1")
    const { stream } = answer
    const read = () => {
      for (let got = stream.read(space); got > READ_NOTHING && got !== 0; got = stream.read(space)) {
        text += space.toString("latin1", 0, got)
      }
    }
    stream.handler = { onReadable: read, onWritable: ignore, onClosed: ignore }
    Object.assign(flow, { write: (words: string) => stream.write(Buffer.from(words)) })
    read()
  })
  return flow
}

const space = Buffer.alloc(65_536)

export const settled = async (what: string, test: () => boolean): Promise<void> => {
  const deadline = performance.now() + HANG_MS
  while (!test()) {
    if (performance.now() > deadline) throw new Error(`not within ${HANG_MS} ms: ${what}`)
    await Effect.runPromise(Effect.sleep("1 millis"))
  }
}
