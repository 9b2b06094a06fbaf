/** Token buckets: `rate` tokens a second, at most `burst` saved up. Times: ms of one monotonic clock. */

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

  /** Takes `cost` tokens if that many are there, and says whether. A clock that steps back only earns nothing. */
  take(cost: number, now: number): boolean {
    if (now > this.at) {
      this.tokens = Math.min(this.burst, this.tokens + (now - this.at) * this.perMs)
      this.at = now
    }
    if (this.tokens < cost) return false
    this.tokens -= cost
    return true
  }

  /** ms until `take(cost)` would succeed if nothing else were taken; at least 1 when it would not now. */
  waitMs(cost: number): number {
    return this.tokens >= cost ? 0 : Math.max(1, Math.ceil((Math.min(cost, this.burst) - this.tokens) / this.perMs))
  }
}

/**
 * One bucket for each network prefix, in a table of fixed size: prefixes share a bucket when their hashes meet, so no
 * number of (forged) sources makes it grow. `seed` is secret and random, else a sender could choose whom to starve.
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

  /** `ip`: 4 or 16 bytes; the prefix is /24 of the first and /56 of the second (what one customer usually holds). */
  take(ip: Uint8Array, ipLength: 4 | 16, cost: number, now: number): boolean {
    const slot = this.slotOf(ip, ipLength === 4 ? 3 : 7)
    const earned = Math.max(0, now - this.times[slot]!) * this.perMs
    const tokens = Math.min(this.burst, this.tokens[slot]! + earned)
    this.times[slot] = Math.max(now, this.times[slot]!)
    const enough = tokens >= cost
    this.tokens[slot] = enough ? tokens - cost : tokens
    return enough
  }

  /** Murmur3's mixing over the prefix's bytes. */
  private slotOf(ip: Uint8Array, length: number): number {
    let hash = this.seed ^ length
    for (let i = 0; i < length; i++) hash = Math.imul(hash ^ ip[i]!, 0x5bd1e995) ^ (hash >>> 15)
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
    return (hash ^ (hash >>> 13)) & this.mask
  }
}
