/** The QUIC engine on Cloudflare's quiche, through the prebuilt native binding. */
import native, { type Connection, type PathStats, type RecvInfo } from "@infisical/quic/dist/native/index.js"
import { Buffer } from "node:buffer"
import { randomBytes } from "node:crypto"
import {
  ALPN,
  type ConnectionFault,
  type ConnectionStats,
  type EngineOptions,
  MAX_STREAM_WINDOW,
  type PathEvent,
  type QuicConnection,
  type QuicEngine,
  READ_NOTHING,
  READ_RESET,
  type Role,
  SLOTS,
  STREAM_WINDOW,
  WRITE_LIMITED,
  WRITE_STOPPED
} from "./QuicEngine.ts"

/** Outlasts a closed laptop lid or a lift; the caller sends keepalives and judges a path dead long before. */
const IDLE_TIMEOUT_MS = 600_000
/**
 * quiche never gives back the connection-level credit of bytes that a reset or stopped stream left unread, so any finite
 * window leaks away with resets; and a finite one lets a few stalled flows stop all others. So it is out of the way, and
 * memory is bounded by the stream windows times the flows that the owner admits.
 */
const CONNECTION_WINDOW = 2 ** 60
/**
 * Streams that a client may have open in QUIC's eyes; the connector opens none. Far more than a session admits, since quiche
 * never gives back the credit of a stream whose end was lost (see EndNotice).
 */
const MAX_STREAMS = 65_536
/** One for each slot and some to spare while retired ones are replaced. */
const ACTIVE_ID_LIMIT = SLOTS + 4
const MAX_DATAGRAMS = 1024
const ID_BYTES = 16
const EMPTY = new Uint8Array(0)
const NO_ROOM = new Uint8Array(1)
const PROTOCOL_VIOLATION = 0x0a // RFC 9000, section 20.1

/** Addresses that only quiche sees. Short, since each packet carries them through the binding as text. */
const HOSTS: Record<Role, string> = { client: "::1", connector: "::2" }
const addressesOf = (role: Role) => Array.from({ length: SLOTS }, (_, slot) => ({ host: HOSTS[role], port: slot + 1 }))

const makeConfig = (options: EngineOptions) => {
  // The peer must present a certificate, but no authority vouches for it: the owner compares it with the pinned key.
  const config = native.quiche.Config.withBoringSslCtx(
    true,
    true,
    null,
    [Buffer.from(options.privateKey)],
    [Buffer.from(options.certificate)],
    "ed25519"
  )
  config.setApplicationProtos([ALPN])
  config.setMaxIdleTimeout(IDLE_TIMEOUT_MS)
  config.setMaxRecvUdpPayloadSize(65_527)
  config.setMaxSendUdpPayloadSize(options.maxPacket)
  config.setInitialMaxData(CONNECTION_WINDOW)
  config.setMaxConnectionWindow(CONNECTION_WINDOW)
  config.setInitialMaxStreamDataBidiLocal(STREAM_WINDOW)
  config.setInitialMaxStreamDataBidiRemote(STREAM_WINDOW)
  config.setMaxStreamWindow(MAX_STREAM_WINDOW)
  config.setInitialMaxStreamsBidi(options.role === "connector" ? MAX_STREAMS : 0)
  config.setInitialMaxStreamsUni(0)
  config.setActiveConnectionIdLimit(ACTIVE_ID_LIMIT)
  config.setCcAlgorithm(native.CongestionControlAlgorithm.CUBIC) // BBR of this version restarts very slowly after a migration
  // Its send times are passed over (the session bounds bursts), but without them quiche 0.18 takes a packet for sent when its pacer
  // last began anew: on a window below ten of the largest packets the round trip then grows by itself, to minutes.
  config.enablePacing(true)
  config.enableDgram(true, MAX_DATAGRAMS, MAX_DATAGRAMS)
  const ticketKey = options.resumption?.ticketKey ?? null
  if (ticketKey !== null) config.setTicketKey(ticketKey)
  if (ticketKey !== null || options.role === "client") config.enableEarlyData()
  return config
}

const messageOf = (error: unknown) => error instanceof Error ? error.message : String(error)

class QuicheConnection implements QuicConnection {
  readonly #connection: Connection
  readonly #local: ReadonlyArray<{ host: string; port: number }>
  readonly #remote: ReadonlyArray<{ host: string; port: number }>
  readonly #arrivals: ReadonlyArray<RecvInfo>
  readonly #client: boolean
  /** Connector: the only connection id that a client may begin with, until one has; null: any. */
  #onlyFrom: Uint8Array | null
  /** The first flight was made for another session. */
  #foreign = false
  #sendSlot: number
  #finished = false
  #resumes = false

  constructor(options: EngineOptions) {
    const client = options.role === "client"
    const { clientId, savedSession } = options.resumption ?? { clientId: null, savedSession: null }
    this.#client = client
    this.#onlyFrom = client ? null : clientId
    this.#local = addressesOf(options.role)
    this.#remote = addressesOf(client ? "connector" : "client")
    this.#arrivals = this.#local.map((to, slot) => ({ from: this.#remote[slot] ?? to, to }))
    this.#sendSlot = options.slot
    const { from, to } = this.#arrival(options.slot)
    const config = makeConfig(options)
    this.#connection = client
      ? native.quiche.Connection.connect(null, clientId ?? randomBytes(ID_BYTES), to, from, config)
      : native.quiche.Connection.accept(randomBytes(ID_BYTES), null, to, from, config)
    if (client && savedSession !== null) this.#resume(savedSession)
  }

  #resume(session: Uint8Array): void {
    try {
      this.#connection.setSession(session)
      this.#resumes = true
    } catch {
      // not a session of this build of TLS: the handshake is whole
    }
  }

  #arrival(slot: number): RecvInfo {
    const info = this.#arrivals[slot]
    if (info === undefined) throw new RangeError(`slot ${slot} is not one of ${SLOTS}`)
    return info
  }

  receive(slot: number, packet: Uint8Array): boolean {
    if (this.#foreign) return false
    let taken = true
    try {
      this.#connection.recv(packet, this.#arrival(slot))
    } catch {
      taken = false
    }
    if (this.#onlyFrom !== null) this.#checkOrigin(this.#onlyFrom)
    if (this.#resumes) this.#finishHandshake()
    return taken && !this.#foreign
  }

  /**
   * Where the connector took no early data, quiche goes on with the handshake only as it sends next, and the packet that it then
   * writes may hold stream data already: the owner has to see the certificate before. No packet fits into one byte.
   */
  #finishHandshake(): void {
    if (!this.#connection.isEstablished()) this.send(NO_ROOM)
    this.#resumes = !this.#connection.isEstablished()
  }

  /** QUIC has checked that the client's ClientHello names the connection id that its packets bear (RFC 9000, section 7.3). */
  #checkOrigin(expected: Uint8Array): void {
    const origin = this.#connection.destinationId()
    if (origin.length === 0) return // no packet could be opened yet
    this.#onlyFrom = null
    if (Buffer.compare(origin, expected) === 0) return
    this.#foreign = true
    this.#end(false, PROTOCOL_VIOLATION, "a handshake for another session")
  }

  send(into: Uint8Array): number {
    try {
      const sent = this.#connection.send(into)
      if (sent === null) return 0
      this.#sendSlot = sent[1].from.port - 1
      return sent[0]
    } catch {
      return 0 // the connection has ended with a fault; `isClosed` and `fault` tell
    }
  }

  sendSlot(): number {
    return this.#sendSlot
  }

  timeoutMs(): number | null {
    return this.#connection.timeout()
  }

  onTimeout(): void {
    this.#connection.onTimeout()
  }

  isEstablished(): boolean {
    return !this.#foreign && this.#connection.isEstablished()
  }

  isEarly(): boolean {
    if (this.#foreign || this.#connection.isEstablished()) return false
    return this.#client ? this.#resumes : this.#connection.isInEarlyData()
  }

  savedSession(): Uint8Array | null {
    return this.#connection.session()
  }

  isClosed(): boolean {
    return this.#connection.isClosed()
  }

  isTimedOut(): boolean {
    return this.#connection.isTimedOut()
  }

  peerCertificate(): Uint8Array | null {
    return this.#connection.peerCertChain()?.[0] ?? null
  }

  fault(): ConnectionFault | null {
    const error = this.#connection.peerError() ?? this.#connection.localError()
    if (error === null) return null
    return { application: error.isApp, code: error.errorCode, reason: Buffer.from(error.reason).toString("utf8") }
  }

  close(code: number, reason: string): void {
    this.#end(true, code, reason)
  }

  #end(application: boolean, code: number, reason: string): void {
    try {
      this.#connection.close(application, code, Buffer.from(reason.slice(0, 200)))
    } catch {
      // already closing
    }
  }

  readable(): Iterable<number> {
    return this.#connection.readable() as Iterable<number>
  }

  read(stream: number, into: Uint8Array): number {
    this.#finished = false
    try {
      const got = this.#connection.streamRecv(stream, into)
      if (got === null) return READ_NOTHING
      this.#finished = got[1]
      return got[0]
    } catch {
      return READ_RESET // StreamReset(code), or InvalidStreamState when both sides are already over
    }
  }

  readFinished(): boolean {
    return this.#finished
  }

  write(stream: number, data: Uint8Array): number {
    try {
      return this.#connection.streamSend(stream, data, false) ?? 0
    } catch (error) {
      return messageOf(error).startsWith("StreamLimit") ? WRITE_LIMITED : WRITE_STOPPED
    }
  }

  isForgotten(stream: number): boolean {
    try {
      this.#connection.streamCapacity(stream)
      return false
    } catch {
      return true // InvalidStreamState, or StreamStopped
    }
  }

  finish(stream: number): boolean {
    try {
      return this.#connection.streamSend(stream, EMPTY, true) !== null
    } catch (error) {
      return !messageOf(error).startsWith("StreamLimit") // else stopped by the peer: nothing is left to end
    }
  }

  reset(stream: number, code: number): void {
    this.#shutdown(stream, native.Shutdown.Write, code)
  }

  stop(stream: number, code: number): void {
    this.#shutdown(stream, native.Shutdown.Read, code)
  }

  #shutdown(stream: number, direction: Parameters<Connection["streamShutdown"]>[1], code: number) {
    try {
      this.#connection.streamShutdown(stream, direction, code)
    } catch {
      // that side is already over
    }
  }

  anyWritable(): boolean {
    return this.#connection.writable()[Symbol.iterator]().next().done !== true
  }

  streamsLeft(): number {
    return this.#connection.peerStreamsLeftBidi()
  }

  sendDatagram(data: Uint8Array): boolean {
    try {
      return this.#connection.dgramSend(data) !== null
    } catch {
      return false
    }
  }

  receiveDatagram(): Uint8Array | null {
    try {
      return this.#connection.dgramRecvVec()
    } catch {
      return null
    }
  }

  ping(): void {
    try {
      this.#connection.sendAckEliciting()
    } catch {
      // closing
    }
  }

  probe(slot: number): boolean {
    return this.#onPath(slot, (local, remote) => this.#connection.probePath(local, remote))
  }

  migrate(slot: number): boolean {
    return this.#onPath(slot, (local, remote) => this.#connection.migrate(local, remote))
  }

  #onPath(slot: number, act: (local: RecvInfo["to"], remote: RecvInfo["from"]) => number): boolean {
    const { from, to } = this.#arrival(slot)
    try {
      act(to, from)
      return true
    } catch {
      return false // OutOfIdentifiers until the peer sent new ids, or InvalidState
    }
  }

  isValidated(slot: number): boolean {
    const { from, to } = this.#arrival(slot)
    try {
      return this.#connection.isPathValidated(to, from)
    } catch {
      return false // no such path yet
    }
  }

  replenishIds(): void {
    while (this.#connection.retiredScidNext() !== null) { /* quiche keeps them until they are fetched */ }
    try {
      while (this.#connection.sourceCidsLeft() > 0) {
        this.#connection.newSourceCid(randomBytes(ID_BYTES), randomBytes(16).readBigUInt64BE(0), false)
      }
    } catch {
      // as many as the peer keeps
    }
  }

  nextPathEvent(): PathEvent | null {
    for (
      let event = this.#connection.pathEventNext();
      event as unknown !== null;
      event = this.#connection.pathEventNext()
    ) {
      if (event.type === "Validated") return { _tag: "Validated", slot: event.local.port - 1 }
      if (event.type === "PeerMigrated") return { _tag: "PeerMigrated", slot: event.new.port - 1 }
    }
    return null
  }

  stats(): ConnectionStats {
    const all = this.#connection.stats()
    const active: PathStats | undefined = this.#connection.pathStats().find((path) => path.active)
    return {
      packetsReceived: all.recv,
      packetsSent: all.sent,
      packetsLost: all.lost,
      bytesReceived: all.recvBytes,
      bytesSent: all.sentBytes,
      rttMs: active?.rtt ?? 0,
      cwndBytes: active?.cwnd ?? 0
    }
  }
}

export const engine: QuicEngine = { open: (options) => new QuicheConnection(options) }
