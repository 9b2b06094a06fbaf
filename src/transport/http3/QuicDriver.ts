/** Drives one QUIC connection: packets in and out, its timer and its end. What its streams say is the owner's. */
import { FloodMeter } from "../quic/FloodMeter.ts"
import { MAX_TRAINS_PER_TURN, PacketSender, type SenderOptions } from "../quic/PacketSender.ts"
import type { ConnectionFault, QuicConnection } from "../quic/QuicEngine.ts"
import { MAX_PACKET } from "./QuicheHttp3.ts"

/** Keeps translators' mappings and both idle timers alive. */
const KEEPALIVE_MS = 15_000
/** An answer that has not come after so long is asked for, and after as long again the peer is dead. */
const SILENCE_MS = 1_000
/** RFC 9114, section 8.1: H3_EXCESSIVE_LOAD. */
const EXCESSIVE_LOAD = 0x107
/** All of a connection's paths are alike. */
const PATH = { headBytes: 0, maxPacket: MAX_PACKET }

export interface Options {
  readonly quic: QuicConnection
  readonly transmit: SenderOptions["transmit"]
  /** ms, monotonic. */
  readonly now: () => number
  /** In each turn once the handshake is over: reads and writes streams. */
  readonly serve: () => void
  /** Whether a peer that answers nothing for 2 s is given up; else it is after the idle timeout. */
  readonly isImpatient?: boolean
  /** Once. `fault` null: nothing came any more, or the handshake failed without a word. */
  readonly onClosed: (fault: ConnectionFault | null) => void
  /** Once, after `onClosed`: the peer has been told, and no packet is of use any more. */
  readonly onGone: () => void
}

export class QuicDriver {
  readonly meter: FloodMeter
  readonly #options: Options
  readonly #quic: QuicConnection
  readonly #sender: PacketSender
  readonly #keepalive: NodeJS.Timeout
  #timer: NodeJS.Timeout | null = null
  #timerAt = Infinity
  /** Of a peer that is to answer: since the first packet that left after the last one that came. */
  #silentSince = Infinity
  #silence: NodeJS.Timeout | null = null
  #due = false
  #established = false
  #closed = false
  #gone = false

  constructor(options: Options) {
    this.#options = options
    this.#quic = options.quic
    this.meter = new FloodMeter(options.now())
    const transmit: Options["transmit"] = (...train) => {
      if (options.isImpatient === true) this.#awaitAnswer()
      options.transmit(...train)
    }
    this.#sender = new PacketSender({ ...options, transmit, slot: 0, path: PATH }, options.quic)
    this.#keepalive = setInterval(() => {
      this.#quic.ping()
      this.schedule()
    }, KEEPALIVE_MS)
    this.#keepalive.unref()
  }

  get isEstablished(): boolean {
    return this.#established
  }

  get isClosed(): boolean {
    return this.#closed
  }

  receive(slot: number, packet: Uint8Array): void {
    if (this.#gone) return
    if (!this.#sender.has(slot)) this.#sender.point(slot, PATH)
    this.#silentSince = Infinity
    this.meter.received(packet.length)
    this.#quic.receive(slot, packet)
    this.schedule()
  }

  /** A turn soon, however often it is asked for. */
  schedule(): void {
    if (this.#due || this.#gone) return
    this.#due = true
    setImmediate(this.#turn)
  }

  /** `code` is HTTP/3's. The owner is told at once, the peer with the next packets. */
  close(code: number, reason: string): void {
    if (this.#closed) return
    this.#quic.close(code, reason)
    this.#end({ application: true, code, reason })
    this.schedule()
  }

  readonly #turn = (): void => {
    this.#due = false
    if (this.#gone) return
    const now = this.#options.now()
    if (!this.#closed) this.#serve(now)
    this.#watch()
    if (this.#sender.flush(now) === MAX_TRAINS_PER_TURN) this.schedule()
    if (this.#quic.isClosed()) this.#leave()
    else this.#armTimer(now)
  }

  #serve(now: number): void {
    if (!this.#established) {
      if (!this.#quic.isEstablished()) return
      this.#established = true
      this.#sender.onEstablished()
    }
    this.#quic.replenishIds()
    for (let event = this.#quic.nextPathEvent(); event !== null; event = this.#quic.nextPathEvent()) {
      if (event._tag === "PeerMigrated") this.#sender.switchTo(event.slot)
    }
    this.#options.serve()
    if (this.meter.exhausted(now) && this.meter.convicts(this.#quic.stats().packetsReceived)) {
      this.close(EXCESSIVE_LOAD, "packets without progress")
    }
  }

  #watch(): void {
    const fault = this.#quic.fault()
    if (fault !== null || this.#quic.isTimedOut() || this.#quic.isClosed()) this.#end(fault)
  }

  #end(fault: ConnectionFault | null): void {
    if (this.#closed) return
    this.#closed = true
    clearInterval(this.#keepalive)
    this.#options.onClosed(fault)
  }

  #awaitAnswer(): void {
    const now = this.#options.now()
    if (this.#silentSince > now) this.#silentSince = now
    this.#silence ??= setTimeout(this.#onSilence, SILENCE_MS)
  }

  /** What left last may have been an acknowledgement, which nobody answers: so an answer is asked for first. */
  readonly #onSilence = (): void => {
    this.#silence = null
    if (this.#gone || this.#silentSince === Infinity) return
    const silentMs = this.#options.now() - this.#silentSince
    if (silentMs >= 2 * SILENCE_MS) {
      this.#end(null)
      return this.#leave()
    }
    this.#silence = setTimeout(this.#onSilence, SILENCE_MS)
    if (silentMs < SILENCE_MS - 1) return
    this.#quic.ping()
    this.schedule()
  }

  #leave(): void {
    this.#gone = true
    if (this.#silence !== null) clearTimeout(this.#silence)
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#options.onGone()
  }

  #armTimer(now: number): void {
    const timeout = this.#quic.timeoutMs()
    const at = Math.min(timeout === null ? Infinity : now + timeout, this.#sender.dueAt())
    if (at === Infinity || (this.#timer !== null && at >= this.#timerAt - 1)) return
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timerAt = at
    this.#timer = setTimeout(this.#onTimer, Math.max(1, at - now))
  }

  readonly #onTimer = (): void => {
    this.#timer = null
    this.#timerAt = Infinity
    if (this.#gone) return
    if (this.#quic.timeoutMs() === 0) this.#quic.onTimeout()
    this.#turn()
  }
}
