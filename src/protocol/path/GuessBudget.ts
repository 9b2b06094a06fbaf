/** Limits of port guessing for a node, over all its sessions. Times are in ms, monotonic. */
import { TokenBucket } from "../bytes/TokenBucket.ts"

/** Average probes per second. With the burst, at most 200 are sent in any second. */
const RATE = 190
/** Probes that may be sent at once after a pause. */
export const BURST = 10
/** Most probes in any second. */
export const MAX_A_SECOND = RATE + BURST
/**
 * Most probes in an hour, so that many sessions in turn do not flood a network. It is enough for
 * some 40 attempts that fail, or 200 that succeed.
 */
export const MAX_AN_HOUR = 60_000
const HOUR_MS = 3_600_000

/** Limit of the port prediction probes of one node. */
export class GuessBudget {
  readonly #bucket: TokenBucket
  #hourFrom: number
  #spent = 0
  /**
   * The session whose extra sockets are open. One session at a time may have them, because each
   * attempt takes 256 descriptors and as many NAT mappings.
   */
  #opener: object | null = null

  constructor(now: number) {
    this.#bucket = new TokenBucket(RATE, BURST, now)
    this.#hourFrom = now
  }

  /** Returns how many of `wanted` probes may be sent now. They count as sent. */
  take(wanted: number, now: number): number {
    let taken = 0
    const most = Math.min(wanted, this.left(now))
    while (taken < most && this.#bucket.take(1, now)) taken++
    this.#spent += taken
    return taken
  }

  /** Number of probes that are left in this hour. */
  left(now: number): number {
    if (now - this.#hourFrom >= HOUR_MS) {
      this.#hourFrom = now
      this.#spent = 0
    }
    return MAX_AN_HOUR - this.#spent
  }

  /**
   * Reserves the extra sockets for a session. Returns `false` if another session's sockets are
   * open.
   */
  hold(opener: object): boolean {
    this.#opener ??= opener
    return this.#opener === opener
  }

  /** Lets another session open its extra sockets. */
  release(opener: object): void {
    if (this.#opener === opener) this.#opener = null
  }
}
