/**
 * How long a second relay has not reached the directory. Nodes can renew no documents meanwhile if
 * the home relay is dead, so the relay goes on with those that they had.
 */
import { MAX_OUTAGE_SECONDS } from "../../protocol/trust/Documents.ts"
import { RETURN_MS } from "../../protocol/trust/Outage.ts"

/**
 * How long an outage still counts after the directory's return, in milliseconds. Nodes sign in
 * again and present their new documents meanwhile. This is twice the time that sessions get for
 * that.
 */
const RELAY_RETURN_MS = 2 * RETURN_MS

/** The present or last outage of one relay. */
export class DirectoryOutage {
  readonly #nowMs: () => number
  #lostAt: number | null = null
  #returnedAt = Infinity

  /** `nowMs` returns the time of `HostClock`, in milliseconds. */
  constructor(nowMs: () => number) {
    this.#nowMs = nowMs
  }

  /** Notes whether the directory is reached now. */
  onReach(reached: boolean): void {
    const now = this.#nowMs()
    if (reached) this.#returnedAt = Math.min(this.#returnedAt, now)
    else {
      if (this.seconds === 0) this.#lostAt = now
      this.#returnedAt = Infinity
    }
  }

  /** How long the directory has not been reached, in seconds. 0 if it is, and after 7 days. */
  get seconds(): number {
    const now = this.#nowMs()
    if (this.#lostAt === null || now - this.#returnedAt >= RELAY_RETURN_MS) return 0
    const seconds = (now - this.#lostAt) / 1000
    return seconds > MAX_OUTAGE_SECONDS ? 0 : seconds
  }
}
