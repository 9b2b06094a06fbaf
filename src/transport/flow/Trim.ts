/**
 * Returns the memory of ended flows to the system. The allocator alone would keep it for the life
 * of the process.
 */
import * as Libc from "../udp/Libc.ts"

/** Number of flows that must have ended since the last trim. Fewer held too little memory. */
export const ENDED_FLOWS = 64
/**
 * Time in milliseconds during which the number of flows must not have changed. Memory that is
 * needed again soon is better kept.
 */
export const QUIET_MS = 5_000

/** Decides when the process returns memory to the system. `trim` returns it. */
export class Trim {
  readonly #trim: () => void
  #flows = 0
  #ended = 0
  #changedAt = 0

  constructor(trim: () => void = trimNow) {
    this.#trim = trim
  }

  /**
   * Trims if it is worthwhile. Call it about once a second. `flows` is the current number of flows;
   * `now` is in milliseconds, monotonic.
   */
  tick(flows: number, now: number): void {
    if (flows < this.#flows) this.#ended += this.#flows - flows
    if (flows !== this.#flows) this.#changedAt = now
    this.#flows = flows
    if (this.#ended < ENDED_FLOWS || now - this.#changedAt < QUIET_MS) return
    this.#ended = 0
    this.#trim()
  }
}

const trimNow = (): void => {
  const libc = Libc.load()
  if ("trim" in libc) libc.trim()
}
