/**
 * QUIC as far as whole nodes need it, behind the interface of the engine: a handshake of one round trip, reliable streams in order,
 * acknowledgements, losses found by later packets or a probe timeout, path validation and migration (RFC 9000, sections 8.2
 * and 9; RFC 9002). A packet is a number on the wire; what it carries stays here. No cryptography, no congestion control.
 */
import {
  type ConnectionFault,
  type ConnectionStats,
  type EngineOptions,
  type PathEvent,
  type QuicConnection,
  type QuicEngine,
  READ_NOTHING
} from "../../../src/transport/quic/engine/QuicEngine.ts"

/** In flight at once. */
const WINDOW_PACKETS = 32
const STREAM_BYTES = 1_000
const PACKET_BYTES = 60
const FIRST_PTO_MS = 300
const MAX_PTO_MS = 10_000
const PACKET_THRESHOLD = 3
const CHALLENGES = 3
const ACKS = 32

type Frame =
  | { readonly t: "hello"; readonly certificate: string }
  | { readonly t: "stream"; readonly id: number; readonly at: number; readonly data: Uint8Array; readonly fin: boolean }
  | { readonly t: "ping" }
  | { readonly t: "challenge" | "response"; readonly token: number }
  | { readonly t: "close"; readonly code: number; readonly reason: string }

interface Packet {
  readonly n: number
  readonly frames: ReadonlyArray<Frame>
  readonly acks: ReadonlyArray<number>
}
interface Sent {
  readonly frames: ReadonlyArray<Frame>
  readonly at: number
}
interface Challenge {
  readonly tokens: ReadonlyArray<number>
  sentAt: number
  tries: number
}

class Stream {
  readonly out: Array<Uint8Array> = []
  outAt = 0
  fin: "open" | "asked" | "sent" = "open"
  readonly parts = new Map<number, Uint8Array>()
  inAt = 0
  endsAt = Infinity
  readonly ready: Array<Uint8Array> = []
}

/** Both ends of the connections of one world. `now`: ms, monotonic. */
export const make = (now: () => number): QuicEngine => {
  const packets: Array<Packet> = []
  return {
    open: (options) => new Connection(options, now, packets)
  }
}

class Connection implements QuicConnection {
  readonly #options: EngineOptions
  readonly #now: () => number
  readonly #wire: Array<Packet>
  #active: number
  #by: number
  #next = 0
  #established = false
  #helloSent = false
  #peer: Uint8Array | null = null
  readonly #flying = new Map<number, Sent>()
  readonly #again: Array<Frame> = []
  readonly #seen = new Set<number>()
  #largest = -1
  #acks: Array<number> = []
  #ackDue = false
  #pingDue = false
  #rtt = 0
  #ptoCount = 0
  #lastAt = 0
  readonly #streams = new Map<number, Stream>()
  readonly #challenges = new Map<number, Challenge>()
  readonly #responses: Array<{ readonly slot: number; readonly token: number }> = []
  readonly #validated = new Set<number>()
  readonly #events: Array<PathEvent> = []
  #fault: ConnectionFault | null = null
  #closing: Frame | null = null
  #closed = false
  #finished = false
  #received = 0

  constructor(options: EngineOptions, now: () => number, wire: Array<Packet>) {
    this.#options = options
    this.#now = now
    this.#wire = wire
    this.#active = options.slot
    this.#by = options.slot
    this.#validated.add(options.slot)
    this.#lastAt = now()
  }

  readonly receive = (slot: number, bytes: Uint8Array): boolean => {
    const packet = this.#wire[new DataView(bytes.buffer, bytes.byteOffset).getUint32(1)]
    if (packet === undefined) return false
    this.#received++
    if (this.#seen.has(packet.n)) return true
    this.#seen.add(packet.n)
    this.#acks = [...this.#acks.slice(1 - ACKS), packet.n]
    for (const n of packet.acks) this.#onAck(n)
    this.#findLost(Math.max(-1, ...packet.acks))
    const isProbe = packet.frames.every(({ t }) => t === "challenge" || t === "response")
    const isNewest = packet.n > this.#largest
    this.#largest = Math.max(this.#largest, packet.n)
    if (
      this.#options.role === "connector" && isNewest && !isProbe && packet.frames.length > 0 && slot !== this.#active
    ) {
      this.#active = slot
      this.#validated.add(slot)
      this.#events.push({ _tag: "PeerMigrated", slot })
    }
    for (const frame of packet.frames) this.#onFrame(frame, slot)
    if (packet.frames.length > 0) this.#ackDue = true
    return true
  }

  #onAck(n: number): void {
    const sent = this.#flying.get(n)
    if (sent === undefined) return
    this.#flying.delete(n)
    const sample = this.#now() - sent.at
    this.#rtt = this.#rtt === 0 ? sample : 0.875 * this.#rtt + 0.125 * sample
    this.#ptoCount = 0
  }

  #findLost(largest: number): void {
    for (const n of this.#flying.keys()) if (n <= largest - PACKET_THRESHOLD) this.#lose(n)
  }

  #lose(n: number): void {
    const sent = this.#flying.get(n)
    this.#flying.delete(n)
    for (const frame of sent?.frames ?? []) if (frame.t === "stream" || frame.t === "hello") this.#again.push(frame)
  }

  #onFrame(frame: Frame, slot: number): void {
    switch (frame.t) {
      case "hello":
        this.#peer = Buffer.from(frame.certificate)
        this.#established = true
        return
      case "stream": {
        const stream = this.#stream(frame.id)
        if (frame.fin) stream.endsAt = frame.at + frame.data.length
        if (frame.data.length > 0 && frame.at >= stream.inAt) stream.parts.set(frame.at, frame.data)
        for (let part = stream.parts.get(stream.inAt); part !== undefined; part = stream.parts.get(stream.inAt)) {
          stream.parts.delete(stream.inAt)
          stream.ready.push(part)
          stream.inAt += part.length
        }
        return
      }
      case "challenge":
        this.#responses.push({ slot, token: frame.token })
        return
      case "response":
        for (const [probed, { tokens }] of this.#challenges) {
          if (!tokens.includes(frame.token)) continue // of any challenge (RFC 9000, section 8.2.3)
          this.#challenges.delete(probed)
          this.#validated.add(probed)
          this.#events.push({ _tag: "Validated", slot: probed })
        }
        return
      case "close":
        this.#fault = { application: true, code: frame.code, reason: frame.reason }
        this.#closed = true
        return
      case "ping":
        return
    }
  }

  readonly send = (into: Uint8Array): number => {
    const response = this.#responses.shift()
    if (response !== undefined) {
      return this.#emit(into, response.slot, [{ t: "response", token: response.token }], false)
    }
    for (const [slot, challenge] of this.#challenges) {
      if (challenge.sentAt + this.#pto() * 2 ** challenge.tries > this.#now()) continue
      if (challenge.tries++ >= CHALLENGES) this.#challenges.delete(slot)
      challenge.sentAt = this.#now()
      return this.#emit(into, slot, [{ t: "challenge", token: challenge.tokens.at(-1) ?? 0 }], false)
    }
    if (this.#closing !== null) {
      const frame = this.#closing
      this.#closing = null
      return this.#emit(into, this.#active, [frame], false)
    }
    const frames = this.#frames()
    if (frames.length === 0 && !this.#ackDue) return 0
    return this.#emit(into, this.#active, frames, frames.length > 0)
  }

  #frames(): ReadonlyArray<Frame> {
    if (this.#closed || this.#fault !== null) return []
    const isClient = this.#options.role === "client"
    if (!this.#helloSent && (isClient || this.#established)) {
      this.#helloSent = true
      return [{ t: "hello", certificate: this.#options.certificate }]
    }
    const lost = this.#again.shift()
    if (lost !== undefined) return [lost]
    if (!this.#established) return []
    if (this.#pingDue) {
      this.#pingDue = false
      return [{ t: "ping" }]
    }
    if (this.#flying.size >= WINDOW_PACKETS) return []
    for (const [id, stream] of this.#streams) {
      const data = stream.out.shift() ?? new Uint8Array(0)
      const fin = stream.fin === "asked" && stream.out.length === 0
      if (data.length === 0 && !fin) continue
      if (fin) stream.fin = "sent"
      const at = stream.outAt
      stream.outAt += data.length
      return [{ t: "stream", id, at, data, fin }]
    }
    return []
  }

  #emit(into: Uint8Array, slot: number, frames: ReadonlyArray<Frame>, flies: boolean): number {
    const n = this.#next++
    const length = PACKET_BYTES + frames.reduce((sum, it) => sum + (it.t === "stream" ? it.data.length : 0), 0)
    into.fill(0, 0, length)
    into[0] = 0x40
    new DataView(into.buffer, into.byteOffset).setUint32(1, this.#wire.length)
    this.#wire.push({ n, frames, acks: this.#acks })
    this.#ackDue = false
    this.#by = slot
    if (flies) {
      this.#flying.set(n, { frames, at: this.#now() })
      this.#lastAt = this.#now()
    }
    return length
  }

  readonly sendSlot = (): number => this.#by

  #pto(): number {
    return this.#rtt === 0 ? FIRST_PTO_MS : Math.min(3 * this.#rtt + 25, MAX_PTO_MS)
  }

  #dueAt(): number {
    let at = Infinity
    if (this.#flying.size > 0) at = this.#lastAt + Math.min(this.#pto() * 2 ** this.#ptoCount, MAX_PTO_MS)
    for (const { sentAt, tries } of this.#challenges.values()) at = Math.min(at, sentAt + this.#pto() * 2 ** tries)
    return at
  }

  readonly timeoutMs = (): number | null => {
    const at = this.#dueAt()
    return at === Infinity || this.#closed ? null : Math.max(0, Math.ceil(at - this.#now()))
  }

  readonly onTimeout = (): void => {
    if (this.#flying.size === 0 || this.#lastAt + this.#pto() * 2 ** this.#ptoCount > this.#now()) return
    this.#ptoCount++
    const [first, second] = this.#flying.keys()
    for (const n of [first, second]) if (n !== undefined) this.#lose(n)
    this.#pingDue = true
  }

  readonly isEstablished = (): boolean => this.#established
  readonly isEarly = (): boolean => false
  readonly savedSession = (): null => null
  readonly isClosed = (): boolean => this.#closed
  readonly isTimedOut = (): boolean => false
  readonly peerCertificate = (): Uint8Array | null => this.#peer
  readonly fault = (): ConnectionFault | null => this.#fault
  readonly close = (code: number, reason: string): void => {
    this.#closing = { t: "close", code, reason }
    this.#fault = { application: true, code, reason }
  }

  #stream(id: number): Stream {
    const stream = this.#streams.get(id) ?? new Stream()
    this.#streams.set(id, stream)
    return stream
  }

  readonly readable = (): ReadonlyArray<number> =>
    [...this.#streams].flatMap(([id, it]) => (it.ready.length > 0 || it.inAt >= it.endsAt ? [id] : []))

  readonly read = (id: number, into: Uint8Array): number => {
    const stream = this.#streams.get(id)
    const part = stream?.ready.shift()
    this.#finished = stream !== undefined && stream.ready.length === 0 && stream.inAt >= stream.endsAt
    if (part === undefined) {
      if (this.#finished && stream !== undefined) stream.endsAt = Infinity
      return this.#finished ? 0 : READ_NOTHING
    }
    into.set(part)
    return part.length
  }
  readonly readFinished = (): boolean => this.#finished

  readonly write = (id: number, data: Uint8Array): number => {
    for (let at = 0; at < data.length; at += STREAM_BYTES) {
      this.#stream(id).out.push(Uint8Array.from(data.subarray(at, at + STREAM_BYTES)))
    }
    return data.length
  }
  readonly isForgotten = (): boolean => false
  /** The model has one id for all paths. */
  readonly idOf = (): number => 0
  readonly finish = (id: number): boolean => {
    this.#stream(id).fin = "asked"
    return true
  }
  readonly reset = (): void => {}
  readonly stop = (): void => {}
  readonly anyWritable = (): boolean => true
  readonly sendDatagram = (): boolean => false
  readonly receiveDatagram = (): null => null
  readonly ping = (): void => {
    this.#pingDue = true
  }

  readonly probe = (slot: number): boolean => {
    const before = this.#challenges.get(slot)?.tokens ?? []
    this.#challenges.set(slot, { tokens: [...before, this.#next++], sentAt: -Infinity, tries: 0 })
    return true
  }
  readonly migrate = (slot: number): boolean => {
    this.#active = slot
    return true
  }
  readonly isValidated = (slot: number): boolean => this.#validated.has(slot)
  readonly replenishIds = (): void => {}
  readonly nextPathEvent = (): PathEvent | null => this.#events.shift() ?? null
  readonly stats = (): ConnectionStats => ({
    packetsReceived: this.#received,
    packetsSent: this.#next,
    packetsLost: 0,
    bytesReceived: 0,
    bytesSent: 0,
    rttMs: this.#rtt,
    cwndBytes: 0
  })
}
