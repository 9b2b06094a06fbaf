/**
 * How much may leave by a slot whose path was replaced. QUIC still holds the old path's congestion window, so the first
 * round trip lets 10 packets through (RFC 6928) and each later one twice as much, until the limit no longer means anything.
 */
const INITIAL_PACKETS = 10
/** 10 packets doubled 12 times is more than any window here. */
const ROUNDS = 12
/** Rounds shorter than the timers' own grain would only cost wake-ups. */
const MIN_ROUND_MS = 2

export class SlotPacer {
  #allowance = Infinity
  #spent = 0
  #round = ROUNDS
  #roundEndsAt = 0
  #roundMs = 0
  #now = 0

  /** Begins anew: `packetBytes` is the slot's packet size and `rttMs` the new path's round trip, measured by probes. */
  restart(now: number, packetBytes: number, rttMs: number): void {
    this.#round = 0
    this.#spent = 0
    this.#allowance = INITIAL_PACKETS * packetBytes
    this.#roundMs = Math.max(MIN_ROUND_MS, rttMs)
    this.#roundEndsAt = 0
    this.#now = now
  }

  /** Bytes that may leave now. */
  room(now: number): number {
    if (this.#round >= ROUNDS) return Infinity
    this.#now = now
    if (this.#roundEndsAt !== 0 && now >= this.#roundEndsAt) {
      this.#round += 1
      this.#allowance *= 2
      this.#spent = 0
      this.#roundEndsAt = 0
      if (this.#round >= ROUNDS) return Infinity
    }
    return Math.max(0, this.#allowance - this.#spent)
  }

  /** The first bytes of a round start its clock. */
  spend(bytes: number): void {
    if (this.#round >= ROUNDS) return
    if (this.#roundEndsAt === 0) this.#roundEndsAt = this.#now + this.#roundMs
    this.#spent += bytes
  }

  /** When there is room again; Infinity while there is no limit. */
  nextRoundAt(): number {
    return this.#round >= ROUNDS || this.#roundEndsAt === 0 ? Infinity : this.#roundEndsAt
  }
}
