/**
 * Drives one QUIC connection: its packets in both directions, its timer and its end. The owner
 * handles its streams.
 */
import { ErrorCode } from "../../protocol/http3/Http3.ts"
import type { ConnectionFault, QuicConnection } from "../quic/engine/QuicEngine.ts"
import { FloodMeter } from "../quic/FloodMeter.ts"
import { QuicTurns } from "../quic/QuicTurns.ts"
import { AnswerWatch } from "./AnswerWatch.ts"
import { TrainSender, type Transmit } from "./TrainSender.ts"

/** Interval of pings in milliseconds. They keep NAT mappings and both idle timers alive. */
const KEEPALIVE_MS = 15_000

/** Options of {@link QuicDriver}. */
export interface Options {
  readonly quic: QuicConnection
  readonly transmit: Transmit
  /** Returns the current time in milliseconds (monotonic). */
  readonly now: () => number
  /** Reads and writes the streams. Called in each turn after the handshake. */
  readonly serve: () => void
  /**
   * Side of the connection. A client repeats its handshake packets early, and stops if the peer has
   * not answered for 2 s. A server does neither. Until it has heard from an address twice, it sends
   * at most three times the bytes that came from there (RFC 9000, section 8.1).
   */
  readonly role: "client" | "server"
  /**
   * Called once, when the connection has ended. `fault` is `null` if the peer fell silent, or if
   * the handshake failed without a reason.
   */
  readonly onClosed: (fault: ConnectionFault | null) => void
  /**
   * Called once, after `onClosed`, when the peer has been notified and the connection needs no more
   * packets.
   */
  readonly onGone: () => void
}

/** Runs a connection in turns: a turn serves streams, sends packets and sets the timer. */
export class QuicDriver {
  readonly meter: FloodMeter
  readonly #options: Options
  readonly #quic: QuicConnection
  readonly #sender: TrainSender
  readonly #keepalive: NodeJS.Timeout
  readonly #turns: QuicTurns
  /** Watches for answers. `null` at a server. */
  readonly #answers: AnswerWatch | null
  #established = false
  #closed = false
  #gone = false

  constructor(options: Options) {
    this.#options = options
    this.#quic = options.quic
    this.meter = new FloodMeter(options.now())
    this.#turns = new QuicTurns(options.quic, this.#turn)
    const answers = options.role === "server" ? null : new AnswerWatch({
      now: options.now,
      ask: () => {
        this.#quic.ping()
        this.schedule()
      },
      onSilent: () => {
        this.#end(null)
        this.#leave()
      }
    })
    this.#answers = answers
    this.#sender = new TrainSender(options.quic, options.role === "client", (slot, buffer, length, segment) => {
      answers?.sent()
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
    this.#answers?.answered()
    this.meter.received(packet.length)
    this.#quic.receive(slot, packet)
    this.schedule()
  }

  /** Runs a turn soon. Several calls before it cause only one turn. */
  schedule(): void {
    this.#turns.schedule()
  }

  /**
   * Closes the connection with an HTTP/3 error code. The owner is notified at once, the peer with
   * the next packets.
   */
  close(code: number, reason: string): void {
    if (this.#closed) return
    this.#quic.close(code, reason)
    this.#end({ application: true, code, reason })
    this.schedule()
  }

  /** Ends the connection. A peer that has not proved its address is not notified. */
  drop(code: number, reason: string): void {
    if (this.#established) return this.close(code, reason)
    this.#end(null)
    this.#leave()
  }

  readonly #turn = (): void => {
    const now = this.#options.now()
    if (!this.#closed) this.#serve(now)
    this.#watch()
    if (this.#sender.flush(now)) this.schedule()
    if (this.#quic.isClosed()) this.#leave()
    else this.#turns.arm(now, this.#sender.dueAt())
  }

  #serve(now: number): void {
    if (!this.#established) {
      if (!this.#quic.isEstablished()) return
      this.#established = true
      this.#sender.onEstablished()
    }
    this.#quic.replenishIds()
    while (this.#quic.nextPathEvent() !== null) { /* each packet names its path itself */ }
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

  #leave(): void {
    if (this.#gone) return
    this.#gone = true
    this.#answers?.stop()
    this.#turns.stop()
    this.#options.onGone()
  }
}
