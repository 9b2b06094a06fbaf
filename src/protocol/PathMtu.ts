/**
 * The largest packet that one path carries, found by padded probes (RFC 8899), without I/O. A lost one says nothing of the path's
 * health: these probes are counted apart. Sizes are of QUIC packets, bytes; times ms, monotonic.
 */

/** RFC 9000, section 14: what every path carries. Also where the search begins, and where it falls back to. */
export const BASE_BYTES = 1200
/**
 * Tried in this order. 1,350 fits through most tunnels; 1,440 with our longer head, UDP and IPv6 fills an Ethernet frame's 1,500
 * but for 4 bytes.
 */
export const SIZES: ReadonlyArray<number> = [BASE_BYTES, 1350, 1440]
export const LARGEST_BYTES = 1440
/** RFC 8899, section 5.1.2: lost in a row before a size counts as too large. */
export const MAX_PROBES = 3
/** RFC 8899, section 5.1.1: a larger size is tried again after this long. */
export const RAISE_MS = 600_000
/** The size in use is proved again this often while data flows: routes change, and so does what they carry. */
export const CONFIRM_MS = 2_000

export class PathMtu {
  #index = 0
  #lost = 0
  /** Larger sizes are tried from then on. */
  #raiseAt = -Infinity
  #provedAt = -Infinity
  #probe: { readonly txId: string; readonly index: number; readonly lostAt: number } | null = null

  get bytes(): number {
    return SIZES[this.#index] ?? BASE_BYTES
  }

  /** The size to probe now; null: none. To be asked while data flows, and after `settle`. */
  due(now: number): number | null {
    return now >= this.dueAt() ? SIZES[this.#target(now)] ?? null : null
  }

  /** When `due` or `settle` has something to say; Infinity: never. */
  dueAt(): number {
    if (this.#probe !== null) return Infinity
    if (this.#lost > 0) return -Infinity
    const raiseAt = this.#index < SIZES.length - 1 ? this.#raiseAt : Infinity
    return Math.min(raiseAt, this.#index > 0 ? this.#provedAt + CONFIRM_MS : Infinity)
  }

  /** When the probe that is open counts as lost; Infinity: none is. */
  lostAt(): number {
    return this.#probe?.lostAt ?? Infinity
  }

  onSent(txId: string, now: number, patienceMs: number): void {
    this.#probe = { txId, index: this.#target(now), lostAt: now + patienceMs }
  }

  /** True: it was this path's probe. Whether `bytes` has grown is for the caller to see. */
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

  /** Gives an overdue probe up. */
  settle(now: number): void {
    if (this.#probe === null || now < this.#probe.lostAt) return
    const { index } = this.#probe
    this.#probe = null
    this.#lost++
    if (this.#lost < MAX_PROBES) return
    this.#lost = 0
    // What was carried before and is not any more: everything is searched anew, from what must work (RFC 8899, section 4.3).
    if (index <= this.#index) this.reset()
    else this.#raiseAt = now + RAISE_MS
  }

  /** The network changed: what was proved holds no more. */
  reset(): void {
    this.#index = 0
    this.#lost = 0
    this.#raiseAt = -Infinity
    this.#provedAt = -Infinity
    this.#probe = null
  }

  /** The size in use is proved again before a larger one is tried. */
  #target(now: number): number {
    const confirming = this.#index > 0 && now >= this.#provedAt + CONFIRM_MS
    if (confirming || this.#index === SIZES.length - 1) return this.#index
    return now >= this.#raiseAt ? this.#index + 1 : this.#index
  }
}
