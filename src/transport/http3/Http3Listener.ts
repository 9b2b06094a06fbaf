/**
 * The server's side of QUIC for HTTP/3: tells packets of many connections on a few UDP sockets apart, makes new ones, and bounds
 * what strangers may cost. A connection survives a change of its peer's address (RFC 9000, section 9).
 */
import native, { type Config, type Header } from "@infisical/quic/dist/native/index.js"
import { createHmac, randomBytes, randomInt, timingSafeEqual } from "node:crypto"
import * as IpBytes from "../../protocol/IpBytes.ts"
import { PrefixBuckets } from "../../protocol/TokenBucket.ts"
import { SLOTS } from "../quic/QuicEngine.ts"
import { ID_BYTES, type QuicheConnection } from "../quic/QuicheConnection.ts"
import type { UdpPort } from "../udp/UdpPort.ts"
import { type Events, Http3Connection } from "./Http3Connection.ts"
import * as QuicheHttp3 from "./QuicheHttp3.ts"

export interface Limits {
  readonly connections: number
  /** Connections without an open session. */
  readonly strangers: number
  /** ms from the first packet to an open session. */
  readonly handshakeMs: number
  /** New connections a second from one /24 or /56, and how many at once. */
  readonly acceptsPerSecond: number
  readonly acceptBurst: number
}

export const DEFAULT_LIMITS: Limits = {
  connections: 10_000,
  strangers: 256,
  handshakeMs: 5000,
  acceptsPerSecond: 20,
  acceptBurst: 200
}

export interface Stats {
  connections: number
  /** Of those, without an open session. */
  strangers: number
  /** Since the start: packets of newcomers dropped by rate and for want of room, connections cut at their deadline. */
  readonly refused: { rate: number; full: number; late: number }
  /** Newcomers asked to prove their address first. */
  retries: number
}

/** A connection that has just begun. */
export interface Newcomer {
  readonly connection: Http3Connection
  /** `address:port`. */
  readonly remote: string
  /** Of the certificate that it is shown. */
  readonly certSha256: Uint8Array
}

export interface Options {
  readonly limits: Limits
  readonly certificate: Shown
  /** The handlers of a connection, which is being made. */
  readonly onConnection: (newcomer: Newcomer) => Events
}

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
  readonly keys: Set<string>
  /** By slot; the peer's addresses. */
  readonly paths: Array<From>
  isStranger: boolean
  deadline: NodeJS.Timeout
}

const QUIC_VERSION = 1
/** RFC 9000, section 14.1. */
const MIN_INITIAL_BYTES = 1200
/** With so many strangers, newcomers are asked to prove their address before anything is kept of them (RFC 9000, section 8.1.2). */
const RETRY_ABOVE = 64
const TOKEN_LIFE_MS = 10_000
const TOKEN_HEAD_BYTES = 8
const MAC_BYTES = 16
const MAX_PACKET_BYTES = 1500

const keyOf = (id: Uint8Array): string => Buffer.from(id.buffer, id.byteOffset, id.byteLength).toString("latin1")

export class Http3Listener {
  readonly stats: Stats = { connections: 0, strangers: 0, refused: { rate: 0, full: 0, late: 0 }, retries: 0 }
  readonly #options: Options
  readonly #byId = new Map<string, Entry>()
  readonly #entries = new Set<Entry>()
  readonly #buckets: PrefixBuckets
  readonly #ip = new Uint8Array(16)
  readonly #secret = randomBytes(32)
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

  /** New connections are shown it; those that there are have seen the old one. */
  updateCertificate(next: Shown): void {
    this.#shown = next
    this.#config = QuicheHttp3.serverConfig(next)
  }

  /** No newcomers any more, and good-bye to those that there are. */
  close(): void {
    this.#stopped = true
    for (const { h3 } of this.#entries) h3.driver.close(NO_ERROR, "the relay stops")
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

  #deliver(entry: Entry, bytes: Buffer, socket: UdpPort, host: string, port: number): void {
    const slot = slotOf(entry, socket, host, port)
    if (slot !== -1) entry.h3.driver.receive(slot, bytes)
  }

  #onNewcomer(header: Header, bytes: Buffer, from: From): void {
    const { refused } = this.stats
    const length = IpBytes.parse(from.host, this.#ip)
    if (length === 0 || !this.#buckets.take(this.#ip, length, 1, performance.now())) return void refused.rate++
    const { dcid, scid } = header
    if (header.version !== QUIC_VERSION) {
      return this.#send(from, native.quiche.negotiateVersion(scid, dcid, this.#out))
    }
    if (header.ty !== native.quiche.Type.Initial) return
    const { connections, strangers } = this.#options.limits
    if (this.stats.strangers >= strangers || this.stats.connections >= connections) return void refused.full++
    const originalId = header.token === undefined ? null : this.#provedBy(header.token, from, dcid)
    if (originalId === null && this.stats.strangers >= RETRY_ABOVE) return this.#retry(header, from)
    this.#accept(bytes, from, dcid, originalId)
  }

  #accept(bytes: Buffer, from: From, dcid: Uint8Array, originalId: Uint8Array | null): void {
    const keys = new Set<string>()
    const id = originalId === null ? randomBytes(ID_BYTES) : Buffer.from(dcid)
    let entry: Entry | undefined
    const learn = (known: Uint8Array) => {
      const key = keyOf(known)
      keys.add(key)
      if (entry !== undefined) this.#byId.set(key, entry)
    }
    const forget = (known: Uint8Array) => {
      const key = keyOf(known)
      keys.delete(key)
      this.#byId.delete(key)
    }
    const ids = {
      next: () => {
        const next = randomBytes(ID_BYTES)
        learn(next)
        return next
      },
      retired: forget
    }
    const quic = QuicheHttp3.accept(this.#config, { id, originalId, ids })
    const h3 = this.#connect(quic, from, () => entry)
    const deadline = setTimeout(() => this.#cut(entry), this.#options.limits.handshakeMs)
    entry = {
      h3,
      keys,
      paths: [from],
      isStranger: true,
      deadline
    }
    learn(id)
    learn(dcid) // until the client knows the other one
    this.#entries.add(entry)
    this.stats.connections++
    this.stats.strangers++
    h3.driver.receive(0, bytes)
  }

  #connect(quic: QuicheConnection, from: From, entry: () => Entry | undefined): Http3Connection {
    let events: Events | undefined
    const tell = () => events!
    const h3 = new Http3Connection({
      role: "server",
      quic,
      now: () => performance.now(),
      transmit: (slot, buffer, length, segment) => {
        const to = entry()?.paths[slot]
        to?.socket.sendTrain(buffer, length, segment, to.port, to.host)
      },
      events: {
        onEstablished: () => tell().onEstablished(),
        onRequest: (request) => tell().onRequest(request),
        onStatus: () => {},
        onBytes: (bytes) => tell().onBytes(bytes),
        onDatagram: (bytes) => tell().onDatagram(bytes),
        onDrain: () => tell().onDrain(),
        onEnd: (closed) => tell().onEnd(closed),
        onGone: () => {
          this.#forget(entry())
          tell().onGone()
        }
      }
    })
    const remote = from.host.includes(":") ? `[${from.host}]:${from.port}` : `${from.host}:${from.port}`
    events = this.#options.onConnection({ connection: h3, remote, certSha256: this.#shown.sha256 })
    return h3
  }

  /** Its session is open: it is no stranger any more. */
  welcome(h3: Http3Connection): void {
    for (const entry of this.#entries) {
      if (entry.h3 !== h3 || !entry.isStranger) continue
      entry.isStranger = false
      this.stats.strangers--
      clearTimeout(entry.deadline)
    }
  }

  #cut(entry: Entry | undefined): void {
    if (entry === undefined) return
    this.stats.refused.late++
    entry.h3.driver.close(NO_ERROR, "too late")
  }

  #forget(entry: Entry | undefined): void {
    if (entry === undefined || !this.#entries.delete(entry)) return
    clearTimeout(entry.deadline)
    for (const key of entry.keys) this.#byId.delete(key)
    this.stats.connections--
    if (entry.isStranger) this.stats.strangers--
  }

  #retry({ dcid, scid, version }: Header, from: From): void {
    this.stats.retries++
    const token = this.#tokenFor(from, dcid)
    this.#send(from, native.quiche.retry(scid, dcid, randomBytes(ID_BYTES), token, version, this.#out))
  }

  /** What a client that had a Retry shows, with the id that it began with: both bound to its address. */
  #tokenFor(from: From, originalId: Uint8Array): Buffer {
    const head = Buffer.alloc(TOKEN_HEAD_BYTES)
    head.writeDoubleBE(performance.now() + TOKEN_LIFE_MS)
    return Buffer.concat([head, this.#mac(from, head, originalId), originalId])
  }

  /** The id that the client began with; null: no token of ours for this address, or one that is too old. */
  #provedBy(token: Uint8Array, from: From, dcid: Uint8Array): Buffer | null {
    const bytes = Buffer.from(token)
    if (bytes.length <= TOKEN_HEAD_BYTES + MAC_BYTES || dcid.length !== ID_BYTES) return null
    const head = bytes.subarray(0, TOKEN_HEAD_BYTES)
    const originalId = bytes.subarray(TOKEN_HEAD_BYTES + MAC_BYTES)
    const mac = bytes.subarray(TOKEN_HEAD_BYTES, TOKEN_HEAD_BYTES + MAC_BYTES)
    if (!timingSafeEqual(mac, this.#mac(from, head, originalId))) return null
    return performance.now() < head.readDoubleBE() ? originalId : null
  }

  #mac({ host, port }: From, head: Uint8Array, originalId: Uint8Array): Buffer {
    return createHmac("sha256", this.#secret).update(head).update(`${host}|${port}|`).update(originalId).digest()
      .subarray(0, MAC_BYTES)
  }

  #send({ host, port, socket }: From, length: number): void {
    socket.send(Uint8Array.from(this.#out.subarray(0, length)), 0, length, port, host)
  }
}

const NO_ERROR = 0x100

/** Null: not QUIC. */
const headerOf = (bytes: Uint8Array): Header | null => {
  try {
    return native.quiche.Header.fromSlice(bytes, ID_BYTES)
  } catch {
    return null
  }
}

/**
 * The slot of the path by which a packet came; -1: it is dropped. A slot keeps its address for good, since QUIC asks for no proof of
 * an address under a slot that has proved one: who moves more often than there are slots connects anew.
 */
const slotOf = ({ paths }: Entry, socket: UdpPort, host: string, port: number): number => {
  const known = paths.findIndex((path) => path.port === port && path.host === host && path.socket === socket)
  return known !== -1 || paths.length === SLOTS ? known : paths.push({ socket, host, port }) - 1
}
