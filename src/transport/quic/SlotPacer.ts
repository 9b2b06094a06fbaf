/**
 * Limits what may be sent on a slot whose path was replaced. QUIC still holds the congestion window
 * of the old path. Therefore the first round trip allows 10 packets (RFC 6928) and each later one
 * twice as many, until the limit no longer matters.
 */

/** Packets that the first round trip allows (RFC 6928). */
const INITIAL_PACKETS = 10
/** Round trips after which the limit ends. 10 packets doubled 12 times exceed any window here. */
const ROUNDS = 12
/** Shortest round. Rounds below the granularity of timers would only cost wake-ups. */
const MIN_ROUND_MS = 2

/** Pacer of one slot. It imposes no limit until `restart` is called. */
export class SlotPacer {
  #allowance = Infinity
  #spent = 0
  #round = ROUNDS
  #roundEndsAt = 0
  #roundMs = 0
  #now = 0

  /**
   * Restarts the pacing. `packetBytes` is the slot's packet size; `rttMs` is the new path's
   * round-trip time, measured by probes.
   */
  restart(now: number, packetBytes: number, rttMs: number): void {
    this.#round = 0
    this.#spent = 0
    this.#allowance = INITIAL_PACKETS * packetBytes
    this.#roundMs = Math.max(MIN_ROUND_MS, rttMs)
    this.#roundEndsAt = 0
    this.#now = now
  }

  /** Bytes that may be sent now. `Infinity` if there is no limit. */
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

  /** Counts sent bytes. The first bytes of a round start its clock. */
  spend(bytes: number): void {
    if (this.#round >= ROUNDS) return
    if (this.#roundEndsAt === 0) this.#roundEndsAt = this.#now + this.#roundMs
    this.#spent += bytes
  }

  /** When there is room again. `Infinity` if there is no limit, or if no round is running. */
  nextRoundAt(): number {
    return this.#round >= ROUNDS || this.#roundEndsAt === 0 ? Infinity : this.#roundEndsAt
  }
}
