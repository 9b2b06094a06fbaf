/**
 * Finds out that something between a node and its relay (a load balancer, a firewall) ends idle
 * connections, and how often the node must send to keep its own. A relay that stops or a network
 * that breaks ends a connection after any idle time. An idle timeout ends it after the same time
 * each time.
 */

/** Gap between keepalives if nothing else is known, in ms. */
export const DEFAULT_GAP_MS = 10_000
/**
 * Smallest gap between keepalives, in ms. Below it, the keepalives of many nodes would be a load of
 * their own.
 */
export const MIN_GAP_MS = 1_000
/** Share of the idle timeout after which a node sends a keepalive. */
const SHARE = 0.5
/**
 * Largest ratio of two idle times that count as the same timeout. Timers are coarse and hosts are
 * busy.
 */
const MAX_DIFFERENCE = 1.25
/** Shortest idle time that can be an idle timeout, in ms. */
const MIN_IDLE_MS = 1_000

/** An idle timeout that was found, and the gap between keepalives that it requires. */
export interface Found {
  /** Idle time after which something ended the connections, in ms. */
  readonly idleMs: number
  /** Gap between keepalives that keeps the connection, in ms. */
  readonly gapMs: number
}

/** Learns the idle timeout of one node's connections to its relay. */
export class IdleCuts {
  #gapMs = DEFAULT_GAP_MS
  #lastIdleMs: number | null = null

  /** Gap between keepalives now, in ms. */
  get gapMs(): number {
    return this.#gapMs
  }

  /**
   * Handles the end of a connection without a close message, after it was idle for `idleMs`.
   * Returns what was found if the gap has changed, and `null` otherwise.
   */
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

  /** Starts over, because another network may have another timeout, or none. */
  onNetworkChange(): void {
    this.#gapMs = DEFAULT_GAP_MS
    this.#lastIdleMs = null
  }
}
