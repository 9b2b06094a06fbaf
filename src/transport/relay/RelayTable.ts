/** Who is bound at a relay, and which sessions join them. Bounded; nothing is entered before its signatures were verified. */
import type { Ticket } from "../../protocol/Documents.ts"
import * as Frame from "../../protocol/Frame.ts"
import type { NodeKey } from "../../protocol/NodeKey.ts"
import type { LegKind } from "../../protocol/RelayWire.ts"
import { TokenBucket } from "../../protocol/TokenBucket.ts"

/** A connection that carries relayed frames where UDP is blocked; its other end is an authenticated node. */
export interface Link {
  readonly kind: "relay-tcp" | "relay-h3"
  /** One or several whole frames, back to back. The bytes are the link's from now on. */
  readonly send: (frames: Uint8Array) => void
  /** What was sent and has not yet left. */
  readonly bufferedBytes: () => number
}

/** A node's UDP leg: one 5-tuple. */
export interface UdpLeg {
  readonly address: string
  readonly port: number
  /** Which of the relay's sockets. */
  readonly socket: number
  /** When the credential ends, by the relay's monotonic clock, milliseconds. */
  readonly endsAt: number
}

/** One end of a session. */
export class Half {
  /** Its owner sends with this. */
  readonly tag: number
  readonly key: NodeKey
  readonly session: Session
  /** Null until the owner has opened the session, and after it is gone. */
  owner: Node | null = null

  constructor(session: Session, tag: number, key: NodeKey) {
    this.session = session
    this.tag = tag
    this.key = key
  }

  get peer(): Half {
    const { client, connector } = this.session
    return this === client ? connector : client
  }
}

export class Session {
  readonly id: string
  readonly client: Half
  readonly connector: Half
  /** When the last ticket ends, by the relay's monotonic clock, milliseconds. */
  endsAt: number

  constructor(ticket: Ticket, endsAt: number) {
    this.id = ticket.session
    this.endsAt = endsAt
    this.client = new Half(this, Frame.tagFromHex(ticket.clientTag), ticket.clientKey)
    this.connector = new Half(this, Frame.tagFromHex(ticket.connectorTag), ticket.connectorKey)
  }

  /** Whether the ticket is for the same ends and tags. */
  agrees({ client, connector }: Session): boolean {
    return client.tag === this.client.tag && client.key === this.client.key &&
      connector.tag === this.connector.tag && connector.key === this.connector.key
  }
}

export class Node {
  readonly key: NodeKey
  /** Proves our notices to the node. */
  readonly mark: Uint8Array
  /** For what it sends to others, in bytes. */
  readonly bucket: TokenBucket
  /** For what it asks of the relay, in messages. */
  readonly control: TokenBucket
  readonly halves = new Map<string, Half>()
  udp: UdpLeg | null = null
  link: Link | null = null
  /** Which leg frames go out by: the one that came last, while it lasts. */
  onLink = false
  /** ms; the last frame by UDP. */
  seenAt = 0
  /** ms; when it was last told of its rate, and of a foreign 5-tuple. */
  limitedAt = -Infinity
  rebindAt = -Infinity

  constructor(key: NodeKey, mark: Uint8Array, bucket: TokenBucket, now: number) {
    this.key = key
    this.mark = mark
    this.bucket = bucket
    this.control = new TokenBucket(CONTROL_PER_SECOND, CONTROL_BURST, now)
  }

  /** The link by which frames go out; null: they go by UDP, or nowhere. */
  get viaLink(): Link | null {
    return this.onLink || this.udp === null ? this.link : null
  }

  get leg(): LegKind | null {
    return this.viaLink?.kind ?? (this.udp === null ? null : "relay-udp")
  }
}

export interface Limits {
  readonly nodes: number
  readonly sessions: number
  readonly sessionsPerNode: number
  /** Bytes a second that one node may send, and how many at once. */
  readonly bytesPerSecond: number
  readonly burstBytes: number
}

/** Pings and opened sessions; the burst is for a node that opens all its sessions again. */
const CONTROL_PER_SECOND = 100
const CONTROL_BURST = 500
/** One read of a socket: a smaller burst would never let it through. */
const MIN_BURST_BYTES = 64 * 1024

export const DEFAULT_LIMITS: Limits = {
  nodes: 10_000,
  sessions: 100_000,
  sessionsPerNode: 1000,
  bytesPerSecond: 125_000_000, // 1 Gbit/s
  burstBytes: 4 * 1024 * 1024
}

export class RelayTable {
  readonly limits: Limits
  readonly nodes = new Map<NodeKey, Node>()
  readonly sessions = new Map<string, Session>()
  readonly #byTag = new Map<number, Half>()
  readonly #bySource = new Map<string, Node>()

  constructor(limits: Limits) {
    this.limits = limits
  }

  halfOf(tag: number): Half | undefined {
    return this.#byTag.get(tag)
  }

  nodeAt(address: string, port: number, socket: number): Node | undefined {
    return this.#bySource.get(sourceKey(address, port, socket))
  }

  /** The node of this key, made if need be. Null: full. */
  node(key: NodeKey, mark: () => Uint8Array, now: number): Node | null {
    const known = this.nodes.get(key)
    if (known !== undefined) return known
    if (this.nodes.size >= this.limits.nodes) return null
    const node = new Node(
      key,
      mark(),
      new TokenBucket(this.limits.bytesPerSecond, Math.max(MIN_BURST_BYTES, this.limits.burstBytes), now),
      now
    )
    this.nodes.set(key, node)
    return node
  }

  bindUdp(node: Node, leg: UdpLeg, now: number): void {
    const before = this.nodeAt(leg.address, leg.port, leg.socket)
    if (before !== undefined && before !== node) before.udp = null // its NAT gave the 5-tuple to another
    this.unbindUdp(node)
    node.udp = leg
    node.onLink = false
    node.seenAt = now
    this.#bySource.set(sourceKey(leg.address, leg.port, leg.socket), node)
  }

  unbindUdp(node: Node): void {
    if (node.udp === null) return
    this.#bySource.delete(sourceKey(node.udp.address, node.udp.port, node.udp.socket))
    node.udp = null
  }

  /** Without a leg a node is forgotten, and with it its ends of sessions. */
  removeNode(node: Node): void {
    this.unbindUdp(node)
    node.link = null
    for (const half of node.halves.values()) this.closeHalf(half)
    this.nodes.delete(node.key)
  }

  /** The ticket's session, made if need be. Null: its tags are another session's, or its session has other ends or tags. */
  session(ticket: Ticket, endsAt: number): Session | "full" | null {
    const session = new Session(ticket, endsAt)
    const known = this.sessions.get(session.id)
    if (known !== undefined) {
      if (!known.agrees(session)) return null
      known.endsAt = Math.max(known.endsAt, endsAt)
      return known
    }
    if (this.#byTag.has(session.client.tag) || this.#byTag.has(session.connector.tag)) return null
    if (this.sessions.size >= this.limits.sessions) return "full"
    this.sessions.set(session.id, session)
    this.#byTag.set(session.client.tag, session.client)
    this.#byTag.set(session.connector.tag, session.connector)
    return session
  }

  openHalf(half: Half, node: Node): void {
    half.owner = node
    node.halves.set(half.session.id, half)
  }

  /** A session that neither end has open is gone. */
  closeHalf(half: Half): void {
    half.owner?.halves.delete(half.session.id)
    half.owner = null
    if (half.peer.owner === null) this.removeSession(half.session)
  }

  removeSession(session: Session): void {
    if (this.sessions.get(session.id) !== session) return
    this.sessions.delete(session.id)
    for (const half of [session.client, session.connector]) {
      half.owner?.halves.delete(session.id)
      half.owner = null
      this.#byTag.delete(half.tag)
    }
  }
}

const sourceKey = (address: string, port: number, socket: number): string => `${socket}|${port}|${address}`
