/**
 * Limits the bytes that a thread's flows buffer because nobody takes them: those that wait in the
 * sockets of applications that do not read, and those that were read from a socket and wait for
 * room in the stream. Each flow may buffer a quarter of what is left of a common budget. Abandoned
 * downloads thus cannot exhaust the memory of the process, and a flow that is read always
 * continues.
 */
import * as Limits from "../../services/telemetry/Limits.ts"

/**
 * Most bytes that all flows of a thread buffer together, not counting {@link MIN_BYTES} for each.
 * It is enough for nearly 32 flows with {@link MAX_BYTES} each. More flows together are not faster
 * with more.
 */
export const BUDGET_BYTES = 32 * 1024 * 1024
/** Most bytes that one flow buffers. A larger buffer would not make the flow faster. */
export const MAX_BYTES = 1024 * 1024
/**
 * Bytes that each flow may buffer, even if all others together use the whole budget. A program that
 * reads its socket takes this amount in well below a millisecond.
 */
export const MIN_BYTES = 16 * 1024
/** Divisor of the remaining budget: one flow may buffer this part of it. */
const SHARE = 4

/** Count of unread bytes, and the budget that limits them. */
export class Unread {
  readonly #met: (limit: Limits.Limit) => void
  #bytes = 0

  constructor(met: (limit: Limits.Limit) => void = Limits.met) {
    this.#met = met
  }

  /** Bytes that all flows buffer now. */
  get bytes(): number {
    return this.#bytes
  }

  /** Bytes that one flow may buffer now. */
  get allowance(): number {
    return Math.max(MIN_BYTES, Math.min(MAX_BYTES, Math.floor((BUDGET_BYTES - this.#bytes) / SHARE)))
  }

  /** Adds `bytes` to the total; negative to subtract. */
  change(bytes: number): void {
    const wasFull = this.#isFull
    this.#bytes += bytes
    if (this.#isFull && !wasFull) this.#met("buffers")
  }

  get #isFull(): boolean {
    return this.allowance === MIN_BYTES
  }
}

/** The instance that all flows of this thread share. */
export const unread = new Unread()
