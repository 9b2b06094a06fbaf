/**
 * Search for the largest packet that one path carries, by padded probes (RFC 8899), without I/O.
 * These probes are counted apart from other pings, because a lost one says nothing about the path's
 * health. Sizes are of QUIC packets, in bytes. Times are in ms, monotonic.
 */

/**
 * Packet size that every path carries, in bytes (RFC 9000, section 14). The search begins with it
 * and falls back to it.
 */
export const BASE_BYTES = 1200
/**
 * Sizes that are tried, in this order. 1,350 fits through most tunnels. 1,440, with the longer
 * frame header, UDP and IPv6, fills all but 4 of the 1,500 bytes of an Ethernet frame.
 */
export const SIZES: ReadonlyArray<number> = [BASE_BYTES, 1350, 1440]
/** Largest size that is tried. */
export const LARGEST_BYTES = 1440
/** Probes lost in a row before a size counts as too large (RFC 8899, section 5.1.2). */
export const MAX_PROBES = 3
/** Time after which a size that was too large is tried again (RFC 8899, section 5.1.1). */
export const RAISE_MS = 600_000
/**
 * How often the size in use is proved again while data flows. Routes change, and with them the size
 * that they carry.
 */
export const CONFIRM_MS = 2_000

/** Search for the largest packet that one path carries. */
export class PathMtu {
  #index = 0
  #lost = 0
  /** When larger sizes may be tried. `-Infinity` if at once. */
  #raiseAt = -Infinity
  #provedAt = -Infinity
  #probe: { readonly txId: string; readonly index: number; readonly lostAt: number } | null = null

  /** Largest size that is proved, in bytes. */
  get bytes(): number {
    return SIZES[this.#index] ?? BASE_BYTES
  }

  /** Returns the size to probe now. `null` if none. Call it while data flows, after `settle`. */
  due(now: number): number | null {
    return now >= this.dueAt() ? SIZES[this.#target(now)] ?? null : null
  }

  /**
   * When the next probe is due. `-Infinity` if at once; `Infinity` if never, or while a probe is
   * open.
   */
  dueAt(): number {
    if (this.#probe !== null) return Infinity
    if (this.#lost > 0) return -Infinity
    const raiseAt = this.#index < SIZES.length - 1 ? this.#raiseAt : Infinity
    return Math.min(raiseAt, this.#index > 0 ? this.#provedAt + CONFIRM_MS : Infinity)
  }

  /** When the open probe counts as lost. `Infinity` if none is open. */
  lostAt(): number {
    return this.#probe?.lostAt ?? Infinity
  }

  /** Notes a probe that was sent. It counts as lost if no answer comes within `patienceMs`. */
  onSent(txId: string, now: number, patienceMs: number): void {
    this.#probe = { txId, index: this.#target(now), lostAt: now + patienceMs }
  }

  /**
   * Handles an answer. Returns whether it was the answer to this path's probe. The caller checks
   * `bytes` to see whether the size has grown.
   */
  onPong(txId: string, now: number): boolean {
    if (this.#probe?.txId !== txId) return false
    const { index } = this.#probe
    this.#probe = null
    this.#lost = 0
    if (index < this.#index) return true
    this.#index = index
    this.#provedAt = now
    return true
  }

  /** Gives up the open probe if it is overdue. */
  settle(now: number): void {
    if (this.#probe === null || now < this.#probe.lostAt) return
    const { index } = this.#probe
    this.#probe = null
    this.#lost++
    if (this.#lost < MAX_PROBES) return
    this.#lost = 0
    // A size that worked before does not any more. The search starts again from the size that must
    // work (RFC 8899, section 4.3).
    if (index <= this.#index) this.reset()
    else this.#raiseAt = now + RAISE_MS
  }

  /** Forgets what was proved, because the network changed. */
  reset(): void {
    this.#index = 0
    this.#lost = 0
    this.#raiseAt = -Infinity
    this.#provedAt = -Infinity
    this.#probe = null
  }

  /**
   * Index of the size to probe next. The size in use is proved again before a larger one is tried.
   */
  #target(now: number): number {
    const confirming = this.#index > 0 && now >= this.#provedAt + CONFIRM_MS
    if (confirming || this.#index === SIZES.length - 1) return this.#index
    return now >= this.#raiseAt ? this.#index + 1 : this.#index
  }
}
