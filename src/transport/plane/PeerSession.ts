/**
 * A session with one peer in the data plane: the QUIC connection, the paths in its slots, the key
 * that seals its path messages, and counters. It reports through `events` and makes no decisions
 * about paths.
 */
import { randomBytes } from "node:crypto"
import * as Frame from "../../protocol/bytes/Frame.ts"
import type { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import type { Candidate, Mapping } from "../../protocol/candidate/Candidate.ts"
import * as PathMessage from "../../protocol/path/PathMessage.ts"
import { BASE_BYTES } from "../../protocol/path/PathMtu.ts"
import {
  direct,
  isFirstRelay,
  keyOf,
  type PathRef,
  RELAY,
  type Role,
  type SwitchReason,
  viaRelay
} from "../../protocol/path/PathRef.ts"
import type { Opened } from "../../protocol/path/PortGuess.ts"
import { ProbeSeal } from "../probe/ProbeSeal.ts"
import { type QuicEngine, SLOTS } from "../quic/engine/QuicEngine.ts"
import type { Resumption } from "../quic/engine/Resumption.ts"
import { CloseCode, type CloseReason, QuicSession, type SlotPath } from "../quic/QuicSession.ts"
import type { QuicStream } from "../quic/QuicStream.ts"
import { Consent } from "./Consent.ts"
import type { Endpoint, PacketRouter } from "./PacketRouter.ts"
import { addressKey, RELAY_SLOT, Slots } from "./Slots.ts"

/**
 * Time in milliseconds for which packets of a closed session are still accepted: three probe
 * timeouts of a slow path (RFC 9000, section 10.2).
 */
const DRAIN_MS = 3_000
/** Most unanswered pings that are remembered. One more replaces the oldest. */
const MAX_PINGS = 256
/**
 * If a pong arrives while an earlier ping, sent at least this long ago, is still unanswered, the
 * path was down and has recovered. Milliseconds.
 */
const OUTAGE_MS = 250
/**
 * Shortest time between two attempts to move to a chosen path that QUIC has not validated, in
 * milliseconds.
 */
const FOLLOW_MS = 300
/** Most paths whose packet size and mapped address are remembered. One more replaces the oldest. */
const MAX_SEEN = 16

/** Callbacks of a session's data plane. */
export interface PeerSessionEvents {
  /**
   * Called once, when the session can be used because the peer has proved the pinned key. On a
   * client that resumes a session, it is called before that proof; only a peer with that key can
   * read what the client sends.
   */
  readonly onUp: () => void
  /** Called when the peer has opened a stream. */
  readonly onStream: (stream: QuicStream) => void
  /** Called once, when the session has ended. */
  readonly onDown: (reason: CloseReason) => void
  /** Called with each list of candidates from the peer. */
  readonly onCandidates: (seq: number, list: ReadonlyArray<Candidate>, mapping: Mapping | undefined) => void
  /** Called when the peer has acknowledged this node's list of candidates. */
  readonly onCandidatesAck: (seq: number) => void
  /** Called for each authenticated ping of the peer. */
  readonly onPing: (path: PathRef) => void
  /** Called for each answer to a ping. */
  readonly onPong: (path: PathRef, txId: string, rttMs: number, observed: SocketAddr | null) => void
  /**
   * Called when packets came by `path`, the path in use, although a ping sent before them is
   * unanswered. At most once for each ping.
   */
  readonly onHeard: (path: PathRef) => void
  /** Called when QUIC packets begin to move, and when none has moved for about a second. */
  readonly onTraffic: (moving: boolean) => void
  /** Called on a client when the connector asks to leave the path in use, with the reason. */
  readonly onSwitchRequest: (reason: SwitchReason) => void
  /** Called when the peer has opened its sockets for port prediction. */
  readonly onOpened: (opened: Opened) => void
  /** Called when the session has moved: its packets leave and arrive by `path` now. */
  readonly onPath: (path: PathRef) => void
}

/** Options of {@link PeerSession}. */
export interface PeerSessionOptions {
  readonly id: string
  readonly role: Role
  /** The peer's pinned Ed25519 key, base64url. */
  readonly peerKey: string
  readonly peerName: string
  /** Tag of the relayed frames that this node sends. */
  readonly sendTag: number
  /** Tag of the relayed frames that the peer sends. */
  readonly receiveTag: number
  readonly router: PacketRouter
  /** The QUIC library. */
  readonly engine: QuicEngine
  readonly resumption: Resumption
  /** Called on a client with TLS state from which a later session with this peer can resume. */
  readonly onSavedSession: (session: Uint8Array) => void
  readonly certificate: string
  readonly privateKey: string
  /** Returns the Ed25519 key of a certificate, base64url. `null` if it has none. */
  readonly keyOfCertificate: (der: Uint8Array) => string | null
  readonly events: PeerSessionEvents
  /** Returns the current time in milliseconds (monotonic). */
  readonly now: () => number
}

/** The data plane of one session. The path prober decides which path it uses. */
export class PeerSession implements Endpoint {
  readonly id: string
  readonly role: Role
  readonly peerKey: string
  readonly peerName: string
  readonly quic: QuicSession
  readonly #options: PeerSessionOptions
  readonly #router: PacketRouter
  readonly #slots = new Slots()
  readonly #consent = new Consent()
  readonly #pings = new Map<string, { readonly at: number; readonly path: PathRef; readonly padded: boolean }>()
  #seal: ProbeSeal | null = null
  /** Packets received, by slot. */
  readonly #packetsIn = new Float64Array(SLOTS)
  /** The last ping by the path in use, and the number of packets received in its slot before it. */
  #asked = { txId: "", slot: RELAY_SLOT, packetsIn: 0 }
  #up = false
  /** The path that a client wants to use. It moves there as soon as QUIC has validated the path. */
  #wanted: PathRef = RELAY
  /** When QUIC was last asked to move to `#wanted`. */
  #followedAt = -Infinity
  /**
   * When the first message that the peer must answer at once was sent. `Infinity` if the peer has
   * been heard since.
   */
  #askedAt = Infinity
  /** Whether the peer has sent anything since the last `tick`. */
  #isHeard = true
  #heardAt = 0
  /**
   * Address key under which each of the client's paths last came, by the client's number for the
   * path. Only on a connector.
   */
  readonly #peerPaths = new Map<number, string>()
  /** This node's address as the peer last saw it (an `addressKey`), by path. */
  readonly #seenAs = new Map<string, string>()
  /** Packet sizes that paths were found to carry, in bytes. */
  readonly #sizes = new Map<string, number>()
  /** Bytes of packets received in this session. */
  bytesIn = 0
  /** Bytes of packets sent in this session. */
  bytesOut = 0
  #moving = true
  /** Bytes that had moved at the last `tick`. */
  #bytesThen = -1

  constructor(options: PeerSessionOptions) {
    this.#options = options
    this.id = options.id
    this.role = options.role
    this.peerKey = options.peerKey
    this.peerName = options.peerName
    this.#router = options.router
    this.quic = new QuicSession({
      engine: options.engine,
      role: options.role,
      certificate: options.certificate,
      privateKey: options.privateKey,
      slot: RELAY_SLOT,
      path: this.#slotPath(RELAY),
      transmit: (slot, buffer, length, segment, count) => this.#transmit(slot, buffer, length, segment, count),
      resumption: options.resumption,
      onSavedSession: options.onSavedSession,
      onEarly: (certificate) => this.#onEarly(certificate),
      onEstablished: (certificate) => this.#onEstablished(certificate),
      onStream: (stream) => options.events.onStream(stream),
      onClosed: (reason) => this.#onClosed(reason),
      onPathValidated: (slot) => this.#onPathValidated(slot),
      onPeerMigrated: (slot) => this.#onMoved(slot),
      now: options.now
    })
    this.#router.addTag(options.receiveTag, this)
  }

  /** Tags of the relayed frames: those of this node and those of the peer. */
  get tags(): { readonly send: number; readonly receive: number } {
    return { send: this.#options.sendTag, receive: this.#options.receiveTag }
  }

  /**
   * Checks whether QUIC packets have moved since the last call. The caller calls it once a second.
   * Data that waits to be sent counts as moving.
   */
  tick(): void {
    const bytes = this.bytesIn + this.bytesOut
    const isStill = bytes === this.#bytesThen && !this.quic.hasWaiting
    this.#bytesThen = bytes
    if (isStill && this.#up) this.#setMoving(false)
    if (this.#isHeard) this.#heardAt = this.#options.now()
    this.#isHeard = false
  }

  /** How long the peer has sent nothing, in milliseconds, as of the last `tick`. */
  get unheardMs(): number {
    return this.#isHeard ? 0 : this.#options.now() - this.#heardAt
  }

  /** Whether QUIC packets have moved in about the last second. */
  get moving(): boolean {
    return this.#moving
  }

  #setMoving(moving: boolean): void {
    if (this.#moving === moving) return
    this.#moving = moving
    if (this.#up) this.#options.events.onTraffic(moving)
  }

  get up(): boolean {
    return this.#up
  }

  /** The path by which packets leave. */
  get path(): PathRef {
    return this.#slots.pathOf(this.quic.activeSlot) ?? RELAY
  }

  /**
   * How long the peer has sent nothing although it must answer, in milliseconds. 0 if no answer is
   * expected.
   */
  get silentMs(): number {
    return Math.max(0, this.#options.now() - this.#askedAt)
  }

  /** Notes that a message was sent that the peer answers at once, such as the Open of a flow. */
  expectAnswer(): void {
    if (this.#askedAt === Infinity) this.#askedAt = this.#options.now()
  }

  // ---- packets

  onPacket(bytes: Uint8Array, offset: number, length: number, remote: string | null): void {
    const slot = remote === null ? RELAY_SLOT : this.#slots.slotOf(remote)
    if (slot < 0) return
    this.#askedAt = Infinity
    this.#isHeard = true
    this.bytesIn += length
    if (!this.#moving) this.#setMoving(true)
    this.#packetsIn[slot]! += 1
    this.#consent.onReceived(slot, length)
    this.quic.receive(slot, bytes, offset, length)
    this.quic.schedule()
  }

  #transmit(slot: number, buffer: Buffer, length: number, segment: number, count: number): void {
    const path = this.#slots.pathOf(slot)
    if (path === null) return
    // Without consent the packets are dropped, which QUIC treats as loss.
    if (path.kind === "direct" && !this.#consent.take(slot, length, this.#options.now())) return
    this.bytesOut += length
    if (!this.#moving) this.#setMoving(true)
    if (path.kind === "relay") {
      for (let i = 0; i < count; i++) {
        const at = i * segment
        Frame.writeRelayedHead(buffer, at, Math.min(segment, length - at), this.#options.sendTag)
      }
      this.#router.sendRelayed(buffer, length, segment, path.relay)
      return
    }
    for (let i = 0; i < count; i++) {
      const at = i * segment
      Frame.writeDirectHead(buffer, at, Math.min(segment, length - at))
    }
    this.#router.sendDirect(path, buffer, length, segment)
  }

  // ---- paths

  /**
   * Sets the session's secret, which both sides have exchanged over QUIC. Path messages work from
   * then on.
   */
  useSecret(secret: Uint8Array): void {
    if (this.#seal !== null) return
    this.#seal = new ProbeSeal({ secret, role: this.role })
    this.#router.addHint(this.#seal.hintIn, this)
  }

  /** Sends a ping. Returns `false` if the secret is not known yet. `padTo` as in `PathMessage`. */
  sendPing(path: PathRef, txId: string, padTo: number): boolean {
    if (this.#seal === null) return false
    if (this.#pings.size >= MAX_PINGS) {
      const [oldest] = this.#pings.keys()
      if (oldest !== undefined) this.#pings.delete(oldest)
    }
    this.#pings.set(txId, { at: this.#options.now(), path, padded: padTo > PathMessage.MIN_PING_BYTES })
    const active = keyOf(path) === keyOf(this.path)
    if (active) this.#onAsking(path, txId)
    const flags = active ? PathMessage.FLAG_ACTIVE : 0
    this.#sendMessage(path, { _tag: "Ping", txId: Buffer.from(txId, "hex"), pathId: this.#idOf(path), flags, padTo })
    return true
  }

  #onAsking(path: PathRef, txId: string): void {
    const before = this.#asked
    const slot = this.quic.activeSlot
    const packetsIn = this.#packetsIn[slot]!
    this.#asked = { txId, slot, packetsIn }
    this.expectAnswer()
    if (before.slot === slot && packetsIn > before.packetsIn && this.#pings.has(before.txId)) {
      this.#options.events.onHeard(path)
    }
  }

  /** Sends a message by the home relay and by every other path that has a slot. */
  sendOnAllPaths(message: PathMessage.PathMessage): void {
    for (const path of [RELAY, ...this.#slots.otherPaths()]) this.#sendMessage(path, message)
  }

  /**
   * Seals a path message that will reach the peer by other means than a path, such as signaling.
   * `null` if the secret is not known yet.
   */
  sealed(message: PathMessage.PathMessage): Uint8Array | null {
    return this.#seal?.seal(PathMessage.encode(message)) ?? null
  }

  /**
   * Chooses the path for packets. Client only. If QUIC has not validated the path yet, the session
   * moves as soon as it has. `broken`: whether the path in use is broken.
   */
  select(path: PathRef, broken = false): void {
    if (this.role !== "client" || !this.#up) return
    if (broken && path.kind === "direct" && this.#isSamePathToPeer(path)) {
      // This replaces the address under the slot. A migration would wait for the answer to a
      // challenge, which the peer cannot send on a path whose congestion window is full of lost
      // packets; and for the peer's QUIC nothing has changed.
      this.#wanted = path
      return this.#putUnder(this.quic.activeSlot, path)
    }
    this.#wanted = path
    this.#follow()
  }

  /**
   * Asks QUIC to validate the wanted path, or moves there if it is validated. A challenge or its
   * answer may be lost, and QUIC gives up after three, so this is repeated when a pong shows that
   * the path works.
   */
  #follow(): void {
    this.#followedAt = this.#options.now()
    const slot = isFirstRelay(this.#wanted) ? RELAY_SLOT : this.#prove(this.#wanted)
    if (slot === this.quic.activeSlot) return
    if (this.quic.isValidated(slot) && this.quic.migrate(slot)) this.#onMoved(slot)
    else this.quic.probeSlot(slot)
  }

  #isWaitingFor(path: PathRef): boolean {
    return this.role === "client" && this.#up && keyOf(this.#wanted) === keyOf(path) && keyOf(this.path) !== keyOf(path)
  }

  /** Limits packets that leave by `path` to `bytes` bytes. */
  setPacketSize(path: PathRef, bytes: number): void {
    const key = keyOf(path)
    remember(this.#sizes, key, bytes)
    const slot = this.#slots.slotOf(key)
    if (slot >= 0) this.quic.adjustSlot(slot, this.#slotPath(path))
  }

  #slotPath(path: PathRef): SlotPath {
    const headBytes = path.kind === "relay" ? Frame.RELAYED_HEAD_BYTES : Frame.DIRECT_HEAD_BYTES
    return { headBytes, maxPacket: this.#sizes.get(keyOf(path)) ?? BASE_BYTES }
  }

  /**
   * Whether the peer sees `path` and the path in use as the same one: the peer has moved, this node
   * has not, and the peer still sees this node at the same address.
   */
  #isSamePathToPeer(path: PathRef): boolean {
    const seenAs = this.#seenAs.get(keyOf(path))
    return this.path.kind === "direct" && keyOf(path) !== keyOf(this.path) && seenAs !== undefined &&
      seenAs === this.#seenAs.get(keyOf(this.path))
  }

  onSealed(bytes: Uint8Array, address: string | null, port: number, relay?: string): void {
    const plaintext = this.#seal?.open(bytes)
    if (plaintext === undefined || typeof plaintext === "string") return
    const message = PathMessage.decode(plaintext)
    if (message._tag === "Left") return
    this.#askedAt = Infinity
    this.#isHeard = true
    const path = address !== null ? direct({ host: address, port }) : relay === undefined ? RELAY : viaRelay(relay)
    if (path.kind === "direct") {
      this.#router.onProved(path.remote.host, path.remote.port)
      this.#admit(path, message.right)
      const slot = this.#slots.slotOf(keyOf(path))
      if (slot >= 0 && this.#consent.renew(slot, this.#options.now()) && slot === this.quic.activeSlot) {
        this.quic.revive()
      }
      if (slot >= 0) this.#prompt(slot, path, message.right, bytes.length)
    } else if (!isFirstRelay(path)) this.#prove(path)
    this.#onMessage(message.right, path)
  }

  /**
   * This node's number for a path, which it tells the peer. `null` if the path is not direct or has
   * no slot.
   */
  #idOf(path: PathRef): number | null {
    const slot = path.kind === "direct" ? this.#slots.slotOf(keyOf(path)) : -1
    return slot < 0 ? null : slot
  }

  /**
   * Lets the packets of an address reach QUIC, after its sender has proved to know the secret. A
   * connector keeps each of the client's paths in one slot, whatever address it comes from: if
   * quiche sees a new address with an old connection id (RFC 9000, section 9.3.3), it may fall
   * silent permanently.
   */
  #admit(path: PathRef & { readonly kind: "direct" }, message: PathMessage.PathMessage): void {
    if (this.role === "client") return void this.#prove(path)
    // Other messages do not carry the number of a path.
    if (message._tag !== "Ping" && message._tag !== "Pong") return
    const id = message.pathId
    const before = id === null ? undefined : this.#peerPaths.get(id)
    const key = keyOf(path)
    if (id !== null && id < SLOTS) this.#peerPaths.set(id, key)
    const slot = before === undefined || before === key ? -1 : this.#slots.slotOf(before)
    if (slot < 0 || this.#slots.slotOf(key) === this.quic.activeSlot) return void this.#prove(path)
    this.#putUnder(slot, path)
  }

  /** Puts another address into a slot without telling QUIC. */
  #putUnder(slot: number, path: PathRef & { readonly kind: "direct" }): void {
    this.#consent.move(this.#slots.slotOf(keyOf(path)), slot)
    const before = this.#slots.repoint(slot, path)
    if (before?.kind === "direct") this.#router.forgetAddress(before.remote.host, before.remote.port, this)
    this.#router.proveAddress(path.remote.host, path.remote.port, this)
    this.quic.pointSlot(slot, this.#slotPath(path))
    if (slot !== this.quic.activeSlot) return
    this.quic.revive()
    this.#onMoved(slot)
  }

  close(code: number, text: string): void {
    this.quic.close(code, text)
  }

  #onMessage(message: PathMessage.PathMessage, path: PathRef): void {
    const { events } = this.#options
    switch (message._tag) {
      case "Ping": {
        const observed = path.kind === "direct" ? path.remote : null
        this.#sendMessage(path, { _tag: "Pong", txId: message.txId, pathId: this.#idOf(path), observed })
        return events.onPing(path)
      }
      case "Pong": {
        const txId = Buffer.from(message.txId).toString("hex")
        const ping = this.#pings.get(txId)
        if (ping === undefined) return
        const now = this.#options.now()
        const missed = now - this.#settle(txId, ping.path)
        const isSeenAnew = this.#isSeenAnew(ping.path, message.observed)
        if (keyOf(ping.path) === keyOf(this.path)) {
          if (missed >= OUTAGE_MS || isSeenAnew) this.quic.revive()
          else this.quic.onPathAlive()
        } else if (this.#isWaitingFor(ping.path) && now - this.#followedAt >= FOLLOW_MS) this.#follow()
        return events.onPong(ping.path, txId, now - ping.at, message.observed)
      }
      case "Candidates": {
        this.#sendMessage(path, { _tag: "CandidatesAck", seq: message.seq })
        return events.onCandidates(message.seq, message.list, message.mapping)
      }
      case "CandidatesAck":
        return events.onCandidatesAck(message.seq)
      case "Switch":
        return events.onSwitchRequest(message.reason)
      case "Opened":
        return events.onOpened(message.opened)
    }
  }

  /**
   * Handles a sealed message from the address in this slot. If it proves that the peer is there,
   * packets that were held back may leave; if that is still unproved, the peer is asked.
   */
  #prompt(slot: number, path: PathRef, message: PathMessage.PathMessage, bytes: number): void {
    this.#consent.onReceived(slot, bytes)
    if (message._tag === "Pong" && this.#consent.onPong(slot, Buffer.from(message.txId).toString("hex"))) {
      if (slot === this.quic.activeSlot) this.quic.revive()
      // The last path challenge may have exceeded the bytes that were allowed.
      else if (this.#isWaitingFor(path)) this.#follow()
      return
    }
    const question = this.#consent.question(slot)
    if (question === null) return
    const txId = Buffer.from(question, "hex")
    this.#sendMessage(path, { _tag: "Ping", txId, pathId: this.#idOf(path), flags: 0, padTo: 0 })
  }

  /**
   * Handles a new binding at the relay, after a move or a restart. If the relay carries this
   * session, sending resumes at once.
   */
  onRelayBound(relay: PathRef): void {
    if (this.#up && keyOf(this.path) === keyOf(relay)) this.quic.revive()
  }

  /**
   * Whether the peer now sees this node at another address by `path`, because a NAT has remapped
   * it. The peer follows only when a QUIC packet comes from there, and a download alone sends none.
   */
  #isSeenAnew(path: PathRef, observed: SocketAddr | null): boolean {
    if (observed === null) return false
    const key = keyOf(path)
    const before = this.#seenAs.get(key)
    remember(this.#seenAs, key, addressKey(observed.host, observed.port))
    return before !== undefined && before !== this.#seenAs.get(key)
  }

  /**
   * Forgets an answered ping and those sent before it by the same path. Returns when the first of
   * the earlier ones was sent; `Infinity` if there were none.
   */
  #settle(answered: string, path: PathRef): number {
    const key = keyOf(path)
    let lostAt = Infinity
    for (const [txId, ping] of this.#pings) {
      if (keyOf(ping.path) !== key) continue
      this.#pings.delete(txId)
      if (txId === answered) break
      // A padded ping may just have been too large for the path.
      if (!ping.padded) lostAt = Math.min(lostAt, ping.at)
    }
    return lostAt
  }

  /** Gives a path a slot, so that its packets may reach QUIC. Returns the slot. */
  #prove(path: PathRef): number {
    const { evicted, fresh, slot } = this.#slots.take(path, this.quic.activeSlot)
    if (!fresh) return slot
    this.#consent.forget(slot)
    if (evicted?.kind === "direct") this.#router.forgetAddress(evicted.remote.host, evicted.remote.port, this)
    if (path.kind === "direct") this.#router.proveAddress(path.remote.host, path.remote.port, this)
    this.quic.pointSlot(slot, this.#slotPath(path))
    return slot
  }

  #onPathValidated(slot: number): void {
    const path = this.#slots.pathOf(slot)
    if (path !== null && this.#isWaitingFor(path) && this.quic.migrate(slot)) this.#onMoved(slot)
  }

  #onMoved(slot: number): void {
    this.#slots.touch(slot)
    this.#options.events.onPath(this.#slots.pathOf(slot) ?? RELAY)
  }

  #sendMessage(path: PathRef, message: PathMessage.PathMessage): void {
    if (this.#seal === null) return
    const sealed = this.#seal.seal(PathMessage.encode(message))
    const head = path.kind === "relay" ? Frame.RELAYED_HEAD_BYTES : Frame.DIRECT_HEAD_BYTES
    const frame = Buffer.allocUnsafe(head + sealed.length)
    frame.set(sealed, head)
    if (path.kind === "relay") {
      Frame.writeRelayedHead(frame, 0, frame.length, this.#options.sendTag)
      this.#router.sendRelayed(frame, frame.length, frame.length, path.relay)
      return
    }
    Frame.writeDirectHead(frame, 0, frame.length)
    this.#router.sendDirect(path, frame, frame.length, frame.length)
  }

  /**
   * Builds a ping for an address that is only guessed. Its answer is ignored. `null` if the secret
   * is not known yet.
   */
  guessFrame(): Uint8Array | null {
    const txId = randomBytes(PathMessage.TX_ID_BYTES)
    const padTo = PathMessage.MIN_PING_BYTES
    const sealed = this.sealed({ _tag: "Ping", txId, pathId: null, flags: 0, padTo })
    if (sealed === null) return null
    const frame = Buffer.allocUnsafe(Frame.DIRECT_HEAD_BYTES + sealed.length)
    frame.set(sealed, Frame.DIRECT_HEAD_BYTES)
    Frame.writeDirectHead(frame, 0, frame.length)
    return frame
  }

  /** Sends a message by the home relay only. */
  sendByRelay(message: PathMessage.PathMessage): void {
    this.#sendMessage(RELAY, message)
  }

  // ---- lifetime

  /**
   * Handles resumption. A ticket contains the certificate of the client in the earlier session, so
   * a connector knows the client from it.
   */
  #onEarly(certificate: Uint8Array | null): void {
    if (this.role === "connector") return this.#onEstablished(certificate)
    this.expectAnswer()
    this.#rise()
  }

  #onEstablished(certificate: Uint8Array | null): void {
    if (certificate !== null && this.#options.keyOfCertificate(certificate) === this.peerKey) return this.#rise()
    this.close(CloseCode.identity, "the certificate is not the peer's")
  }

  #rise(): void {
    if (this.#up) return
    this.#up = true
    this.#options.events.onUp()
  }

  #onClosed(reason: CloseReason): void {
    this.#up = false
    setTimeout(() => this.#leave(), DRAIN_MS).unref()
    this.#options.events.onDown(reason)
  }

  /**
   * Ends the routing of this session's packets. Until then QUIC repeats its close notice to a peer
   * that has not received it (RFC 9000, section 10.2).
   */
  #leave(): void {
    this.#router.removeTag(this.#options.receiveTag)
    if (this.#seal !== null) this.#router.removeHint(this.#seal.hintIn)
    for (const path of this.#slots.otherPaths()) {
      if (path.kind === "direct") this.#router.forgetAddress(path.remote.host, path.remote.port, this)
    }
  }
}

/** Sets a key as the latest one. If there are more than `MAX_SEEN`, the oldest is removed. */
const remember = <V>(map: Map<string, V>, key: string, value: V) => {
  map.delete(key)
  map.set(key, value)
  const [oldest] = map.keys()
  if (map.size > MAX_SEEN && oldest !== undefined) map.delete(oldest)
}

/** Generates a 32-byte secret for path messages. */
export const newSecret = (): Uint8Array => randomBytes(32)
