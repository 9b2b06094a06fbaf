/**
 * One connection of Cloudflare's quiche, through the prebuilt native binding. It serves connections
 * of any origin and configuration.
 */
import type { Connection, PathStats, RecvInfo } from "@infisical/quic/dist/native/index.js"
import { Buffer } from "node:buffer"
import { randomBytes } from "node:crypto"
import { native } from "./Binding.ts"
import {
  type ConnectionFault,
  type ConnectionStats,
  type PathEvent,
  type QuicConnection,
  READ_NOTHING,
  READ_RESET,
  type Role,
  SLOTS,
  WRITE_LIMITED,
  WRITE_STOPPED
} from "./QuicEngine.ts"

/** Length of a connection id, in bytes. */
export const ID_BYTES = 16
const EMPTY = new Uint8Array(0)
const NO_ROOM = new Uint8Array(1)
const PROTOCOL_VIOLATION = 0x0a // RFC 9000, section 20.1

/**
 * Synthetic hosts, which only quiche sees. They are short because each packet carries them through
 * the binding as text.
 */
const HOSTS: Record<Role, string> = { client: "::1", connector: "::2" }
const addressesOf = (role: Role) => Array.from({ length: SLOTS }, (_, slot) => ({ host: HOSTS[role], port: slot + 1 }))

const makeArrivals = (role: Role): ReadonlyArray<RecvInfo> => {
  const remote = addressesOf(role === "client" ? "connector" : "client")
  return addressesOf(role).map((to, slot) => ({ from: remote[slot] ?? to, to }))
}
/**
 * Addresses given to quiche for the packets that a connection receives, by role and slot. They are
 * placeholders: the data plane knows the real addresses.
 */
export const ARRIVALS: Readonly<Record<Role, ReadonlyArray<RecvInfo>>> = {
  client: makeArrivals("client"),
  connector: makeArrivals("connector")
}

const messageOf = (error: unknown) => error instanceof Error ? error.message : String(error)

/**
 * Source of the ids by which the peer addresses a connection. It is notified when an id is no
 * longer used.
 */
export interface ConnectionIds {
  readonly next: () => Uint8Array
  readonly retired: (id: Uint8Array) => void
}

const RANDOM_IDS: ConnectionIds = { next: () => randomBytes(ID_BYTES), retired: () => undefined }

/** Constructor parameters of {@link QuicheConnection}. */
export interface Parts {
  readonly role: Role
  /** A connection that was created with the addresses of `ARRIVALS[role][slot]`. */
  readonly connection: Connection
  readonly slot: number
  /**
   * The only connection id with which a client may begin. `null` if any is accepted. Connector
   * only.
   */
  readonly onlyFrom?: Uint8Array | null
  /** Whether the client resumes a saved session. Client only. */
  readonly resumes?: boolean
  readonly ids?: ConnectionIds
}

/** A {@link QuicConnection} on quiche. */
export class QuicheConnection implements QuicConnection {
  readonly #connection: Connection
  readonly #arrivals: ReadonlyArray<RecvInfo>
  readonly #client: boolean
  readonly #ids: ConnectionIds
  /**
   * The connection id that the client must begin with. `null` if any is accepted, or once it has
   * been checked.
   */
  #onlyFrom: Uint8Array | null
  /** Whether the first flight was made for another session. */
  #foreign = false
  #sendSlot: number
  #finished = false
  #resumes: boolean

  constructor({ connection, ids = RANDOM_IDS, onlyFrom = null, resumes = false, role, slot }: Parts) {
    this.#connection = connection
    this.#arrivals = ARRIVALS[role]
    this.#client = role === "client"
    this.#ids = ids
    this.#onlyFrom = onlyFrom
    this.#resumes = resumes
    this.#sendSlot = slot
  }

  #arrival(slot: number): RecvInfo {
    const info = this.#arrivals[slot]
    if (info === undefined) throw new RangeError(`slot ${slot} is not one of ${SLOTS}`)
    return info
  }

  idOf(packet: Uint8Array): number {
    // in a packet with a short header, the id follows the first byte (RFC 9000, section 17.3.1)
    return packet[1]! | packet[2]! << 8 | packet[3]! << 16 | packet[4]! << 24
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
   * Completes a client's handshake after a packet was received. If the connector rejects early
   * data, quiche continues the handshake only at the next send, and the packet it then writes may
   * already hold stream data. The owner must see the certificate before that. A send into one byte
   * advances the handshake without writing a packet.
   */
  #finishHandshake(): void {
    if (!this.#connection.isEstablished()) this.send(NO_ROOM)
    this.#resumes = !this.#connection.isEstablished()
  }

  /**
   * Checks that the handshake is for this session. QUIC itself has checked that the ClientHello
   * names the connection id that the client's packets carry (RFC 9000, section 7.3).
   */
  #checkOrigin(expected: Uint8Array): void {
    const origin = this.#connection.destinationId()
    if (origin.length === 0) return // no packet has been decrypted yet
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
      return 0 // the connection failed; `isClosed` and `fault` report it
    }
  }

  sendSlot(): number {
    return this.#sendSlot
  }

  /** Milliseconds until `onTimeout` is due. `null` if no timer is set. */
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
      // otherwise the peer has stopped it and nothing is left to end
      return !messageOf(error).startsWith("StreamLimit")
    }
  }

  reset(stream: number, code: number): void {
    this.#shutdown(stream, native().Shutdown.Write, code)
  }

  stop(stream: number, code: number): void {
    this.#shutdown(stream, native().Shutdown.Read, code)
  }

  #shutdown(stream: number, direction: Parameters<Connection["streamShutdown"]>[1], code: number) {
    try {
      this.#connection.streamShutdown(stream, direction, code)
    } catch {
      // that side has already ended
    }
  }

  anyWritable(): boolean {
    return this.#connection.writable()[Symbol.iterator]().next().done !== true
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
    for (let id = this.#connection.retiredScidNext(); id !== null; id = this.#connection.retiredScidNext()) {
      this.#ids.retired(id) // quiche keeps retired ids until they are fetched
    }
    try {
      while (this.#connection.sourceCidsLeft() > 0) {
        this.#connection.newSourceCid(this.#ids.next(), randomBytes(16).readBigUInt64BE(0), false)
      }
    } catch {
      // the peer accepts no more
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
