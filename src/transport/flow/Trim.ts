/** Gives the memory of flows that have ended back to the system: the allocator alone would keep it for the life of the process. */
import * as Libc from "../udp/Libc.ts"

/** Flows that must have ended since the last time: fewer held too little. */
export const ENDED_FLOWS = 64
/** How long no flow must have ended: memory that is wanted again at once is better kept, ms. */
export const QUIET_MS = 5_000

export class Trim {
  readonly #trim: () => void
  #flows = 0
  #ended = 0
  #changedAt = 0

  constructor(trim: () => void = trimNow) {
    this.#trim = trim
  }

  /** To be called about once a second. `flows`: how many there are. `now`: milliseconds, monotonic. */
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
