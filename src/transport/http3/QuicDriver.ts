/** Drives one QUIC connection: packets in and out, its timer and its end. What its streams say is the owner's. */
import { ErrorCode } from "../../protocol/Http3.ts"
import { FloodMeter } from "../quic/FloodMeter.ts"
import type { ConnectionFault, QuicConnection } from "../quic/QuicEngine.ts"
import { TrainSender, type Transmit } from "./TrainSender.ts"

/** Keeps translators' mappings and both idle timers alive. */
const KEEPALIVE_MS = 15_000
/** An answer that has not come after so long is asked for, and after as long again the peer is dead. */
const SILENCE_MS = 1_000

export interface Options {
  readonly quic: QuicConnection
  readonly transmit: Transmit
  /** ms, monotonic. */
  readonly now: () => number
  /** In each turn once the handshake is over: reads and writes streams. */
  readonly serve: () => void
  /**
   * A client sends a handshake's packets again early, and gives up a peer that answers nothing for 2 s. A server does neither: before
   * it has heard from an address twice it sends no more than three times what came from there (RFC 9000, section 8.1).
   */
  readonly role: "client" | "server"
  /** Once. `fault` null: nothing came any more, or the handshake failed without a word. */
  readonly onClosed: (fault: ConnectionFault | null) => void
  /** Once, after `onClosed`: the peer has been told, and no packet is of use any more. */
  readonly onGone: () => void
}

export class QuicDriver {
  readonly meter: FloodMeter
  readonly #options: Options
  readonly #quic: QuicConnection
  readonly #sender: TrainSender
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
    this.#sender = new TrainSender(options.quic, options.role === "client", (slot, buffer, length, segment) => {
      if (options.role === "client") this.#awaitAnswer()
      options.transmit(slot, buffer, length, segment)
    })
    this.#keepalive = setInterval(() => {
      this.#quic.ping()
      this.schedule()
    }, KEEPALIVE_MS)
    this.#keepalive.unref()
  }

  get isClosed(): boolean {
    return this.#closed
  }

  receive(slot: number, packet: Uint8Array): void {
    if (this.#gone) return
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

  /** Without a word to a peer that has not proved that it is there. */
  drop(code: number, reason: string): void {
    if (this.#established) return this.close(code, reason)
    this.#end(null)
    this.#leave()
  }

  readonly #turn = (): void => {
    this.#due = false
    if (this.#gone) return
    const now = this.#options.now()
    if (!this.#closed) this.#serve(now)
    this.#watch()
    if (this.#sender.flush(now)) this.schedule()
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
    while (this.#quic.nextPathEvent() !== null) { /* each packet says itself by which path it leaves */ }
    this.#options.serve()
    if (this.meter.exhausted(now) && this.meter.convicts(this.#quic.stats().packetsReceived)) {
      this.close(ErrorCode.excessiveLoad, "packets without progress")
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
    if (this.#gone) return
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
