/**
 * A node's knowledge of the directory's clock. Documents are judged by that clock and by no other,
 * so that a node whose own clock is wrong works as well as any. Times are milliseconds. "Host"
 * readings come from one clock that nobody can set and that runs on while the machine sleeps.
 * "Directory" readings are epoch milliseconds, as the relay of the directory reports them.
 */

/**
 * One answer of the directory. The directory read its clock at some moment between `sentAt` and
 * `receivedAt`.
 */
export interface Sample {
  /** Time of the directory's clock, in ms since the epoch. */
  readonly directoryMs: number
  /** Host time when the question was sent, in ms. */
  readonly sentAt: number
  /** Host time when the answer arrived, in ms. */
  readonly receivedAt: number
}

/**
 * Bounds of how far the directory's clock is ahead of the host's. They were true at host time `at`.
 */
export interface Estimate {
  /** Least time by which the directory's clock is ahead of the host's, in ms. */
  readonly low: number
  /** Greatest time by which the directory's clock is ahead of the host's, in ms. */
  readonly high: number
  /** Host time at which both bounds were true, in ms. */
  readonly at: number
}

/**
 * Largest drift of two quartz clocks against each other, as a fraction. It is several times what
 * hardware clocks are specified for.
 */
export const MAX_DRIFT = 500e-6

/**
 * Returns a new estimate that includes one more sample. If the sample agrees with the earlier ones,
 * the bounds become narrower, so a slow answer does no harm. If it contradicts them, one of the
 * clocks was changed or stopped, and only the new sample counts.
 */
export const learn = (before: Estimate | null, { directoryMs, receivedAt, sentAt }: Sample): Estimate => {
  const fresh: Estimate = {
    low: directoryMs - receivedAt,
    high: directoryMs - Math.min(sentAt, receivedAt),
    at: receivedAt
  }
  if (before === null) return fresh
  const drift = Math.max(0, receivedAt - before.at) * MAX_DRIFT
  const low = Math.max(fresh.low, before.low - drift)
  const high = Math.min(fresh.high, before.high + drift)
  return low <= high ? { low, high, at: receivedAt } : fresh
}

/** Returns how far the directory's clock is ahead of the host's: the middle of what is possible. */
export const offsetOf = ({ high, low }: Estimate): number => (low + high) / 2

/** Returns how wrong `offsetOf` can be, in either direction. */
export const errorOf = ({ high, low }: Estimate): number => (high - low) / 2

/**
 * Largest step back of the directory's clock for which a node's time stands still instead. If the
 * clock goes back further, the directory was restored or its clock was corrected, and the node
 * follows at once.
 */
export const MAX_HELD_MS = 5_000

/**
 * The directory's time, as one judge of documents reads it. It does not run back if a better
 * estimate is a little lower.
 */
export class DirectoryTime {
  readonly #hostMs: () => number
  #offset: number | null = null
  #latest = -Infinity

  constructor(hostMs: () => number) {
    this.#hostMs = hostMs
  }

  /** Takes a new estimate. `offsetMs` is how far the directory's clock is ahead of the host's. */
  set(offsetMs: number): void {
    this.#offset = offsetMs
    if (this.#latest - (this.#hostMs() + offsetMs) > MAX_HELD_MS) this.#latest = -Infinity
  }

  /** Whether the directory has said its time. */
  get isKnown(): boolean {
    return this.#offset !== null
  }

  /**
   * Returns epoch milliseconds by the directory's clock. `null` before the directory has said its
   * time.
   */
  nowMs(): number | null {
    if (this.#offset === null) return null
    this.#latest = Math.max(this.#latest, this.#hostMs() + this.#offset)
    return this.#latest
  }

  /**
   * Returns epoch seconds by the directory's clock, for documents. `NaN` before the time is known,
   * so that every document is refused.
   */
  nowSeconds(): number {
    return Math.floor((this.nowMs() ?? Number.NaN) / 1000)
  }
}

/** Smallest error of a machine's clock that is reported, in milliseconds. */
export const TELL_SKEW_MS = 10_000

/**
 * Returns a text for people about a node's clock. `aheadMs` is how far the clock of the node's
 * machine is ahead of the directory's.
 */
export const skewText = (aheadMs: number): string =>
  `this machine's clock is ${spanText(Math.abs(aheadMs))} ${aheadMs > 0 ? "ahead of" : "behind"} the relay's`

/**
 * Returns a text for people about the relay's clock. `aheadMs` is how far the clock of the relay's
 * machine is ahead of the directory's time.
 */
export const clockSetText = (aheadMs: number): string =>
  `this machine's clock is ${spanText(Math.abs(aheadMs))} ${
    aheadMs > 0 ? "ahead of" : "behind"
  } the directory's time: it was changed ` +
  "after the relay started, or set back before that; everything goes on with the directory's time"

/**
 * Returns a time span in the unit that suits: seconds below two minutes, minutes below two hours,
 * hours below two days.
 */
export const spanText = (ms: number): string => {
  const seconds = Math.round(ms / 1000)
  if (seconds < 120) return `${seconds} s`
  const minutes = Math.round(seconds / 60)
  if (minutes < 120) return `${minutes} min`
  const hours = Math.round(minutes / 60)
  return hours < 48 ? `${hours} h` : `${Math.round(hours / 24)} days`
}
