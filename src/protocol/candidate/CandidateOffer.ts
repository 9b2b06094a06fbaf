/**
 * Schedule for sending this side's list of candidates: at once, and again until the peer
 * acknowledges it. A peer that never learns where this side has moved stays relayed. Times are in
 * ms, monotonic.
 */

/** Gaps after which a list is sent again, in order. */
const GAPS_MS: ReadonlyArray<number> = [200, 400, 800, 1_600, 3_200]
/**
 * Gap between sends after the last of {@link GAPS_MS}, while a direct path is sought. The peer may
 * have been away.
 */
const AGAIN_MS = 5_000

/** Schedule for one session's list of candidates. */
export class CandidateOffer {
  #seq: number
  /**
   * State of a list that waits for its acknowledgement. `null` if none was sent yet, or the peer
   * has acknowledged it.
   */
  #open: { readonly resends: number; readonly dueAt: number } | null = null

  /** Makes an offer whose first list has a larger number than `seq`. */
  constructor(seq: number) {
    this.#seq = seq
  }

  /** Number of the newest list. */
  get seq(): number {
    return this.#seq
  }

  /** Whether a list waits for its acknowledgement. */
  get isOpen(): boolean {
    return this.#open !== null
  }

  /** Gives the next list a new number, because its contents changed. */
  renew(): void {
    this.#seq++
  }

  /** Notes that the list was sent. The schedule for sending it again begins, or starts over. */
  onSent(now: number): void {
    this.#wait(0, now)
  }

  /** Notes that the list was sent again, as scheduled. */
  onSentAgain(now: number): void {
    this.#wait((this.#open?.resends ?? 0) + 1, now)
  }

  /** Handles an acknowledgement. One for an older list has no effect. */
  onAcked(seq: number): void {
    if (seq === this.#seq) this.#open = null
  }

  /** When the list is to be sent again. `Infinity` if it need not be. */
  dueAt(isSeeking: boolean): number {
    if (this.#open === null) return Infinity
    return this.#open.resends < GAPS_MS.length || isSeeking ? this.#open.dueAt : Infinity
  }

  #wait(resends: number, now: number): void {
    this.#open = { resends, dueAt: now + (GAPS_MS[resends] ?? AGAIN_MS) }
  }
}
