/**
 * The end-to-end QUIC connection between a client and a connector, over eight fixed path slots. It owns no socket: packets
 * come in by `receive` and leave by `transmit`. Work is done once for each batch, in one turn of the event loop.
 */
import { Buffer } from "node:buffer"
import { type EndNotice, NOTICE_STREAM } from "./EndNotice.ts"
import { FloodMeter } from "./FloodMeter.ts"
import { NoticeStream } from "./NoticeStream.ts"
import { LARGEST_PACKET, MAX_TRAINS_PER_TURN, PacketSender } from "./PacketSender.ts"
import { type QuicConnection, READ_NOTHING, READ_RESET, WRITE_LIMITED, WRITE_STOPPED } from "./QuicEngine.ts"
import { QuicStream, type StreamOwner } from "./QuicStream.ts"
import { CloseCode, type CloseReason, type SessionOptions, type SessionStats, type SlotPath } from "./SessionOptions.ts"
import { WriterQueue } from "./WriterQueue.ts"

export { CloseCode, type CloseReason, type SessionOptions, type SessionStats, type SlotPath } from "./SessionOptions.ts"

/** Nobody waits longer for a peer that does not answer, or answers without a certificate. */
export const HANDSHAKE_TIMEOUT_MS = 8_000
/**
 * quiche 0.18, closed by its own side before the handshake was confirmed, has one more packet to send for ever. So what a
 * closed session still says is counted, and it ends by our own clock.
 */
const CLOSE_PACKETS = 16
const CLOSE_PACKETS_PER_TURN = 2
const DRAIN_MS = 1000 // the peer's late packets are answered for so long
/** Streams opened of which nothing could be written yet, since others fill the window; past this `openStream` refuses. */
const MAX_WAITING_STREAMS = 1024
/** While several streams wait for room, what one of them may take before the next one's turn; less when many wait. */
const QUANTUM_BYTES = 16 * 1024
const CROWDED_QUANTUM_BYTES = 4 * 1024
const CROWD = 64
/** No progress for so long by a path that answers: what is in flight was lost with another path, or in an outage of this one. */
const STUCK_MS = 150
/** Streams that the peer may have open; one more is reset at once. */
const MAX_OPEN_STREAMS = 4096
export class QuicSession {
  readonly #options: SessionOptions
  readonly #connection: QuicConnection
  readonly #meter: FloodMeter
  readonly #sender: PacketSender
  readonly #streams = new Map<number, QuicStream>()
  readonly #writers = new WriterQueue()
  /** Opened here, nothing written yet: QUIC does not count them against the peer's limit before. */
  readonly #unwritten = new Set<number>()
  readonly #handshakeDeadline: number
  readonly #owner: StreamOwner
  /** Slots to be probed as soon as possible. */
  readonly #probes = new Set<number>()
  /** Stream bytes that QUIC took. */
  #written = 0
  /** When `onPathAlive` last looked, and `#written` then. */
  #aliveAt = -Infinity
  #writtenThen = -1
  readonly #notices: NoticeStream
  #noticesWaiting = false
  /** Streams that ended by a notice, whose own end may still come and is to be read. */
  readonly #ghosts = new Set<number>()
  #nextStream = NOTICE_STREAM + 4
  #established = false
  /** Early data came or may leave; see `SessionOptions.onEarly`. */
  #early = false
  #saved = false
  #closed: CloseReason | null = null
  #drained = false
  #drainAt = Infinity
  #closePackets = CLOSE_PACKETS
  #due = false
  #timer: NodeJS.Timeout | null = null
  #timerAt = Infinity

  constructor(options: SessionOptions) {
    this.#options = options
    const now = options.now()
    this.#meter = new FloodMeter(now, options.floodBurstBytes)
    this.#handshakeDeadline = now + HANDSHAKE_TIMEOUT_MS
    this.#connection = options.engine.open({
      role: options.role,
      certificate: options.certificate,
      privateKey: options.privateKey,
      maxPacket: LARGEST_PACKET,
      slot: options.slot,
      ...(options.resumption === undefined ? {} : { resumption: options.resumption })
    })
    this.#notices = new NoticeStream(this.#connection, options.role)
    this.#sender = new PacketSender(options, this.#connection)
    this.#owner = this.#makeOwner()
    this.schedule()
  }

  /** The slot by which packets leave. */
  get activeSlot(): number {
    return this.#sender.active
  }

  get established(): boolean {
    return this.#established
  }

  /** Null while the session lives. */
  get closed(): CloseReason | null {
    return this.#closed
  }

  /** Nothing will be sent any more; packets for this session can be dropped unseen. */
  get drained(): boolean {
    return this.#drained
  }

  /** One frame's content, `length` bytes of `buffer` from `offset`, as it came by `slot`. Call `schedule` after a batch. */
  receive(slot: number, buffer: Uint8Array, offset: number, length: number): void {
    if (this.#drained || !this.#sender.has(slot)) return
    if (this.#established || this.#early) this.#meter.received(length)
    this.#connection.receive(slot, buffer.subarray(offset, offset + length))
    if (slot !== this.#sender.active) this.#sender.limitTo(slot) // a PATH_RESPONSE leaves by the slot of its challenge
  }

  /** Asks for one turn: read streams, write streams, send packets. */
  schedule(): void {
    if (this.#due || this.#drained) return
    this.#due = true
    setImmediate(this.#turn)
  }

  /** A new stream, to be written to at once. Null: closed, or the peer's stream limit is far exceeded. Client only. */
  openStream(): QuicStream | null {
    if (this.#closed !== null || this.#options.role !== "client") return null
    if (this.#unwritten.size >= MAX_WAITING_STREAMS) return null
    const stream = new QuicStream(this.#nextStream, this.#owner, true)
    this.#nextStream += 4 // client-initiated, bidirectional (RFC 9000, section 2.1)
    this.#streams.set(stream.id, stream)
    this.#unwritten.add(stream.id)
    return stream
  }

  /** Puts a path under a slot, or another one in place of it; then little may leave until a round trip has passed. */
  pointSlot(slot: number, path: SlotPath): void {
    this.#sender.point(slot, path)
  }

  /** A better packet size or head for the same path: nothing is paced. */
  adjustSlot(slot: number, path: SlotPath): void {
    this.#sender.adjust(slot, path)
  }

  /** Client: validates the path of `slot` as soon as there is a connection id to spare; `onPathValidated` tells. */
  probeSlot(slot: number): void {
    if (!this.#sender.has(slot) || this.#closed !== null) return
    this.#probes.add(slot)
    this.schedule()
  }

  /** Keepalive: the next packet asks for an acknowledgement. */
  ping(): void {
    if (this.#closed !== null) return
    this.#connection.ping()
    this.schedule()
  }

  /**
   * The path in use was gone for a while and is back: QUIC's own timer may have backed off to many seconds, and packets that
   * were to rescue those of the path before may be lost, too. An acknowledgement tells it at once what was lost.
   */
  revive(): void {
    if (this.#closed === null) this.#sender.rescue(true)
    this.ping()
  }

  /** The path in use was just seen to work. Where nothing was taken since the last time, though something waits, it is revived. */
  onPathAlive(): void {
    const now = this.#options.now()
    if (now < this.#aliveAt + STUCK_MS) return
    if (this.#writers.size > 0 && this.#written === this.#writtenThen) this.revive()
    this.#aliveAt = now
    this.#writtenThen = this.#written
  }

  /**
   * Client: sends everything by `slot` from now on. False: not now (not established, or no connection id to spare). The peer
   * follows a packet that comes by the new path (RFC 9000, section 9.3), so one is sent even where nothing is to be said: a
   * client that only downloads by a dead path has nothing to acknowledge.
   */
  migrate(slot: number): boolean {
    if (!this.#sender.has(slot) || this.#closed !== null || !this.#established) return false
    if (slot === this.#sender.active) return true
    const done = this.#connection.migrate(slot)
    if (done) {
      this.#sender.switchTo(slot)
      this.#connection.ping()
    }
    this.schedule()
    return done
  }

  isValidated(slot: number): boolean {
    return this.#connection.isValidated(slot)
  }

  /** RFC 9221. False: too large for the path, or too many wait: the caller drops it or takes a stream. */
  sendDatagram(data: Uint8Array): boolean {
    if (this.#closed !== null) return false
    const sent = this.#connection.sendDatagram(data)
    if (sent) this.#meter.wrote(data.length)
    this.schedule()
    return sent
  }

  /** Streams and `onClosed` are told at once; the peer with the next packets. */
  close(code: number, text: string): void {
    if (this.#closed !== null) return
    this.#connection.close(code, text)
    this.#end({ kind: "local", code, text })
    this.schedule()
  }

  stats(): SessionStats {
    return {
      ...this.#connection.stats(),
      activeSlot: this.#sender.active,
      streams: this.#streams.size,
      blockedStreams: this.#writers.size
    }
  }

  #makeOwner(): StreamOwner {
    const connection = this.#connection
    return {
      read: (id, into) => {
        const got = connection.read(id, into)
        if (got > 0) {
          this.#meter.read(got)
          this.schedule() // the peer gets new credit
        }
        return got
      },
      readFinished: () => connection.readFinished(),
      write: (id, data) => {
        const others = this.#writers.size
        const quantum = others === 0 ? Infinity : others < CROWD ? QUANTUM_BYTES : CROWDED_QUANTUM_BYTES
        const part = data.length > quantum ? data.subarray(0, quantum) : data
        const taken = this.#closed === null ? connection.write(id, part) : WRITE_STOPPED
        if (taken === WRITE_LIMITED) return 0
        // A stream that QUIC has not made yet is none that it has forgotten.
        if (taken === 0 && !this.#unwritten.has(id) && connection.isForgotten(id)) return WRITE_STOPPED
        if (taken > 0) {
          if (this.#unwritten.size > 0) this.#unwritten.delete(id)
          this.#meter.wrote(taken)
          this.#written += taken
          this.schedule()
        }
        return taken
      },
      finish: (id) => {
        this.schedule()
        return this.#closed !== null || connection.finish(id)
      },
      reset: (id, code) => {
        this.schedule()
        connection.reset(id, code)
      },
      stop: (id, code) => {
        this.schedule()
        connection.stop(id, code)
      },
      blocked: (stream, small) => this.#writers.add(stream, small),
      unblocked: (stream) => this.#writers.delete(stream),
      allowUnread: (bytes) => this.#meter.allow(bytes),
      forgiveUnread: (bytes) => this.#meter.forgive(bytes),
      announce: (stream, kind, bytes) => this.#notices.send({ stream, kind, bytes }),
      endedByNotice: (id) => this.#ghosts.add(id),
      over: (stream) => {
        this.#streams.delete(stream.id)
        this.#unwritten.delete(stream.id)
      }
    }
  }

  readonly #turn = (): void => {
    if (this.#drained) return
    const now = this.#options.now()
    this.#due = true // what is asked for meanwhile is done by this very turn
    if (this.#closed === null) this.#serve(now)
    this.#due = false
    if (this.#closed === null) {
      if (this.#sender.flush(this.#options.now()) === MAX_TRAINS_PER_TURN) this.schedule()
    } else this.#closePackets -= this.#sender.flush(now, Math.min(CLOSE_PACKETS_PER_TURN, this.#closePackets))
    if (this.#connection.isClosed() || now >= this.#drainAt) this.#drain()
    else this.#armTimer(now)
  }

  #serve(now: number): void {
    if (!this.#established) {
      if (this.#connection.isEstablished()) this.#onEstablished()
      else if (now >= this.#handshakeDeadline) this.close(CloseCode.handshakeTimeout, "handshake timed out")
      else if (this.#connection.isEarly()) this.#onEarly()
    }
    if ((this.#established || this.#early) && this.#closed === null) {
      if (this.#established) this.#serveEstablished()
      this.#serveReaders()
      this.#serveNotices()
      this.#serveDatagrams()
      this.#writers.serve(this.#bytesWritten, this.#anyWritable)
      this.#notices.flush()
      this.#serveProbes()
      this.#judge(now)
    }
    if (this.#closed === null) this.#watchPeer()
  }

  #serveEstablished(): void {
    this.#connection.replenishIds()
    this.#followPaths()
    if (this.#saved || this.#options.onSavedSession === undefined) return
    const session = this.#connection.savedSession()
    if (session === null) return
    this.#saved = true
    this.#options.onSavedSession(session)
  }

  #onEarly(): void {
    if (this.#early || this.#options.onEarly === undefined) return
    this.#early = true
    this.#options.onEarly(this.#connection.peerCertificate())
  }

  #onEstablished(): void {
    const certificate = this.#connection.peerCertificate()
    if (certificate === null) return this.close(CloseCode.identity, "no certificate")
    this.#established = true
    if (this.#early) this.#connection.ping() // where no early data was taken, its answer tells QUIC to send it again
    this.#sender.onEstablished()
    this.#options.onEstablished(certificate)
  }

  #followPaths(): void {
    for (let event = this.#connection.nextPathEvent(); event !== null; event = this.#connection.nextPathEvent()) {
      if (event._tag === "Validated") this.#options.onPathValidated?.(event.slot)
      else {
        this.#sender.switchTo(event.slot)
        this.#options.onPeerMigrated?.(event.slot)
      }
    }
  }

  #serveReaders(): void {
    for (const id of this.#connection.readable()) {
      if (id === NOTICE_STREAM) {
        this.#noticesWaiting = true
        continue
      }
      const stream = this.#streams.get(id) ?? this.#newStream(id)
      if (stream === null) continue
      if (stream.handler === null) this.#discard(stream)
      else stream.handler.onReadable()
      if (this.#closed !== null) return
    }
  }

  /** A stream that the peer opened; or null, when it is one that is over already, or one too many. */
  #newStream(id: number): QuicStream | null {
    if (this.#ghosts.has(id)) {
      const got = this.#connection.read(id, scrap)
      if (got === READ_RESET || this.#connection.readFinished()) this.#ghosts.delete(id)
      return null
    }
    const stream = new QuicStream(id, this.#owner, false)
    if (this.#streams.size >= MAX_OPEN_STREAMS) {
      stream.abort(CloseCode.denied)
      return null
    }
    this.#streams.set(id, stream)
    this.#options.onStream(stream)
    const early = this.#notices.early(id)
    if (early !== null) stream.onNotice(early.kind, early.bytes)
    return stream
  }

  /** After the readers: an end that came by itself needs no notice. */
  #serveNotices(): void {
    if (this.#noticesWaiting) {
      this.#noticesWaiting = false
      const told = (notice: EndNotice) => {
        const stream = this.#streams.get(notice.stream)
        if (stream === undefined) this.#notices.keep(notice)
        else stream.onNotice(notice.kind, notice.bytes)
      }
      if (!this.#notices.receive(told)) this.close(CloseCode.protocol, "not a notice")
    }
    this.#notices.flush()
    if (this.#notices.isStuck) this.close(CloseCode.protocol, "notices are not read")
  }

  /** Nobody wants it: read to the end, so that QUIC can forget the stream. */
  #discard(stream: QuicStream): void {
    for (let budget = 64; budget > 0 && !stream.readOver; budget -= 1) {
      if (stream.read(scrap) === READ_NOTHING) return
    }
  }

  #serveDatagrams(): void {
    const { onDatagram } = this.#options
    if (onDatagram === undefined) return
    for (let data = this.#connection.receiveDatagram(); data !== null; data = this.#connection.receiveDatagram()) {
      this.#meter.read(data.length)
      onDatagram(data)
    }
  }

  readonly #bytesWritten = (): number => this.#written
  readonly #anyWritable = (): boolean => this.#connection.anyWritable()

  #serveProbes(): void {
    for (const slot of this.#probes) {
      if (!this.#connection.probe(slot)) return
      this.#probes.delete(slot)
      this.#sender.limitTo(slot)
    }
  }

  #judge(now: number): void {
    if (!this.#meter.exhausted(now) || !this.#meter.convicts(this.#connection.stats().packetsReceived)) return
    this.close(CloseCode.flood, "packets without progress")
  }

  #watchPeer(): void {
    const fault = this.#connection.fault()
    if (fault !== null) {
      this.#end({ kind: fault.application ? "peer" : "fault", code: fault.code, text: fault.reason })
    } else if (this.#connection.isTimedOut()) this.#end({ kind: "idle", code: 0, text: "nothing came from the peer" })
    else if (this.#connection.isClosed()) this.#end({ kind: "fault", code: 0, text: "connection ended" })
  }

  /** One timer, moved only when it would fire too late. */
  #armTimer(now: number): void {
    const timeout = this.#connection.timeoutMs()
    let at = timeout === null ? Infinity : now + timeout
    if (!this.#established && this.#closed === null) at = Math.min(at, this.#handshakeDeadline)
    at = Math.min(at, this.#sender.dueAt(), this.#drainAt)
    if (at === Infinity || (this.#timer !== null && at >= this.#timerAt - 1)) return
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timerAt = at
    this.#timer = setTimeout(this.#onTimer, Math.max(1, at - now))
  }

  readonly #onTimer = (): void => {
    this.#timer = null
    this.#timerAt = Infinity
    if (this.#drained) return
    if (this.#connection.timeoutMs() === 0) this.#connection.onTimeout()
    this.#turn()
  }

  #end(reason: CloseReason): void {
    if (this.#closed !== null) return
    this.#closed = reason
    this.#drainAt = this.#options.now() + DRAIN_MS
    const streams = [...this.#streams.values()]
    this.#streams.clear()
    this.#writers.clear()
    this.#unwritten.clear()
    this.#ghosts.clear()
    for (const stream of streams) stream.handler?.onClosed()
    this.#options.onClosed(reason)
  }

  #drain(): void {
    this.#drained = true
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    this.#watchPeer()
  }
}

const scrap = Buffer.allocUnsafeSlow(64 * 1024)
