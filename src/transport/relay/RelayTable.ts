/**
 * Nodes that are bound at a relay, and the sessions that join them. The table is bounded, and
 * nothing is entered before its signatures were verified.
 */
import * as Frame from "../../protocol/bytes/Frame.ts"
import { TokenBucket } from "../../protocol/bytes/TokenBucket.ts"
import type { LegKind, LinkKind } from "../../protocol/path/PathKind.ts"
import type { Ticket } from "../../protocol/trust/Documents.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"

/** Connection to an authenticated node. It carries relayed frames where UDP is blocked. */
export interface Link {
  readonly kind: LinkKind
  /** Sends one or more whole frames, back to back. The link owns the bytes from now on. */
  readonly send: (frames: Uint8Array) => void
  /** Bytes that wait in this process to be sent. */
  readonly bufferedBytes: () => number
}

/** A node's UDP leg: one 5-tuple. */
export interface UdpLeg {
  /** IP address of the node, as the relay sees it. */
  readonly address: string
  readonly port: number
  /** Number of the relay's socket. */
  readonly socket: number
  /** When the credential expires, in milliseconds (monotonic). */
  readonly endsAt: number
}

/** One end of a session. */
export class Half {
  /** Tag of the frames that the owner sends. */
  readonly tag: number
  readonly key: NodeKey
  readonly session: Session
  /** Node that has opened this end. `null` until then, and after that node has gone. */
  owner: Node | null = null

  constructor(session: Session, tag: number, key: NodeKey) {
    this.session = session
    this.tag = tag
    this.key = key
  }

  /** The other end of the session. */
  get peer(): Half {
    const { client, connector } = this.session
    return this === client ? connector : client
  }
}

/** Session between a client and a connector. */
export class Session {
  readonly id: string
  readonly client: Half
  readonly connector: Half
  /** When the last ticket expires, in milliseconds (monotonic). */
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

/** A node that is bound with a UDP leg, over a link, or both. */
export class Node {
  /** Public key of the node. */
  readonly key: NodeKey
  /** Secret that proves the relay's notices to the node. */
  readonly mark: Uint8Array
  /** Rate limit for frames that the node sends to others, in bytes. */
  readonly bucket: TokenBucket
  /** Rate limit for control messages to the relay, in messages. */
  readonly control: TokenBucket
  /** Ends of the sessions that the node has open, by session id. */
  readonly halves = new Map<string, Half>()
  udp: UdpLeg | null = null
  /** The node's link. `null` if it has none. */
  link: Link | null = null
  /**
   * Whether frames are sent over the link although a UDP leg exists. Of the two, the one that was
   * bound last is used.
   */
  onLink = false
  /** When the last frame arrived over UDP, in milliseconds. */
  seenAt = 0
  /** When the node was last notified of its rate limit, in milliseconds. */
  limitedAt = -Infinity
  /** When a foreign 5-tuple was last answered with a rebind notice, in milliseconds. */
  rebindAt = -Infinity

  constructor(key: NodeKey, mark: Uint8Array, bucket: TokenBucket, now: number) {
    this.key = key
    this.mark = mark
    this.bucket = bucket
    this.control = new TokenBucket(CONTROL_PER_SECOND, CONTROL_BURST, now)
  }

  /**
   * Link by which frames are sent to the node. `null` if they are sent over UDP, or cannot be sent.
   */
  get viaLink(): Link | null {
    return this.onLink || this.udp === null ? this.link : null
  }

  /** Leg by which frames are sent to the node. `null` if there is none. */
  get leg(): LegKind | null {
    return this.viaLink?.kind ?? (this.udp === null ? null : "relay-udp")
  }
}

/** Bounds of the table, and the rate limit of each node. */
export interface Limits {
  /** Most bound nodes. If there are more, the relay refuses them with `full`. */
  readonly nodes: number
  /**
   * Most sessions that are open at the relay. If there are more, the relay refuses them with
   * `full`.
   */
  readonly sessions: number
  /** Most sessions of one node. If there are more, the relay refuses them with `full`. */
  readonly sessionsPerNode: number
  /** Bytes per second that one node may send. */
  readonly bytesPerSecond: number
  /** Bytes that one node may send at once. */
  readonly burstBytes: number
}

/** Control messages per second of one node: pings and opened sessions. */
const CONTROL_PER_SECOND = 100
/** Burst of control messages: enough for a node that opens all its sessions again. */
const CONTROL_BURST = 500
/** Smallest burst: one read of a socket. A smaller one would never let a full read through. */
const MIN_BURST_BYTES = 64 * 1024

export const DEFAULT_LIMITS: Limits = {
  nodes: 10_000,
  sessions: 100_000,
  sessionsPerNode: 1000,
  bytesPerSecond: 125_000_000, // 1 Gbit/s
  burstBytes: 4 * 1024 * 1024
}

/** The nodes and sessions of one relay. */
export class RelayTable {
  readonly limits: Limits
  readonly nodes = new Map<NodeKey, Node>()
  readonly sessions = new Map<string, Session>()
  readonly #byTag = new Map<number, Half>()
  readonly #bySource = new Map<string, Node>()

  constructor(limits: Limits) {
    this.limits = limits
  }

  /**
   * Returns the end whose owner sends frames with this tag. `undefined` if no session has the tag.
   */
  halfOf(tag: number): Half | undefined {
    return this.#byTag.get(tag)
  }

  /** Returns the node whose UDP leg is this 5-tuple. `undefined` if there is none. */
  nodeAt(address: string, port: number, socket: number): Node | undefined {
    return this.#bySource.get(sourceKey(address, port, socket))
  }

  /** Returns the node with this key, and adds it if necessary. `null` if the table is full. */
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

  /** Binds the node's UDP leg. It replaces an earlier one. */
  bindUdp(node: Node, leg: UdpLeg, now: number): void {
    const before = this.nodeAt(leg.address, leg.port, leg.socket)
    // its NAT has given the 5-tuple to another node
    if (before !== undefined && before !== node) before.udp = null
    this.unbindUdp(node)
    node.udp = leg
    node.onLink = false
    node.seenAt = now
    this.#bySource.set(sourceKey(leg.address, leg.port, leg.socket), node)
  }

  /** Removes the node's UDP leg. The node itself stays in the table. */
  unbindUdp(node: Node): void {
    if (node.udp === null) return
    this.#bySource.delete(sourceKey(node.udp.address, node.udp.port, node.udp.socket))
    node.udp = null
  }

  /** Removes a node that has no leg, and the node's ends of its sessions. */
  removeNode(node: Node): void {
    this.unbindUdp(node)
    node.link = null
    for (const half of node.halves.values()) this.closeHalf(half)
    this.nodes.delete(node.key)
  }

  /**
   * Returns the ticket's session, and adds it if necessary. `null` if its tags belong to another
   * session, or if the session is known with other ends or tags.
   */
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

  /** Makes `node` the owner of a session's end. */
  openHalf(half: Half, node: Node): void {
    half.owner = node
    node.halves.set(half.session.id, half)
  }

  /** Closes one end of a session. A session without an open end is removed. */
  closeHalf(half: Half): void {
    half.owner?.halves.delete(half.session.id)
    half.owner = null
    if (half.peer.owner === null) this.removeSession(half.session)
  }

  /** Removes a session with both its ends. */
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
