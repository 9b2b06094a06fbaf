/**
 * Time after which an unanswered packet is asked about, in milliseconds. If the question is
 * unanswered after the same time again, the peer counts as gone.
 */
export const ANSWER_MS = 1_000
/** A timer that fires this late, in milliseconds, shows that this thread did not run. */
const LATE_MS = 50

/** Options of {@link AnswerWatch}. */
export interface Options {
  /** Returns the current time in milliseconds (monotonic). */
  readonly now: () => number
  /** Sends a packet that the peer must answer. */
  readonly ask: () => void
  /** Called once, when the peer has answered neither a packet nor a question. */
  readonly onSilent: () => void
}

/**
 * Notices that a peer no longer answers. Time in which this thread did not run does not count: the
 * answer may wait in a socket that nobody has read.
 */
export class AnswerWatch {
  readonly #options: Options
  /** When the first packet that is still unanswered was sent. `Infinity` if none is. */
  #since = Infinity
  #dueAt = Infinity
  #timer: NodeJS.Timeout | null = null
  #stopped = false

  constructor(options: Options) {
    this.#options = options
  }

  /** Notes that a packet was sent. */
  sent(): void {
    if (this.#stopped) return
    const now = this.#options.now()
    if (this.#since === Infinity) this.#since = now
    if (this.#timer === null) this.#arm(now)
  }

  /** Notes that a packet of the peer has arrived. */
  answered(): void {
    this.#since = Infinity
  }

  /** Ends the watch. `onSilent` is not called any more. */
  stop(): void {
    this.#stopped = true
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
  }

  #arm(now: number): void {
    this.#dueAt = now + ANSWER_MS
    this.#timer = setTimeout(this.#onTimer, ANSWER_MS)
  }

  /** Judges after the sockets were read. An answer that has already arrived is in one of them. */
  readonly #onTimer = (): void => {
    const late = this.#options.now() - this.#dueAt
    if (late > LATE_MS) this.#since += late
    setImmediate(this.#judge)
  }

  readonly #judge = (): void => {
    this.#timer = null
    if (this.#stopped || this.#since === Infinity) return
    const now = this.#options.now()
    const silentMs = now - this.#since
    if (silentMs >= 2 * ANSWER_MS) {
      this.stop()
      return this.#options.onSilent()
    }
    this.#arm(now)
    // The last packet may have been an acknowledgement, which nobody answers.
    if (silentMs >= ANSWER_MS - 1) this.#options.ask()
  }
}
