/**
 * Decides when a QUIC connection has its next turn: soon when there is work, or when its timer is
 * due.
 */
import type { QuicConnection } from "./engine/QuicEngine.ts"

/**
 * Turns of one connection. In a turn the owner reads, writes and sends, and then calls `arm`. There
 * is one timer and at most one turn waiting, so a packet costs no allocation here.
 */
export class QuicTurns {
  readonly #quic: Pick<QuicConnection, "timeoutMs" | "onTimeout">
  readonly #turn: () => void
  /** Whether a turn waits, or is held. */
  #due = false
  #isOver = false
  #timer: NodeJS.Timeout | null = null
  #timerAt = Infinity

  constructor(quic: Pick<QuicConnection, "timeoutMs" | "onTimeout">, turn: () => void) {
    this.#quic = quic
    this.#turn = turn
  }

  /** Runs a turn soon. Several calls before it cause only one turn. */
  schedule(): void {
    if (this.#due || this.#isOver) return
    this.#due = true
    setImmediate(this.#run)
  }

  /**
   * Ignores calls of `schedule` until `release`, because the present turn does that work itself.
   */
  hold(): void {
    this.#due = true
  }

  /** Ends a `hold`. */
  release(): void {
    this.#due = false
  }

  /**
   * Arms the one timer for QUIC's own timeout, or for `dueAt` in ms if that is earlier. The timer
   * is moved only if it would fire too late.
   */
  arm(now: number, dueAt: number): void {
    const timeout = this.#quic.timeoutMs()
    const at = timeout === null ? dueAt : Math.min(dueAt, now + timeout)
    if (at === Infinity || (this.#timer !== null && at >= this.#timerAt - 1)) return
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timerAt = at
    this.#timer = setTimeout(this.#onTimer, Math.max(1, at - now))
  }

  /** Ends all turns, also one that waits. */
  stop(): void {
    this.#isOver = true
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
  }

  readonly #run = (): void => {
    if (this.#isOver) return
    this.#due = false
    this.#turn()
  }

  readonly #onTimer = (): void => {
    this.#timer = null
    this.#timerAt = Infinity
    if (this.#quic.timeoutMs() === 0) this.#quic.onTimeout()
    this.#run()
  }
}
