/**
 * Routes every datagram of a node, in both directions. One router has the node's UDP sockets and
 * its relay leg. It tells what arrives apart by its first byte (like RFC 9443) and passes it to its
 * session, or to the reader of STUN or of the relay's control messages. Everything here is a hot
 * path: it is plain code that allocates nothing for each packet.
 *
 * It is also the gate in front of QUIC. A direct packet reaches a session only from an address that
 * has proved, by a sealed path message, to know the session's secret. A relayed packet reaches it
 * only under the tag of a live session, and from a relay of this node; while no UDP leg is bound,
 * the first relay's address is not checked. On a node that uses only relays, no direct packet
 * passes in either direction.
 */
import * as Frame from "../../protocol/bytes/Frame.ts"
import type { LinkKind } from "../../protocol/path/PathKind.ts"
import { isWebRtc, keyOf, type PathRef, viaRelay } from "../../protocol/path/PathRef.ts"
import { addressKey } from "./Slots.ts"
import { makeTraffic, type Traffic } from "./Traffic.ts"

/** The part of a UDP socket that the router uses. */
export interface Port {
  /** The last send that a firewall on this machine forbade. `null` if there was none. */
  readonly forbidden?: object | null
  /** Sends one datagram. It does not report whether that succeeded. */
  send(bytes: Uint8Array, offset: number, length: number, port: number, address: string): void
  /**
   * Sends adjacent datagrams of `segment` bytes (the last may be shorter), cut by the kernel where
   * it can.
   */
  sendTrain(bytes: Uint8Array, length: number, segment: number, port: number, address: string): void
}

/**
 * An extra socket for port prediction. It answers only addresses that have proved themselves
 * through it.
 */
export interface FurtherSocket {
  readonly port: Port
  /** Called when packets to the address leave by this socket from now on. */
  readonly onProved: (address: string, port: number) => void
}

/**
 * The connection that carries relayed frames between this node and its home relay. Frames that do
 * not fit in its queue are dropped.
 */
export type Leg =
  | { readonly kind: "relay-udp"; readonly family: 4 | 6; readonly address: string; readonly port: number }
  | { readonly kind: LinkKind; readonly send: (frames: Uint8Array) => void }

/** Another relay than that of the leg, reached over UDP. */
interface OtherRelay {
  readonly name: string
  /** Key of the path by this relay, as in `PathRef.keyOf`. */
  readonly key: string
  readonly family: 4 | 6
  readonly address: string
  readonly port: number
  readonly traffic: Traffic
  /** Whether this node is bound there. Before that only the relay's control messages come. */
  readonly bound: boolean
}

/** The router's view of a session. */
export interface Endpoint {
  /**
   * Called with each QUIC packet of the session. It is valid only during the call. `remote` is
   * `null` for the home relay, or else the key (`PathRef.keyOf`) of another relay or of a proved
   * address.
   */
  onPacket(bytes: Uint8Array, offset: number, length: number, remote: string | null): void
  /**
   * Called with each sealed path message, from any address. `address` is `null` if a relay carried
   * it; `relay` is then the relay's name, unless it is the home relay.
   */
  onSealed(bytes: Uint8Array, address: string | null, port: number, relay?: string): void
}

/** Counts of dropped datagrams and frames, by cause. */
export interface Counters {
  /** Datagrams that are no frame of a session. They were dropped before any cryptography. */
  strays: number
  /** QUIC packets from an address that had not proved itself. */
  unproved: number
  /** Relayed frames with a tag that no session has. */
  unknownTag: number
  /** Sealed messages with a hint that no session has. */
  unknownHint: number
  /** Direct frames that came while this node uses only relays. */
  relayOnly: number
}

/**
 * Callback for STUN messages, and for the relay's control frames with their heads. Both are valid
 * only during the call.
 */
export type OnControl = (kind: "stun" | "relay", bytes: Uint8Array, address: string, port: number) => void

/** Bit that is set in every QUIC packet of version 1 (RFC 9000, section 17.2). */
const QUIC_FIXED_BIT = 0x40
const SEALED = 0x01
const HINT_BYTES = 8
const STUN_HEADER_BYTES = 20

/**
 * Routes every packet of a node. The owners of the sockets and of the link pass what they read to
 * `onDatagrams` and `onLinkFrames`.
 */
export class PacketRouter {
  readonly counters: Counters = { strays: 0, unproved: 0, unknownTag: 0, unknownHint: 0, relayOnly: 0 }
  readonly traffic = makeTraffic()
  readonly #direct = this.traffic.direct
  readonly #relayUdp = this.traffic["relay-udp"]
  /**
   * Whether direct packets pass. Set to `false` to drop them in both directions, so that peers can
   * be reached only through relays.
   */
  direct = true
  /** Leg by which frames go to the home relay. `null` if there is none. */
  leg: Leg | null = null
  /** Socket for IPv4. `null` if there is none. */
  v4: Port | null = null
  /** Socket for IPv6. `null` if there is none. */
  v6: Port | null = null
  /** Relays other than the first. They are few, and searched for each relayed frame. */
  readonly #relays: Array<OtherRelay> = []
  readonly #byTag = new Map<number, Endpoint>()
  readonly #byAddress = new Map<string, Endpoint>()
  readonly #byHint = new Map<bigint, Endpoint>()
  /** Sockets of {@link FurtherSocket}, by the peer's address that each is for. */
  readonly #further = new Map<string, Port>()
  /**
   * The extra socket that received the current datagram. `null` if it was one of the usual sockets.
   */
  #arrivedBy: FurtherSocket | null = null
  readonly #onControl: OnControl
  // The address of the previous datagram and its session: a busy peer sends many in a row.
  #lastAddress = ""
  #lastPort = 0
  #lastKey = ""
  #lastEndpoint: Endpoint | undefined

  constructor(onControl: OnControl) {
    this.#onControl = onControl
  }

  /** Registers a session by the tag in the frames that its peer sends. */
  addTag(tag: number, endpoint: Endpoint): void {
    this.#byTag.set(tag, endpoint)
  }
  removeTag(tag: number): void {
    this.#byTag.delete(tag)
  }
  addHint(hint: Uint8Array, endpoint: Endpoint): void {
    this.#byHint.set(hintAt(hint, 0), endpoint)
  }
  removeHint(hint: Uint8Array): void {
    this.#byHint.delete(hintAt(hint, 0))
  }
  /**
   * Registers an address that has proved that it belongs to this session. An older session loses
   * the address.
   */
  proveAddress(address: string, port: number, endpoint: Endpoint): void {
    this.#byAddress.set(addressKey(address, port), endpoint)
    this.#lastAddress = ""
  }
  forgetAddress(address: string, port: number, endpoint: Endpoint): void {
    const key = addressKey(address, port)
    if (this.#byAddress.get(key) === endpoint) this.#byAddress.delete(key)
    this.#lastAddress = ""
  }

  /**
   * Adds or changes a relay other than the home relay, or removes it (`null`). Frames from it are
   * accepted from now on. Frames are sent by it while `bound` is set.
   */
  useRelay(name: string, at: Omit<OtherRelay, "name" | "key" | "traffic"> | null): void {
    const index = this.#relays.findIndex((relay) => relay.name === name)
    if (index >= 0) this.#relays.splice(index, 1)
    if (at === null) return
    const path = viaRelay(name)
    this.#relays.push({ ...at, name, key: keyOf(path), traffic: this.traffic[isWebRtc(path) ? "webrtc" : "relay-udp"] })
  }

  /** Names of the relays, except the home relay, at which this node is bound. */
  get boundRelays(): ReadonlyArray<string> {
    return this.#relays.flatMap(({ bound, name }) => (bound ? [name] : []))
  }

  portFor(family: 4 | 6): Port | null {
    return family === 4 ? this.v4 : this.v6
  }

  /** Returns the socket by which packets to a direct address leave. */
  portTo(family: 4 | 6, address: string, port: number): Port | null {
    if (this.#further.size === 0) return this.portFor(family)
    return this.#further.get(addressKey(address, port)) ?? this.portFor(family)
  }

  /** Handles a datagram that an extra socket received, as {@link onDatagrams} does. */
  onFurther(bytes: Buffer, from: { readonly address: string; readonly port: number }, by: FurtherSocket): void {
    this.#arrivedBy = by
    this.onDatagrams(bytes, from)
    this.#arrivedBy = null
  }

  /**
   * Reports that the sender of the current datagram has proved its address. Packets to it then
   * leave by the socket that received the datagram.
   */
  onProved(address: string, port: number): void {
    const by = this.#arrivedBy
    const key = addressKey(address, port)
    if (by === null || this.#further.has(key)) return
    this.#further.set(key, by.port)
    by.onProved(address, port)
  }

  /** Removes an extra socket, which is about to close. */
  forgetFurther(address: string, port: number): void {
    this.#further.delete(addressKey(address, port))
  }

  /**
   * Takes the result of one read from a UDP socket: one datagram, or several of equal size that the
   * kernel joined.
   */
  onDatagrams(bytes: Buffer, from: { readonly address: string; readonly port: number }): void {
    let at = 0
    while (at < bytes.length) {
      const first = bytes[at]!
      if (first <= 3) {
        if (bytes.length - at < STUN_HEADER_BYTES) return void this.counters.strays++
        const end = at + STUN_HEADER_BYTES + bytes.readUInt16BE(at + 2)
        if (end > bytes.length) return void this.counters.strays++
        this.#onControl("stun", bytes.subarray(at, end), from.address, from.port)
        at = end
        continue
      }
      if ((first & 0xe0) !== 0x20 || bytes.length - at < 2) return void this.counters.strays++
      const length = Frame.lengthAt(bytes, at)
      if (length < 3 || at + length > bytes.length) return void this.counters.strays++
      if ((first & 0xf0) === 0x30) {
        this.#onDirect(bytes, at + Frame.DIRECT_HEAD_BYTES, at + length, from.address, from.port)
      } else {
        const other = this.#relayAt(from.address, from.port)
        if (other !== undefined || this.#isRelay(from.address, from.port)) {
          this.#onRelayed(bytes, at, at + length, from.address, from.port, other?.traffic ?? this.#relayUdp, other)
        } else this.counters.strays++
      }
      at += length
    }
  }

  /** Takes whole relayed frames that arrived by the relay link. */
  onLinkFrames(bytes: Uint8Array): void {
    const traffic = this.traffic[this.leg?.kind ?? "relay-tcp"]
    let at = 0
    while (at < bytes.length) {
      const length = Frame.lengthAt(bytes, at)
      if (length < Frame.RELAYED_HEAD_BYTES || at + length > bytes.length) return void this.counters.strays++
      this.#onRelayed(bytes, at, at + length, "", 0, traffic)
      at += length
    }
  }

  /**
   * Sends frames that already have their relayed heads, by the relay with the name `relay`, or by
   * the home relay. `segment` is as for `Port.sendTrain`. Returns `false` if this node is not bound
   * there.
   */
  sendRelayed(bytes: Uint8Array, length: number, segment: number, relay?: string): boolean {
    if (relay !== undefined) return this.#sendByOther(relay, bytes, length, segment)
    const leg = this.leg
    if (leg === null) return false
    count(this.traffic[leg.kind], length, segment)
    if (leg.kind === "relay-udp") this.portFor(leg.family)?.sendTrain(bytes, length, segment, leg.port, leg.address)
    else leg.send(bytes.subarray(0, length))
    return true
  }

  #sendByOther(name: string, bytes: Uint8Array, length: number, segment: number): boolean {
    for (const relay of this.#relays) {
      if (relay.name !== name || !relay.bound) continue
      count(relay.traffic, length, segment)
      this.portFor(relay.family)?.sendTrain(bytes, length, segment, relay.port, relay.address)
      return true
    }
    return false
  }

  /**
   * Sends frames that already have their direct heads. `segment` is as for `Port.sendTrain`. Drops
   * them if this node uses only relays.
   */
  sendDirect(to: DirectPath, bytes: Uint8Array, length: number, segment: number): void {
    if (!this.direct) return
    count(this.#direct, length, segment)
    const { host, port } = to.remote
    this.portTo(to.family, host, port)?.sendTrain(bytes, length, segment, port, host)
  }

  #relayAt(address: string, port: number): OtherRelay | undefined {
    for (const relay of this.#relays) if (relay.port === port && relay.address === address) return relay
    return undefined
  }

  #isRelay(address: string, port: number): boolean {
    const leg = this.leg
    // While no UDP leg is bound any address is accepted: control messages are checked by their
    // reader, and other frames must have the tag of a live session.
    return leg === null || leg.kind !== "relay-udp" || (leg.port === port && leg.address === address)
  }

  #onDirect(bytes: Buffer, at: number, end: number, address: string, port: number): void {
    if (!this.direct) return void this.counters.relayOnly++
    const first = bytes[at]!
    if (first === SEALED) return this.#onSealed(bytes, at, end, address, port)
    if ((first & QUIC_FIXED_BIT) === 0) return void this.counters.strays++
    if (port !== this.#lastPort || address !== this.#lastAddress) {
      this.#lastKey = addressKey(address, port)
      this.#lastEndpoint = this.#byAddress.get(this.#lastKey)
      this.#lastAddress = address
      this.#lastPort = port
    }
    if (this.#lastEndpoint === undefined) return void this.counters.unproved++
    this.#direct.packetsIn++
    this.#direct.bytesIn += end - at
    this.#lastEndpoint.onPacket(bytes, at, end - at, this.#lastKey)
  }

  #onRelayed(
    bytes: Uint8Array,
    at: number,
    end: number,
    address: string,
    port: number,
    traffic: Traffic,
    other?: OtherRelay
  ): void {
    if (end - at <= Frame.RELAYED_HEAD_BYTES) return void this.counters.strays++
    const tag = Frame.tagAt(bytes, at)
    const inside = at + Frame.RELAYED_HEAD_BYTES
    if (tag === Frame.CONTROL_TAG) return this.#onControl("relay", bytes.subarray(at, end), address, port)
    const endpoint = this.#byTag.get(tag)
    if (endpoint === undefined) return void this.counters.unknownTag++
    traffic.packetsIn++
    traffic.bytesIn += end - at
    const first = bytes[inside]!
    if (first === SEALED) endpoint.onSealed(bytes.subarray(inside, end), null, 0, other?.name)
    else if ((first & QUIC_FIXED_BIT) !== 0) endpoint.onPacket(bytes, inside, end - inside, other?.key ?? null)
    else this.counters.strays++
  }

  #onSealed(bytes: Buffer, at: number, end: number, address: string, port: number): void {
    if (end - at < 1 + HINT_BYTES) return void this.counters.strays++
    const endpoint = this.#byHint.get(hintAt(bytes, at + 1))
    if (endpoint === undefined) return void this.counters.unknownHint++
    this.#direct.packetsIn++
    this.#direct.bytesIn += end - at
    endpoint.onSealed(bytes.subarray(at, end), address, port)
  }
}

type DirectPath = PathRef & { readonly kind: "direct" }

const count = (traffic: Traffic, length: number, segment: number): void => {
  traffic.packetsOut += length <= segment ? 1 : Math.ceil(length / segment)
  traffic.bytesOut += length
}

const hintAt = (bytes: Uint8Array, at: number): bigint => {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, HINT_BYTES)
  return view.getBigUint64(0)
}
