/**
 * When this side's list of candidates is to be sent: at once, and again until the peer acknowledges it, since a peer that never learns
 * where this one has moved stays relayed. Times: ms, monotonic.
 */

/** Sent again after these gaps ... */
const GAPS_MS: ReadonlyArray<number> = [200, 400, 800, 1_600, 3_200]
/** ... and then, while a direct path is sought, after this: the peer may have been away. */
const AGAIN_MS = 5_000

export class CandidateOffer {
  #seq: number
  /** Null: none was sent yet, or the peer has acknowledged it. */
  #open: { readonly resends: number; readonly dueAt: number } | null = null

  /** The first list has a larger number than `seq`. */
  constructor(seq: number) {
    this.#seq = seq
  }

  /** Of the newest list. */
  get seq(): number {
    return this.#seq
  }

  get isOpen(): boolean {
    return this.#open !== null
  }

  /** There is another list. */
  renew(): void {
    this.#seq++
  }

  /** Sent for the first time, or begun anew. */
  onSent(now: number): void {
    this.#wait(0, now)
  }

  onSentAgain(now: number): void {
    this.#wait((this.#open?.resends ?? 0) + 1, now)
  }

  /** One of an older list says nothing. */
  onAcked(seq: number): void {
    if (seq === this.#seq) this.#open = null
  }

  /** When it is to be sent again; Infinity: it need not be. */
  dueAt(isSeeking: boolean): number {
    if (this.#open === null) return Infinity
    return this.#open.resends < GAPS_MS.length || isSeeking ? this.#open.dueAt : Infinity
  }

  #wait(resends: number, now: number): void {
    this.#open = { resends, dueAt: now + (GAPS_MS[resends] ?? AGAIN_MS) }
  }
}
