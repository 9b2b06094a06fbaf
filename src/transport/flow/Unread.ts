/**
 * Bytes that the sockets of a thread's flows hold because nobody reads them. Each flow may hold a quarter of what is left of a
 * common budget, so that abandoned downloads cannot take the memory of the process, and a flow that is read always goes on.
 */
import * as Limits from "../../services/telemetry/Limits.ts"

/** What all flows of a thread may hold together, beside `MIN_BYTES` for each. */
export const BUDGET_BYTES = 64 * 1024 * 1024
/** What one flow may hold: more would not make it faster. */
export const MAX_BYTES = 1024 * 1024
/** What one flow may always hold: a socket that is read takes this in well below a millisecond. */
export const MIN_BYTES = 16 * 1024
const SHARE = 4

export class Unread {
  readonly #met: (limit: Limits.Limit) => void
  #bytes = 0

  constructor(met: (limit: Limits.Limit) => void = Limits.met) {
    this.#met = met
  }

  /** Held now, by all flows. */
  get bytes(): number {
    return this.#bytes
  }

  /** What one more flow may hold. */
  get allowance(): number {
    return Math.max(MIN_BYTES, Math.min(MAX_BYTES, Math.floor((BUDGET_BYTES - this.#bytes) / SHARE)))
  }

  /** A flow holds so many bytes more, or fewer. */
  change(bytes: number): void {
    const wasFull = this.#isFull
    this.#bytes += bytes
    if (this.#isFull && !wasFull) this.#met("buffers")
  }

  get #isFull(): boolean {
    return this.allowance === MIN_BYTES
  }
}

/** That of this thread. */
export const unread = new Unread()
