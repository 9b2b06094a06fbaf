/**
 * A rate limiter. It gains `rate` tokens a second and holds at most `burst`. Times are in ms of one
 * monotonic clock.
 */

export class TokenBucket {
  private tokens: number
  private at: number
  private readonly perMs: number
  private readonly burst: number

  constructor(rate: number, burst: number, now: number) {
    this.perMs = rate / 1000
    this.burst = burst
    this.tokens = burst
    this.at = now
  }

  /**
   * Takes `cost` tokens and returns `true`, or returns `false` if there are fewer. A clock that
   * steps back earns no tokens.
   */
  take(cost: number, now: number): boolean {
    if (now > this.at) {
      this.tokens = Math.min(this.burst, this.tokens + (now - this.at) * this.perMs)
      this.at = now
    }
    if (this.tokens < cost) return false
    this.tokens -= cost
    return true
  }

  /**
   * Returns the time in ms until `take(cost)` would succeed if nothing else were taken. At least 1
   * if it would not succeed now.
   */
  waitMs(cost: number): number {
    return this.tokens >= cost ? 0 : Math.max(1, Math.ceil((Math.min(cost, this.burst) - this.tokens) / this.perMs))
  }
}

/**
 * Rate limiters for network prefixes, in a table of fixed size. Prefixes with the same hash share a
 * bucket, so the table does not grow, however many (forged) sources there are. `seed` must be
 * secret and random, or a sender could choose whose bucket to empty.
 */
export class PrefixBuckets {
  private readonly tokens: Float64Array
  private readonly times: Float64Array
  private readonly perMs: number
  private readonly burst: number
  private readonly seed: number
  private readonly mask: number

  constructor(options: { rate: number; burst: number; seed: number; now: number; bits?: number }) {
    const size = 2 ** (options.bits ?? 14)
    this.perMs = options.rate / 1000
    this.burst = options.burst
    this.seed = options.seed | 0
    this.mask = size - 1
    this.tokens = new Float64Array(size).fill(options.burst)
    this.times = new Float64Array(size).fill(options.now)
  }

  /**
   * Takes tokens from the bucket of an address of 4 or 16 bytes. The prefix is /24 of an IPv4
   * address and /56 of an IPv6 address, which is what one customer usually holds.
   */
  take(ip: Uint8Array, ipLength: 4 | 16, cost: number, now: number): boolean {
    const slot = this.slotOf(ip, ipLength === 4 ? 3 : 7)
    const earned = Math.max(0, now - this.times[slot]!) * this.perMs
    const tokens = Math.min(this.burst, this.tokens[slot]! + earned)
    this.times[slot] = Math.max(now, this.times[slot]!)
    const enough = tokens >= cost
    this.tokens[slot] = enough ? tokens - cost : tokens
    return enough
  }

  /** Hashes the prefix's bytes with the mixing of Murmur3. */
  private slotOf(ip: Uint8Array, length: number): number {
    let hash = this.seed ^ length
    for (let i = 0; i < length; i++) hash = Math.imul(hash ^ ip[i]!, 0x5bd1e995) ^ (hash >>> 15)
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
    return (hash ^ (hash >>> 13)) & this.mask
  }
}
