/** What a node may spend on guessing ports, all its sessions together. Times: ms, monotonic. */
import { TokenBucket } from "./TokenBucket.ts"

/** With the burst, at most 200 in any second. */
const RATE = 190
export const BURST = 10
export const MAX_A_SECOND = RATE + BURST
/** Some 40 attempts that fail, or 200 that do not: a network is not to be flooded by many sessions in turn. */
export const MAX_AN_HOUR = 60_000
const HOUR_MS = 3_600_000

export class GuessBudget {
  readonly #bucket: TokenBucket
  #hourFrom: number
  #spent = 0
  /** Whose sockets are open: one session at a time, since each attempt takes 256 descriptors and as many mappings. */
  #opener: object | null = null

  constructor(now: number) {
    this.#bucket = new TokenBucket(RATE, BURST, now)
    this.#hourFrom = now
  }

  /** How many of `wanted` may be sent now; they count as sent. */
  take(wanted: number, now: number): number {
    let taken = 0
    const most = Math.min(wanted, this.left(now))
    while (taken < most && this.#bucket.take(1, now)) taken++
    this.#spent += taken
    return taken
  }

  /** In this hour. */
  left(now: number): number {
    if (now - this.#hourFrom >= HOUR_MS) {
      this.#hourFrom = now
      this.#spent = 0
    }
    return MAX_AN_HOUR - this.#spent
  }

  /** False: another session's sockets are open. */
  hold(opener: object): boolean {
    this.#opener ??= opener
    return this.#opener === opener
  }

  release(opener: object): void {
    if (this.#opener === opener) this.#opener = null
  }
}
