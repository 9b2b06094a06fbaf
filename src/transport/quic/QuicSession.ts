/**
 * The end-to-end QUIC connection between a client and a connector, over eight fixed path slots. It
 * owns no socket: packets come in through `receive` and go out through `transmit`. Work is done
 * once per batch, in one turn of the event loop.
 */
import { Buffer } from "node:buffer"
import { type EndNotice, NOTICE_STREAM } from "./EndNotice.ts"
import {
  type QuicConnection,
  READ_NOTHING,
  READ_RESET,
  SLOTS,
  WRITE_LIMITED,
  WRITE_STOPPED
} from "./engine/QuicEngine.ts"
import { FloodMeter } from "./FloodMeter.ts"
import { NoticeStream } from "./NoticeStream.ts"
import { LARGEST_PACKET, MAX_TRAINS_PER_TURN, PacketSender } from "./PacketSender.ts"
import { QuicStream, type StreamOwner } from "./QuicStream.ts"
import { QuicTurns } from "./QuicTurns.ts"
import { CloseCode, type CloseReason, type SessionOptions, type SessionStats, type SlotPath } from "./SessionOptions.ts"
import { WriterQueue } from "./WriterQueue.ts"

export { CloseCode, type CloseReason, type SessionOptions, type SessionStats, type SlotPath } from "./SessionOptions.ts"

/**
 * Longest time for a handshake, in milliseconds. After that, the peer did not answer or showed no
 * certificate.
 */
export const HANDSHAKE_TIMEOUT_MS = 8_000
/**
 * Packets that a closed session may still send. If quiche 0.18 is closed by its own side before the
 * handshake is confirmed, it always has one more packet to send. Therefore the packets are counted,
 * and the session ends by its own clock.
 */
const CLOSE_PACKETS = 16
const CLOSE_PACKETS_PER_TURN = 2
/** How long a closed session still answers late packets from the peer. */
const DRAIN_MS = 1000
/**
 * Most opened streams that have not written anything yet because others fill the window. Beyond it,
 * `openStream` refuses.
 */
const MAX_WAITING_STREAMS = 1024
/** Most bytes that one stream may write before the next one's turn, while several wait for room. */
const QUANTUM_BYTES = 16 * 1024
/** Quantum while {@link CROWD} or more streams wait. */
const CROWDED_QUANTUM_BYTES = 4 * 1024
/** Number of waiting streams from which the smaller quantum applies. */
const CROWD = 64
/**
 * If nothing was accepted for this long although the path answers, the packets in flight were lost
 * on another path or in an outage of this one.
 */
const STUCK_MS = 150
/** Shortest time between two path challenges that the connector sends to the same slot. */
const CHALLENGE_MS = 100
/** Most streams that the peer may have open. A further one is reset at once. */
const MAX_OPEN_STREAMS = 4096
/** One QUIC session with a peer. Its handshake starts when it is constructed. */
export class QuicSession {
  readonly #options: SessionOptions
  readonly #connection: QuicConnection
  readonly #meter: FloodMeter
  readonly #sender: PacketSender
  readonly #streams = new Map<number, QuicStream>()
  readonly #writers = new WriterQueue()
  /**
   * Streams opened here on which nothing has been written. QUIC does not count them against the
   * peer's limit yet.
   */
  readonly #unwritten = new Set<number>()
  readonly #handshakeDeadline: number
  readonly #owner: StreamOwner
  /** Slots to probe as soon as possible. */
  readonly #probes = new Set<number>()
  /** Number of stream bytes that QUIC has accepted. */
  #written = 0
  /** When `onPathAlive` last checked. */
  #aliveAt = -Infinity
  /** Value of `#written` at that check. -1 before the first one. */
  #writtenThen = -1
  readonly #notices: NoticeStream
  #noticesWaiting = false
  /** Streams that ended by a notice. Their own end may still arrive and must be read. */
  readonly #ghosts = new Set<number>()
  #nextStream = NOTICE_STREAM + 4
  #established = false
  /** Whether early data has arrived or may be sent; see `SessionOptions.onEarly`. */
  #early = false
  #saved = false
  #closed: CloseReason | null = null
  #drained = false
  #drainAt = Infinity
  #closePackets = CLOSE_PACKETS
  readonly #turns: QuicTurns
  /** First bytes of the connection id of the last packet received in each slot. */
  readonly #lastIds = new Int32Array(SLOTS)
  /** When the connector last challenged the path of each slot. */
  readonly #challengedAt = new Float64Array(SLOTS).fill(-Infinity)

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
    this.#turns = new QuicTurns(this.#connection, this.#turn)
    this.#owner = this.#makeOwner()
    this.schedule()
  }

  /** The slot that packets are sent on. */
  get activeSlot(): number {
    return this.#sender.active
  }

  /** Whether the handshake is complete. */
  get established(): boolean {
    return this.#established
  }

  /** Reason why the session has ended. `null` while it lives. */
  get closed(): CloseReason | null {
    return this.#closed
  }

  /** Whether the session will send nothing more. Packets for it can then be dropped unread. */
  get drained(): boolean {
    return this.#drained
  }

  /**
   * Takes the content of one frame received on `slot`: `length` bytes of `buffer` from `offset`.
   * Call `schedule` after a batch.
   */
  receive(slot: number, buffer: Uint8Array, offset: number, length: number): void {
    if (this.#drained || !this.#sender.has(slot)) return
    if (this.#established || this.#early) this.#meter.received(length)
    const packet = buffer.subarray(offset, offset + length)
    if (this.#established) this.#beforePacket(slot, packet)
    this.#connection.receive(slot, packet)
    if (slot === this.#sender.active) return
    // a PATH_RESPONSE leaves by the slot of its challenge
    this.#sender.limitTo(slot)
    if (this.#options.role === "connector" && this.#established) this.#onUnproved(slot)
  }

  /**
   * Acknowledges what was received if the connection id of the slot's packets changes. The packets
   * before it may be repeated from another path (see `PacketSender.rescue`). QUIC forgets to
   * acknowledge them if the next packet confirms a later acknowledgement. The peer would then never
   * learn what the other path has lost.
   */
  #beforePacket(slot: number, packet: Uint8Array): void {
    const id = this.#connection.idOf(packet)
    if (id === this.#lastIds[slot] || this.#closed !== null) return
    this.#lastIds[slot] = id
    this.#sender.answer(this.#options.now())
  }

  /**
   * Handles a packet from a slot to which the client may be moving. Until the slot's path is
   * validated, the connector challenges it when packets arrive, at most every
   * {@link CHALLENGE_MS}. QUIC itself would wait for its timer, which may take seconds. The answer
   * leaves at once: QUIC ends the connection if a client moves to a path whose validation has
   * failed and two of its packets arrive before the next challenge is sent.
   */
  #onUnproved(slot: number): void {
    if (this.#closed !== null || this.#connection.isValidated(slot)) return
    const now = this.#options.now()
    if (now >= this.#challengedAt[slot]! + CHALLENGE_MS) {
      this.#challengedAt[slot] = now
      this.#connection.probe(slot)
    }
    this.#sender.answer(now)
  }

  /** Requests one turn: read streams, write streams, send packets. */
  schedule(): void {
    this.#turns.schedule()
  }

  /**
   * Opens a stream, which can be written to at once. Client only. `null` if the session is closed
   * or {@link MAX_WAITING_STREAMS} streams already wait for their first write.
   */
  openStream(): QuicStream | null {
    if (this.#closed !== null || this.#options.role !== "client") return null
    if (this.#unwritten.size >= MAX_WAITING_STREAMS) return null
    const stream = new QuicStream(this.#nextStream, this.#owner, true)
    this.#nextStream += 4 // client-initiated, bidirectional (RFC 9000, section 2.1)
    this.#streams.set(stream.id, stream)
    this.#unwritten.add(stream.id)
    return stream
  }

  /**
   * Assigns a path to a slot. If it replaces another path, the session sends little by it until one
   * round trip has passed.
   */
  pointSlot(slot: number, path: SlotPath): void {
    this.#sender.point(slot, path)
  }

  /**
   * Updates the packet size or head length of a slot whose path stays the same. It does not restart
   * pacing.
   */
  adjustSlot(slot: number, path: SlotPath): void {
    this.#sender.adjust(slot, path)
  }

  /**
   * Validates the path of `slot` as soon as a connection id is available. Client only.
   * `onPathValidated` reports the result.
   */
  probeSlot(slot: number): void {
    if (!this.#sender.has(slot) || this.#closed !== null) return
    this.#probes.add(slot)
    this.schedule()
  }

  /** Makes the next packet ask for an acknowledgement, as a keepalive. */
  ping(): void {
    if (this.#closed !== null) return
    this.#connection.ping()
    this.schedule()
  }

  /** Whether a stream has data that waits to be sent. */
  get hasWaiting(): boolean {
    return this.#writers.size > 0
  }

  /**
   * Restarts sending after the current path was down and has recovered. QUIC's own timer may have
   * backed off to many seconds, and packets repeated from the previous path may be lost, too. An
   * acknowledgement shows QUIC at once what was lost.
   */
  revive(): void {
    if (this.#closed === null) this.#sender.rescue(true)
    this.ping()
  }

  /**
   * Must be called when the current path has proved to work. If data waits and none was accepted
   * since the last check, at least {@link STUCK_MS} ago, the session is revived.
   */
  onPathAlive(): void {
    const now = this.#options.now()
    if (now < this.#aliveAt + STUCK_MS) return
    if (this.#writers.size > 0 && this.#written === this.#writtenThen) this.revive()
    else if (this.#closed === null) this.#sender.recheck()
    this.#aliveAt = now
    this.#writtenThen = this.#written
  }

  /**
   * Sends everything on `slot` from now on. Client only. Returns `false` if that is not possible
   * now: the session is not established, or no connection id is available.
   *
   * The peer follows when a packet arrives on the new path (RFC 9000, section 9.3), so the client
   * sends a ping there. A client that only downloads, on a path that has failed, would otherwise
   * have nothing to send.
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

  /** Whether the path of this slot has been validated. */
  isValidated(slot: number): boolean {
    return this.#connection.isValidated(slot)
  }

  /**
   * Sends a datagram (RFC 9221). Returns `false` if it is too large for the path or too many wait;
   * the caller drops it or uses a stream.
   */
  sendDatagram(data: Uint8Array): boolean {
    if (this.#closed !== null) return false
    const sent = this.#connection.sendDatagram(data)
    if (sent) this.#meter.wrote(data.length)
    this.schedule()
    return sent
  }

  /**
   * Closes the session. The streams and `onClosed` are notified at once, the peer with the next
   * packets.
   */
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
        // QUIC has not created this stream yet, so it cannot have forgotten it.
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
    const now = this.#options.now()
    this.#turns.hold()
    if (this.#closed === null) this.#serve(now)
    this.#turns.release()
    if (this.#closed === null) {
      if (this.#sender.flush(this.#options.now()) === MAX_TRAINS_PER_TURN) this.schedule()
    } else this.#closePackets -= this.#sender.flush(now, Math.min(CLOSE_PACKETS_PER_TURN, this.#closePackets))
    if (this.#connection.isClosed() || now >= this.#drainAt) this.#drain()
    else this.#turns.arm(now, this.#dueAt())
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
    // if the early data was rejected, the answer makes QUIC send it again
    if (this.#early) this.#connection.ping()
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

  /**
   * Registers a stream that the peer opened. `null` if the stream has already ended or exceeds the
   * limit.
   */
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

  /**
   * Applies received notices. Runs after the readers, because an end that arrived itself needs no
   * notice.
   */
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

  /** Reads and drops a stream without a handler up to its end, so that QUIC can forget it. */
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
      const text = fault.reason === "" && !fault.application ? `QUIC error ${fault.code}` : fault.reason
      this.#end({ kind: fault.application ? "peer" : "fault", code: fault.code, text })
    } else if (this.#connection.isTimedOut()) this.#end({ kind: "idle", code: 0, text: "nothing came from the peer" })
    else if (this.#connection.isClosed()) this.#end({ kind: "fault", code: 0, text: "connection ended" })
  }

  /** When the next turn is due even if QUIC's own timer is not, in ms. */
  #dueAt(): number {
    const handshake = this.#established || this.#closed !== null ? Infinity : this.#handshakeDeadline
    return Math.min(this.#sender.dueAt(), this.#drainAt, handshake)
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
    this.#turns.stop()
    this.#watchPeer()
  }
}

const scrap = Buffer.allocUnsafeSlow(64 * 1024)
