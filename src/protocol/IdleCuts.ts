/**
 * Finds out that something between a node and its relay ends connections that are idle (a balancer, a firewall), and how often the
 * node must speak to keep its own. A relay that stops or a network that breaks ends a connection after any idle time; an idle
 * time-out ends it after the same one each time.
 */

/** Gap between keepalives where nothing else is known, ms. */
export const DEFAULT_GAP_MS = 10_000
/** Smallest gap, ms: below it the keepalives of many nodes would be a load of their own. */
export const MIN_GAP_MS = 1_000
/** Share of the idle time-out after which a node speaks. */
const SHARE = 0.5
/** Two idle times are those of one time-out if the longer one is at most this much longer: timers are coarse, hosts busy. */
const MAX_DIFFERENCE = 1.25
/** Shorter idle times are no idle time-out. */
const MIN_IDLE_MS = 1_000

export interface Found {
  readonly idleMs: number
  readonly gapMs: number
}

export class IdleCuts {
  #gapMs = DEFAULT_GAP_MS
  #lastIdleMs: number | null = null

  get gapMs(): number {
    return this.#gapMs
  }

  /** A connection ended without a close message after it had been idle for `idleMs`. Answers if the gap is another one now. */
  onCut(idleMs: number): Found | null {
    const before = this.#lastIdleMs
    this.#lastIdleMs = idleMs >= MIN_IDLE_MS ? idleMs : null
    if (before === null || this.#lastIdleMs === null) return null
    if (Math.max(before, idleMs) > MAX_DIFFERENCE * Math.min(before, idleMs)) return null
    const gapMs = Math.max(MIN_GAP_MS, Math.floor(SHARE * Math.min(before, idleMs)))
    if (gapMs >= this.#gapMs) return null
    this.#gapMs = gapMs
    this.#lastIdleMs = null
    return { idleMs: Math.round(Math.min(before, idleMs)), gapMs }
  }

  /** Another network may have another time-out, or none. */
  onNetworkChange(): void {
    this.#gapMs = DEFAULT_GAP_MS
    this.#lastIdleMs = null
  }
}
