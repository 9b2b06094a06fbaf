/**
 * The relay's forwarding plane: it forwards frames from one bound node to the other node of an open
 * session.
 *
 * A plain class on the thread that owns the sockets. It allocates nothing per forwarded frame, and
 * keeps nothing for senders that have not proved their address, their credential and their key. It
 * never sees plaintext: frames carry QUIC between the two nodes.
 *
 * A data frame is accepted only from the leg with which the owner of its tag is bound. Both ends
 * must have opened the session.
 */
import { Either } from "effect"
import * as Frame from "../../protocol/bytes/Frame.ts"
import type { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import * as Stun from "../../protocol/nat/Stun.ts"
import type { LegKind } from "../../protocol/path/PathKind.ts"
import * as RelayWire from "../../protocol/relay/RelayWire.ts"
import { LIFETIMES } from "../../protocol/trust/Lifetimes.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import type { Signed } from "../../protocol/trust/Signed.ts"
import * as Crypto from "../../services/host/Crypto.ts"
import { DEFAULT_RATES, type Rates, RelayGate, type Verify } from "./RelayGate.ts"
import { makeStats, type Stats } from "./RelayStats.ts"
import { DEFAULT_LIMITS, type Half, type Limits, type Link, type Node, RelayTable } from "./RelayTable.ts"
import { StunServer } from "./StunServer.ts"

/** How long a UDP leg lasts without a frame from its node, in seconds. */
export const BINDING_SECONDS = LIFETIMES.binding
/**
 * How long a revoked node is refused: until its last credential (600 s) and its last ticket (3,600
 * s) have expired.
 */
export const REVOKED_MS = 3_700_000
/**
 * Frames of one buffer that together are no longer than this are forwarded as one datagram. No path
 * has a smaller MTU.
 */
const JOIN_BYTES = 1200
/**
 * Most bytes that may wait in a link: 64 ms at 125 Mbit/s. Further frames are dropped, because a
 * longer queue would only delay them.
 */
const LINK_QUEUE_BYTES = 1024 * 1024
/** Shortest interval between notices of one kind to one node. */
const NOTICE_GAP_MS = 250
/**
 * Number of slots for notices to senders that are not bound. Senders that share a slot also share
 * {@link NOTICE_GAP_MS}, which bounds all these notices to about 4,000 a second.
 */
const STRANGERS = 1024
/** Shortest interval between reports that a table is full. */
const FULL_GAP_MS = 60_000

/** The part of a UDP socket that the relay uses. */
export interface Output {
  send(bytes: Uint8Array, offset: number, length: number, port: number, address: string): void
  sendTrain(bytes: Uint8Array, length: number, segment: number, port: number, address: string, offset?: number): void
}

/** Options of the relay's forwarding plane. */
export interface Options {
  readonly verify: Verify
  /**
   * Name of the relay, as listed in the directory. Nodes name it when they bind. "" for the relay
   * that holds the directory.
   */
  readonly name?: string
  /** Returns the current time in milliseconds (monotonic). */
  readonly now: () => number
  /** Returns the present time of the directory's clock, in epoch seconds. */
  readonly epochSeconds: () => number
  /**
   * Returns for how long the directory has not been reached, in seconds. 0 while it is reached. A
   * document that was valid when it was last reached stays valid, and a revoked node stays revoked.
   * If omitted, the directory is always reached.
   */
  readonly outageSeconds?: () => number
  readonly limits?: Partial<Limits>
  readonly rates?: Partial<Rates>
  /** Called when a table is full, at most once a minute. The refused nodes are notified, too. */
  readonly onFull?: (table: "nodes" | "sessions") => void
  /**
   * Whether STUN requests shorter than the answer are answered, as browsers send them. A request of
   * 20 bytes then costs an answer of 32.
   */
  readonly answerShortStun?: boolean
}

/** Handle of a node's link, which its carrier keeps. */
export interface LinkLeg {
  readonly node: Node
  readonly link: Link
}

type From = { readonly address: string; readonly port: number }

/**
 * Forwarding plane of a relay: binds nodes and forwards frames between the two nodes of a session.
 */
export class RelayServer {
  /** Counters since the start. */
  readonly stats: Stats = makeStats()
  /** STUN server under the relay's rate limits. Its owner may give it more sockets. */
  readonly stun: StunServer
  readonly #ports: Array<Output | undefined> = []
  readonly #table: RelayTable
  readonly #gate: RelayGate
  readonly #options: Options
  /** Revoked nodes, and until when each is refused (monotonic, milliseconds). */
  readonly #revoked = new Map<NodeKey, number>()
  /** When senders that are not bound were last asked to bind (monotonic, milliseconds). */
  readonly #strangersAt = new Float64Array(STRANGERS).fill(-Infinity)
  #fullAt = -Infinity

  constructor(options: Options) {
    this.#options = options
    this.#table = new RelayTable({ ...DEFAULT_LIMITS, ...options.limits })
    const rates = { ...DEFAULT_RATES, ...options.rates }
    this.#gate = new RelayGate({ name: options.name ?? "", verify: options.verify, rates, now: options.now() })
    this.stun = new StunServer({
      mayAnswer: (address, now) => this.#gate.mayAnswerStun(address, now),
      stats: this.stats,
      now: options.now,
      allowLonger: options.answerShortStun === true
    })
  }

  /** Number of bound nodes. */
  get nodes(): number {
    return this.#table.nodes.size
  }

  /** Number of sessions that at least one end has open. */
  get sessions(): number {
    return this.#table.sessions.size
  }

  /**
   * Sets the socket by which answers to `onUdp(.., socket)` are sent. It replaces an earlier one.
   */
  setPort(socket: number, port: Output): void {
    this.#ports[socket] = port
    this.stun.setSocket(socket, port, null)
  }

  /**
   * Removes a socket whose address this machine has lost. Nodes that were bound there are reached
   * over their links, or must bind elsewhere.
   */
  dropSocket(socket: number): void {
    this.#ports[socket] = undefined
    this.stun.dropSocket(socket)
    for (const node of this.#table.nodes.values()) if (node.udp?.socket === socket) this.#unbindUdp(node)
  }

  /** Handles one read of a socket: one datagram, or several joined by the kernel. */
  onUdp(bytes: Uint8Array, from: From, socket: number): void {
    const now = this.#options.now()
    let at = 0
    while (at < bytes.length) {
      const kind = Frame.kindOfFirstByte(bytes[at]!)
      if (kind === Frame.Kind.stun) {
        const length = Stun.lengthAt(bytes, at)
        if (length === 0) return void this.stats.drops.malformed++
        this.stun.onMessage(bytes.subarray(at, at + length), from, socket, now)
        at += length
        continue
      }
      const length = kind === Frame.Kind.relayed ? Frame.lengthAt(bytes, at) : 0
      if (length === 0) return void this.stats.drops.malformed++
      const tag = Frame.tagAt(bytes, at)
      if (tag === Frame.CONTROL_TAG) {
        this.#onUdpControl(bytes.subarray(at, at + length), from, socket, now)
        at += length
      } else {
        const run = Frame.runAt(bytes, at)
        this.#onUdpData(bytes, at, run, length, tag, from, socket, now)
        at += run
      }
    }
  }

  /**
   * Attaches a link whose node its carrier has authenticated. `null` if the node is revoked or the
   * table is full; the carrier must then close the link.
   */
  attachLink(key: NodeKey, link: Link): LinkLeg | null {
    const now = this.#options.now()
    const node = this.#isRevoked(key, now) ? null : this.#table.node(key, newMark, now)
    if (node === null) {
      if (!this.#isRevoked(key, now)) this.#tellFull("nodes", now)
      return null
    }
    const before = node.leg
    node.link = link
    node.onLink = true
    this.stats.bound.link++
    const nonce = new Uint8Array(RelayWire.NONCE_BYTES)
    link.send(RelayWire.encode({ _tag: "Bound", nonce, mark: node.mark, lifetimeSeconds: 0xffff, mapped: null }))
    this.#legChanged(node, before)
    return { node, link }
  }

  /** Detaches a link that has ended. The node's UDP leg is used again if it still has one. */
  detachLink(leg: LinkLeg): void {
    const { link, node } = leg
    if (node.link !== link) return
    const before = node.leg
    node.link = null
    node.onLink = false
    if (node.leg === null) this.#remove(node)
    else this.#legChanged(node, before)
  }

  /**
   * Handles whole frames from a link. Frames of a link that was detached or replaced are dropped.
   */
  onLinkFrames(leg: LinkLeg, bytes: Uint8Array): void {
    const now = this.#options.now()
    if (leg.node.link !== leg.link) return void this.stats.drops.unbound++
    let at = 0
    while (at < bytes.length) {
      const length = Frame.lengthAt(bytes, at)
      if (length === 0 || (bytes[at]! & 0xf0) !== 0x20) return void this.stats.drops.malformed++
      const tag = Frame.tagAt(bytes, at)
      if (tag === Frame.CONTROL_TAG) {
        this.#onLinkControl(leg, bytes.subarray(at, at + length), now)
        at += length
        continue
      }
      const run = Frame.runAt(bytes, at)
      const half = this.#table.halfOf(tag)
      if (half === undefined) this.stats.drops.unknownTag++
      else if (half.owner !== leg.node) this.stats.drops.foreignSource++
      else this.#forward(half, leg.node, bytes, at, run, length, now)
      at += run
    }
  }

  /**
   * Ends the node's binding and sessions at once. The node cannot bind again before `readmit`, or
   * before its documents have expired.
   */
  revoke(key: NodeKey): void {
    const now = this.#options.now()
    this.#revoked.set(key, now + REVOKED_MS)
    for (const session of this.#table.sessions.values()) {
      if (session.client.key === key || session.connector.key === key) this.#endSession(session.client)
    }
    const node = this.#table.nodes.get(key)
    if (node === undefined) return
    this.#send(node, { _tag: "Refused", nonce: node.mark, asked: "None", code: "revoked" })
    this.#remove(node)
  }

  /** Lets a revoked node bind again. */
  readmit(key: NodeKey): void {
    this.#revoked.delete(key)
  }

  /** Ends what has expired. Must be called about once a second. */
  tick(): void {
    const now = this.#options.now()
    const documentNow = now - this.#outageMs
    for (const node of this.#table.nodes.values()) {
      const { udp } = node
      const isOver = udp !== null && (now - node.seenAt >= BINDING_SECONDS * 1000 || documentNow >= udp.endsAt)
      if (isOver) this.#unbindUdp(node)
      else if (node.leg === null) this.#remove(node)
    }
    for (const session of this.#table.sessions.values()) {
      if (session.endsAt <= documentNow) this.#endSession(session.client)
    }
    for (const [key, until] of this.#revoked) if (until <= documentNow) this.#revoked.delete(key)
  }

  // ------------------------------------------------------------------------------------ forwarding

  #onUdpData(
    bytes: Uint8Array,
    at: number,
    run: number,
    length: number,
    tag: number,
    from: From,
    socket: number,
    now: number
  ): void {
    const half = this.#table.halfOf(tag)
    if (half === undefined) {
      this.stats.drops.unknownTag++
      return this.#tellStranger(tag, run, from, socket, now)
    }
    const node = half.owner
    if (node === null) {
      this.stats.drops.notOpen++
      return this.#tellStranger(tag, run, from, socket, now)
    }
    const { udp } = node
    if (udp === null || udp.port !== from.port || udp.address !== from.address || udp.socket !== socket) {
      this.stats.drops.foreignSource++
      return this.#tellRebind(node, tag, run, from, socket, now)
    }
    node.seenAt = now
    this.#forward(half, node, bytes, at, run, length, now)
  }

  /**
   * Forwards the `run` bytes from `at`: frames of `length` bytes with the half's tag, of which the
   * last may be shorter.
   */
  #forward(half: Half, node: Node, bytes: Uint8Array, at: number, run: number, length: number, now: number): void {
    const { drops } = this.stats
    if (length <= Frame.RELAYED_HEAD_BYTES) return void drops.malformed++
    const to = half.peer.owner
    if (to === null) return void drops.notOpen++
    if (!node.bucket.take(run, now)) {
      drops.rateLimited++
      return this.#tellRate(node, run, now)
    }
    const link = to.viaLink
    if (link !== null) {
      if (link.bufferedBytes() > LINK_QUEUE_BYTES) return void drops.linkFull++
      link.send(bytes.subarray(at, at + run))
    } else {
      const { udp } = to
      const port = udp === null ? undefined : this.#ports[udp.socket]
      if (udp === null || port === undefined) return void drops.unbound++
      if (run <= JOIN_BYTES) port.send(bytes, at, run, udp.port, udp.address)
      else port.sendTrain(bytes, run, length, udp.port, udp.address, at)
    }
    this.stats.forwarded.packets += length === run ? 1 : Math.ceil(run / length)
    this.stats.forwarded.bytes += run
  }

  #tellRate(node: Node, bytes: number, now: number): void {
    if (now - node.limitedAt < NOTICE_GAP_MS) return
    node.limitedAt = now
    this.#send(node, { _tag: "RateLimited", mark: node.mark, retryAfterMs: node.bucket.waitMs(bytes) })
  }

  /**
   * Asks the sender of a data frame from an unknown 5-tuple to bind again. A NAT may have given the
   * node another address, but only a new binding can prove that it is the node.
   */
  #tellRebind(node: Node, tag: number, received: number, from: From, socket: number, now: number): void {
    if (now - node.rebindAt < NOTICE_GAP_MS || !this.#gate.mayAnswer(from.address, now)) return
    node.rebindAt = now
    this.#sendRebind(tag, received, from, socket)
  }

  /**
   * Asks the sender of a data frame whose session is not open here to bind, unless it is bound. It
   * was probably bound before this relay restarted, and knows nothing of the restart yet. It opens
   * its sessions again when it is bound.
   */
  #tellStranger(tag: number, received: number, from: From, socket: number, now: number): void {
    if (this.#table.nodeAt(from.address, from.port, socket) !== undefined) return
    const slot = strangerSlot(from)
    if (now - this.#strangersAt[slot]! < NOTICE_GAP_MS || !this.#gate.mayAnswer(from.address, now)) return
    this.#strangersAt[slot] = now
    this.#sendRebind(tag, received, from, socket)
  }

  #sendRebind(tag: number, received: number, from: From, socket: number): void {
    const echo = new Uint8Array(RelayWire.NONCE_BYTES)
    Frame.writeTag(echo, RelayWire.NONCE_BYTES - Frame.TAG_BYTES, tag)
    this.#answer({ _tag: "Rebind", echo }, received, from, socket)
  }

  // --------------------------------------------------------------------------------------- control

  #onUdpControl(frame: Uint8Array, from: From, socket: number, now: number): void {
    const decoded = RelayWire.decode(frame)
    if (Either.isLeft(decoded)) return void this.stats.drops.malformed++
    const message = decoded.right
    const node = this.#table.nodeAt(from.address, from.port, socket)
    if (node === undefined || message._tag === "BindRequest" || message._tag === "Bind") {
      if (!this.#gate.mayAnswer(from.address, now)) return void this.stats.drops.overRate++
      return this.#onUnproved(message, frame.length, from, socket, now)
    }
    node.seenAt = now
    const answer = this.#onBound(node, message, from.address, now)
    const padTo = answer?._tag === "Pong" ? frame.length : 0
    if (answer !== null) this.#answer(answer, Infinity, from, socket, padTo)
  }

  #onLinkControl(leg: LinkLeg, frame: Uint8Array, now: number): void {
    const decoded = RelayWire.decode(frame)
    if (Either.isLeft(decoded)) return void this.stats.drops.malformed++
    const answer = this.#onBound(leg.node, decoded.right, null, now)
    if (answer !== null) leg.link.send(RelayWire.encode(answer))
  }

  /** Handles a message from an address that has proved nothing yet. */
  #onUnproved(message: RelayWire.Message, received: number, from: From, socket: number, now: number): void {
    if (message._tag === "BindRequest") {
      const cookie = this.#gate.cookieFor(from.address, from.port, socket, now)
      this.stats.answered.cookies++
      // A request longer than usual tests whether the path carries its size in both directions.
      const padTo = received > RelayWire.BIND_REQUEST_BYTES ? received : 0
      this.#answer({ _tag: "Cookie", nonce: message.nonce, cookie }, received, from, socket, padTo)
    } else if (message._tag === "Bind") {
      const bound = this.#bind(message, from, socket, now)
      if (typeof bound === "string") this.#refuse("Bind", message.nonce, bound, received, from, socket)
      else this.#answer(bound, received, from, socket)
    } else if (message._tag === "Open") this.#refuse("Open", message.nonce, "not_bound", received, from, socket)
    else if (message._tag === "Ping") this.#answer({ _tag: "Rebind", echo: message.echo }, received, from, socket)
    else this.stats.drops.unbound++
  }

  #bind(
    message: Extract<RelayWire.Message, { _tag: "Bind" }>,
    from: From,
    socket: number,
    now: number
  ): RelayWire.Message | RelayWire.Refusal {
    const { cookie, nonce, signature } = message
    if (!this.#gate.isCookie(cookie, from.address, from.port, socket, now)) return "bad_cookie"
    if (!this.#gate.mayVerify(from.address, 2, now)) return "busy"
    const seconds = this.#options.epochSeconds()
    const credential = this.#gate.credential(message.credential, seconds, this.#outageMs / 1000)
    if (typeof credential === "string") return credential
    if (!this.#gate.signedBy(credential.nodeKey, cookie, signature)) return "bad_signature"
    if (this.#isRevoked(credential.nodeKey, now)) return "revoked"
    const lifetimeSeconds = Math.min(
      BINDING_SECONDS,
      Math.floor(credential.expiresAt - seconds + this.#outageMs / 1000)
    )
    if (lifetimeSeconds <= 0) return "expired"
    const node = this.#table.node(credential.nodeKey, newMark, now)
    if (node === null) return this.#tellFull("nodes", now)
    const before = node.leg
    const displaced = this.#table.nodeAt(from.address, from.port, socket)
    const leg = {
      address: from.address,
      port: from.port,
      socket,
      endsAt: now + (credential.expiresAt - seconds) * 1000
    }
    this.#table.bindUdp(node, leg, now)
    if (displaced !== undefined && displaced !== node && displaced.leg === null) this.#remove(displaced)
    this.stats.bound.udp++
    this.#legChanged(node, before)
    const mapped: SocketAddr = { host: from.address, port: from.port }
    return { _tag: "Bound", nonce, mark: node.mark, lifetimeSeconds, mapped }
  }

  /**
   * Handles a message from a bound node and returns the answer, or `null` if there is none.
   * `address` is `null` if the message came over its link.
   */
  #onBound(node: Node, message: RelayWire.Message, address: string | null, now: number): RelayWire.Message | null {
    if (!node.control.take(1, now)) {
      this.stats.drops.overRate++
      return null
    }
    if (message._tag === "Ping") return { _tag: "Pong", echo: message.echo }
    if (message._tag === "Open") {
      const half = this.#open(node, message.ticket, address, now)
      if (typeof half !== "string") {
        return { _tag: "Opened", nonce: message.nonce, tag: half.tag, peerLeg: half.peer.owner?.leg ?? null }
      }
      this.stats.refused[half]++
      return { _tag: "Refused", nonce: message.nonce, asked: "Open", code: half }
    }
    if (message._tag === "Close") {
      const half = this.#table.halfOf(message.tag)
      if (half !== undefined && half.owner === node) this.#closeHalf(half)
    } else this.stats.drops.malformed++
    return null
  }

  #open(node: Node, signed: Signed, address: string | null, now: number): Half | RelayWire.Refusal {
    if (!this.#gate.mayVerify(address, 1, now)) return "busy"
    const seconds = this.#options.epochSeconds()
    const ticket = this.#gate.ticket(signed, seconds, this.#outageMs / 1000)
    if (typeof ticket === "string") return ticket
    if (ticket.expiresAt <= seconds - this.#outageMs / 1000) return "expired"
    if (ticket.clientKey !== node.key && ticket.connectorKey !== node.key) return "foreign_ticket"
    if (this.#isRevoked(ticket.clientKey, now) || this.#isRevoked(ticket.connectorKey, now)) return "revoked"
    const known = node.halves.has(ticket.session)
    if (!known && node.halves.size >= this.#table.limits.sessionsPerNode) return "full"
    const session = this.#table.session(ticket, now + (ticket.expiresAt - seconds) * 1000)
    if (session === null) return "bad_ticket"
    if (session === "full") return this.#tellFull("sessions", now)
    const half = session.client.key === node.key ? session.client : session.connector
    if (!known) {
      this.#table.openHalf(half, node)
      this.#tellLeg(half.peer, node.leg)
    }
    return half
  }

  // --------------------------------------------------------------------------------------- changes

  #isRevoked(key: NodeKey, now: number): boolean {
    return (this.#revoked.get(key) ?? -Infinity) > now - this.#outageMs
  }

  get #outageMs(): number {
    return (this.#options.outageSeconds?.() ?? 0) * 1000
  }

  #unbindUdp(node: Node): void {
    const before = node.leg
    this.#table.unbindUdp(node)
    if (node.leg === null) this.#remove(node)
    else this.#legChanged(node, before)
  }

  #remove(node: Node): void {
    for (const half of node.halves.values()) this.#tellLeg(half.peer, null)
    this.#table.removeNode(node)
  }

  #closeHalf(half: Half): void {
    this.#tellLeg(half.peer, null)
    this.#table.closeHalf(half)
  }

  #endSession(half: Half): void {
    this.#tellLeg(half, null)
    this.#tellLeg(half.peer, null)
    this.#table.removeSession(half.session)
  }

  #legChanged(node: Node, before: LegKind | null): void {
    if (node.leg === before) return
    for (const half of node.halves.values()) this.#tellLeg(half.peer, node.leg)
  }

  /**
   * Notifies the half's owner, if it has opened the session, over which leg its peer is reached
   * now.
   */
  #tellLeg(half: Half, peerLeg: LegKind | null): void {
    if (half.owner === null) return
    this.#send(half.owner, { _tag: "Leg", mark: half.owner.mark, tag: half.tag, peerLeg })
  }

  #tellFull(table: "nodes" | "sessions", now: number): "full" {
    if (now - this.#fullAt >= FULL_GAP_MS) {
      this.#fullAt = now
      this.#options.onFull?.(table)
    }
    return "full"
  }

  /** Sends a message over the leg with which the node is bound. */
  #send(node: Node, message: RelayWire.Message): void {
    const frame = RelayWire.encode(message)
    const link = node.viaLink
    if (link !== null) return link.send(frame)
    if (node.udp === null) return
    this.#ports[node.udp.socket]?.send(frame, 0, frame.length, node.udp.port, node.udp.address)
  }

  #refuse(
    asked: RelayWire.Asked,
    nonce: Uint8Array,
    code: RelayWire.Refusal,
    received: number,
    from: From,
    socket: number
  ): void {
    this.stats.refused[code]++
    this.#answer({ _tag: "Refused", nonce, asked, code }, received, from, socket)
  }

  /** Answers a message, never with more bytes than were received. */
  #answer(message: RelayWire.Message, received: number, from: From, socket: number, padTo = 0): void {
    const frame = RelayWire.encode(message, padTo)
    if (frame.length > received) return void this.stats.drops.tooShort++
    this.#ports[socket]?.send(frame, 0, frame.length, from.port, from.address)
  }
}

/** Slot of a sender that is not bound. */
const strangerSlot = ({ address, port }: From): number => {
  let hash = port
  for (let at = 0; at < address.length; at++) hash = Math.imul(hash, 31) + address.charCodeAt(at) | 0
  return hash & (STRANGERS - 1)
}

const newMark = (): Uint8Array => Crypto.randomBytes(RelayWire.NONCE_BYTES)
