/**
 * The server side of QUIC for HTTP/3. It assigns packets of many connections on a few UDP sockets,
 * accepts new connections, and limits what unknown peers may cost. A connection survives a change
 * of its peer's address (RFC 9000, section 9).
 */
import type { Config, Header } from "@infisical/quic/dist/native/index.js"
import { randomBytes, randomInt } from "node:crypto"
import * as IpBytes from "../../protocol/bytes/IpBytes.ts"
import { renderHostPort } from "../../protocol/bytes/SocketAddr.ts"
import { PrefixBuckets } from "../../protocol/bytes/TokenBucket.ts"
import { ErrorCode } from "../../protocol/http3/Http3.ts"
import { native } from "../quic/engine/Binding.ts"
import { SLOTS } from "../quic/engine/QuicEngine.ts"
import { ID_BYTES, type QuicheConnection } from "../quic/engine/QuicheConnection.ts"
import type { UdpPort } from "../udp/UdpPort.ts"
import { type Events, Http3Connection } from "./Http3Connection.ts"
import * as QuicheHttp3 from "./QuicheHttp3.ts"
import { RetryTokens } from "./RetryTokens.ts"
import type { Transmit } from "./TrainSender.ts"

/** Limits of the connections of one listener. */
export interface Limits {
  /** Most connections at once. */
  readonly connections: number
  /** Most connections without an open session. */
  readonly strangers: number
  /** Longest time from the first packet to an open session, in milliseconds. */
  readonly handshakeMs: number
  /** New connections per second that one /24 or /56 may start. */
  readonly acceptsPerSecond: number
  /** New connections that one /24 or /56 may start at once. */
  readonly acceptBurst: number
  /**
   * Longest time, in milliseconds, during which a peer may read nothing although data waits for it.
   */
  readonly stuckMs: number
}

/** Limits of a relay's HTTP/3 listener. */
export const DEFAULT_LIMITS: Limits = {
  connections: 10_000,
  strangers: 256,
  handshakeMs: 5000,
  acceptsPerSecond: 20,
  acceptBurst: 200,
  stuckMs: 10_000
}

/** Counters of a listener. */
export interface Stats {
  connections: number
  /** Connections without an open session; they are included in `connections`. */
  strangers: number
  /**
   * Number of refused connections since the start. `rate`: packets of new peers over the rate.
   * `full`: packets of new peers for which there was no room. `late`: connections closed at their
   * deadline.
   */
  readonly refused: { rate: number; full: number; late: number }
  /** Number of new peers that had to prove their address first (QUIC Retry). */
  retries: number
}

/** A connection that has just started. */
export interface Newcomer {
  readonly connection: Http3Connection
  /** The peer, as `address:port`. */
  readonly remote: string
  /** SHA-256 of the certificate that the peer is shown. */
  readonly certSha256: Uint8Array
  /**
   * Reports that the session is open. It lifts the connection's deadline, and the connection no
   * longer counts as a stranger.
   */
  readonly welcome: () => void
}

/** Callbacks of a session. */
export type Handlers = Omit<Events, "onEstablished" | "onGone" | "onStatus">

/** Options of {@link Http3Listener}. */
export interface Options {
  readonly limits: Limits
  readonly certificate: Shown
  readonly onConnection: (newcomer: Newcomer) => Handlers
}

/** A certificate and its SHA-256. */
export interface Shown extends QuicheHttp3.Certificate {
  readonly sha256: Uint8Array
}

interface From {
  readonly socket: UdpPort
  readonly host: string
  readonly port: number
}

interface Entry {
  readonly h3: Http3Connection
  readonly quic: QuicheConnection
  readonly keys: Set<string>
  /** The peer's addresses, by slot. */
  readonly paths: Array<From>
  isStranger: boolean
  deadline: NodeJS.Timeout
}

const QUIC_VERSION = 1
/** Shortest datagram that may start a connection, in bytes (RFC 9000, section 14.1). */
const MIN_INITIAL_BYTES = 1200
/**
 * Number of strangers from which new peers must prove their address before anything is kept of them
 * (RFC 9000, section 8.1.2).
 */
const RETRY_ABOVE = 64
const MAX_PACKET_BYTES = 1500

const keyOf = (id: Uint8Array): string => Buffer.from(id.buffer, id.byteOffset, id.byteLength).toString("latin1")

/**
 * The HTTP/3 connections of one relay. The owner of the socket passes each datagram to
 * `onDatagram`.
 */
export class Http3Listener {
  readonly stats: Stats = { connections: 0, strangers: 0, refused: { rate: 0, full: 0, late: 0 }, retries: 0 }
  readonly #options: Options
  readonly #byId = new Map<string, Entry>()
  readonly #entries = new Set<Entry>()
  readonly #buckets: PrefixBuckets
  readonly #ip = new Uint8Array(16)
  readonly #tokens = new RetryTokens()
  readonly #out = Buffer.allocUnsafeSlow(MAX_PACKET_BYTES)
  #config: Config
  #shown: Shown
  #stopped = false

  constructor(options: Options) {
    this.#options = options
    this.#shown = options.certificate
    this.#config = QuicheHttp3.serverConfig(options.certificate)
    const { acceptBurst: burst, acceptsPerSecond: rate } = options.limits
    this.#buckets = new PrefixBuckets({ rate, burst, seed: randomInt(2 ** 31), now: performance.now() })
  }

  /** Changes the certificate for new connections. */
  updateCertificate(next: Shown): void {
    this.#shown = next
    this.#config = QuicheHttp3.serverConfig(next)
  }

  /** Accepts no new connections, and closes the existing ones. */
  close(): void {
    this.#stopped = true
    for (const { h3 } of this.#entries) h3.driver.close(ErrorCode.noError, "the relay stops")
  }

  onDatagram(socket: UdpPort, bytes: Buffer, host: string, port: number): void {
    const isLong = (bytes[0]! & 0x80) !== 0
    if (!isLong) {
      const known = this.#byId.get(bytes.toString("latin1", 1, 1 + ID_BYTES))
      if (known !== undefined) this.#deliver(known, bytes, socket, host, port)
      return
    }
    const header = headerOf(bytes)
    if (header === null) return
    const known = this.#byId.get(keyOf(header.dcid))
    if (known !== undefined) return this.#deliver(known, bytes, socket, host, port)
    if (!this.#stopped && bytes.length >= MIN_INITIAL_BYTES) this.#onNewcomer(header, bytes, { socket, host, port })
  }

  /**
   * Passes a packet to its connection and gives a new address a slot.
   *
   * A slot keeps its address permanently, because QUIC asks for no proof of an address in a slot
   * that has proved one. Only a packet that QUIC could open gets a slot; otherwise anybody who has
   * seen a connection id could use them up. A peer that moves more often than there are slots must
   * reconnect.
   */
  #deliver({ h3, paths, quic }: Entry, bytes: Buffer, socket: UdpPort, host: string, port: number): void {
    const known = paths.findIndex((path) => path.port === port && path.host === host && path.socket === socket)
    if (known !== -1) return h3.driver.receive(known, bytes)
    if (paths.length === SLOTS) return
    const { packetsReceived } = quic.stats()
    h3.driver.receive(paths.push({ socket, host, port }) - 1, bytes)
    if (quic.stats().packetsReceived === packetsReceived) paths.pop()
  }

  #onNewcomer(header: Header, bytes: Buffer, from: From): void {
    const { refused } = this.stats
    const length = IpBytes.parse(from.host, this.#ip)
    if (length === 0 || !this.#buckets.take(this.#ip, length, 1, performance.now())) return void refused.rate++
    const { dcid, scid } = header
    if (header.version !== QUIC_VERSION) {
      return this.#send(from, native().quiche.negotiateVersion(scid, dcid, this.#out))
    }
    if (header.ty !== native().quiche.Type.Initial) return
    const { connections, strangers } = this.#options.limits
    if (this.stats.strangers >= strangers || this.stats.connections >= connections) return void refused.full++
    // After a Retry the client's packets carry the id that this side has chosen.
    const originalId = header.token === undefined || dcid.length !== ID_BYTES
      ? null
      : this.#tokens.check(header.token, renderHostPort(from), performance.now())
    if (originalId === null && this.stats.strangers >= RETRY_ABOVE) return this.#retry(header, from)
    this.#accept(bytes, from, dcid, originalId)
  }

  #accept(bytes: Buffer, from: From, dcid: Uint8Array, originalId: Uint8Array | null): void {
    const keys = new Set<string>()
    const learn = (id: Uint8Array) => {
      keys.add(keyOf(id))
      this.#byId.set(keyOf(id), entry)
      return id
    }
    const forget = (id: Uint8Array) => {
      keys.delete(keyOf(id))
      this.#byId.delete(keyOf(id))
    }
    const id = originalId === null ? randomBytes(ID_BYTES) : Buffer.from(dcid)
    const ids = { next: () => learn(randomBytes(ID_BYTES)), retired: forget }
    const quic = QuicheHttp3.accept(this.#config, { id, originalId, ids })
    const paths = [from]
    const transmit: Transmit = (slot, buffer, length, segment) => {
      const to = paths[slot]
      to?.socket.sendTrain(buffer, length, segment, to.port, to.host)
    }
    const h3 = new Http3Connection({ role: "server", quic, now: () => performance.now(), transmit })
    const deadline = setTimeout(() => {
      this.stats.refused.late++
      h3.driver.drop(ErrorCode.noError, "too late")
    }, this.#options.limits.handshakeMs)
    const entry: Entry = { h3, quic, keys, paths, isStranger: true, deadline }
    this.#entries.add(entry)
    this.stats.connections++
    this.stats.strangers++
    learn(id)
    learn(dcid) // until the client knows the other id
    const handlers = this.#options.onConnection({
      connection: h3,
      remote: renderHostPort(from),
      certSha256: this.#shown.sha256,
      welcome: () => this.#welcome(entry)
    })
    const onEstablished = () => {
      if (originalId === null) forget(dcid)
      return true
    }
    h3.attach({ ...handlers, onEstablished, onStatus: () => {}, onGone: () => this.#forget(entry) })
    h3.driver.receive(0, bytes)
  }

  #welcome(entry: Entry): void {
    if (!entry.isStranger || !this.#entries.has(entry)) return
    entry.isStranger = false
    this.stats.strangers--
    clearTimeout(entry.deadline)
  }

  #forget(entry: Entry): void {
    if (!this.#entries.delete(entry)) return
    clearTimeout(entry.deadline)
    for (const key of entry.keys) this.#byId.delete(key)
    this.stats.connections--
    if (entry.isStranger) this.stats.strangers--
  }

  #retry({ dcid, scid, version }: Header, from: From): void {
    this.stats.retries++
    const token = this.#tokens.make(renderHostPort(from), dcid, performance.now())
    this.#send(from, native().quiche.retry(scid, dcid, randomBytes(ID_BYTES), token, version, this.#out))
  }

  #send({ host, port, socket }: From, length: number): void {
    socket.send(Uint8Array.from(this.#out.subarray(0, length)), 0, length, port, host)
  }
}

/** Parses a packet's header. `null` if it is not QUIC. */
const headerOf = (bytes: Uint8Array): Header | null => {
  try {
    return native().quiche.Header.fromSlice(bytes, ID_BYTES)
  } catch {
    return null
  }
}
