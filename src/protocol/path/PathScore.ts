/**
 * Measure of how good a path is, from its probes alone, because a flow's own queue must not make an
 * idle path look better. Paths therefore compete on the lowest round trip of the last half minute.
 * The smoothed round trip (RFC 6298) only says when an answer is overdue. Times are in ms.
 */
import * as PathKind from "./PathKind.ts"
import type { PathRef } from "./PathRef.ts"

/** Length of the period for which one lowest round trip is kept. */
export const BUCKET_MS = 5_000
/**
 * Number of lowest round trips that are kept, 30 s in all. Congestion control empties its queue
 * more often than that.
 */
export const BUCKETS = 6
/** Number of last probes whose outcome counts: 26 s on a path in use. */
export const LOSS_WINDOW = 128
/** Number of probes that a loss is divided by at least. One lost probe of two says little. */
const LOSS_MIN_PROBES = 64
/**
 * Lost probes of {@link LOSS_WINDOW} that cost nothing. At 2 % loss, chance alone makes as many.
 */
const LOSS_FREE = 4
/** Cost of losing every packet. 5 % loss then weighs as much as 10 ms. */
const LOSS_COST_MS = 200

/**
 * Shortest time without an answer before a path counts as silent. A radio that wakes up or a busy
 * core may need this long.
 */
export const MIN_SILENCE_MS = 250
/** Time before a path counts as silent, while no round trip is known. */
const UNKNOWN_SILENCE_MS = 1_000
/**
 * Longest time without an answer before a path counts as silent. A path with a larger round trip is
 * of no use.
 */
export const MAX_SILENCE_MS = 3_000
/** Shortest time, and shortest margin over the round trip, before an answer counts as late. */
const MIN_SUSPECT_MS = 20

/**
 * Smallest difference of two costs that counts as clearly better. {@link BETTER_SHARE} must be met,
 * too.
 */
export const BETTER_MS = 3
/**
 * Smallest difference of two costs that counts as clearly better, as a share of the greater cost.
 * {@link BETTER_MS} must be met, too.
 */
export const BETTER_SHARE = 0.1

/**
 * Extra cost of a direct IPv4 path. A NAT on the way can lose its mapping, so of two equal direct
 * paths the one over IPv6 is taken.
 */
const V4_BIAS_MS = 1

type Bucket = { readonly fromMs: number; minMs: number }

/** Measurements of one path. */
export class PathScore {
  #buckets: Array<Bucket> = []
  #last: number | null = null
  #srtt = 0
  #var = 0
  #samples = 0
  #outcomes: Array<boolean> = [] // `true` if the probe was lost

  /** Number of round trips that were measured. */
  get samples(): number {
    return this.#samples
  }

  /** Counts an answered probe and its round trip. */
  onRtt(rttMs: number, now: number): void {
    const rtt = Number.isFinite(rttMs) ? Math.min(Math.max(rttMs, 0), 60_000) : 60_000
    this.#var = this.#samples === 0 ? rtt / 2 : 0.75 * this.#var + 0.25 * Math.abs(this.#srtt - rtt)
    this.#srtt = this.#samples === 0 ? rtt : 0.875 * this.#srtt + 0.125 * rtt
    this.#samples++
    this.#last = rtt
    this.#outcome(false)
    const newest = this.#buckets.at(-1)
    if (newest !== undefined && now < newest.fromMs + BUCKET_MS) newest.minMs = Math.min(newest.minMs, rtt)
    else this.#buckets = [...this.#buckets.slice(-BUCKETS + 1), { fromMs: now, minMs: rtt }]
  }

  /**
   * Counts a lost probe. Has no effect before the first answer, because until both sides have sent,
   * a NAT may drop what comes.
   */
  onLost(): void {
    if (this.#samples > 0) this.#outcome(true)
  }

  /** Forgets the outcomes of earlier probes, but not their round trips. */
  forgetLosses(): void {
    this.#outcomes = []
  }

  #outcome(lost: boolean): void {
    this.#outcomes.push(lost)
    if (this.#outcomes.length > LOSS_WINDOW) this.#outcomes.shift()
  }

  /**
   * Lowest round trip of the last half minute. If none is in it, the last round trip. `null` if
   * there has never been one.
   */
  minRttMs(now: number): number | null {
    let min = Infinity
    for (const bucket of this.#buckets) {
      if (bucket.fromMs + BUCKETS * BUCKET_MS > now) min = Math.min(min, bucket.minMs)
    }
    return min === Infinity ? this.#last : min
  }

  /** Share of lost probes, from 0 to 1. */
  loss(): number {
    let lost = 0
    for (const outcome of this.#outcomes) if (outcome) lost++
    return lost / Math.max(this.#outcomes.length, LOSS_MIN_PROBES)
  }

  /** How long probes may go unanswered before the path counts as silent. */
  silenceMs(): number {
    if (this.#samples === 0) return UNKNOWN_SILENCE_MS
    return Math.min(Math.max(3 * this.#srtt + 4 * this.#var, MIN_SILENCE_MS), MAX_SILENCE_MS)
  }

  /**
   * How long a probe may go unanswered before another one is sent, in ms. The answer is then late,
   * but one lost packet proves nothing.
   */
  suspectMs(): number {
    if (this.#samples === 0) return UNKNOWN_SILENCE_MS / 4
    return Math.max(
      Math.min(this.#srtt + Math.max(4 * this.#var, MIN_SUSPECT_MS), this.silenceMs() / 2),
      MIN_SUSPECT_MS
    )
  }

  /** Cost by which paths are compared, in ms. `null` if the path was never measured. */
  costMs(now: number, biasMs: number): number | null {
    const rtt = this.minRttMs(now)
    const free = LOSS_FREE / LOSS_WINDOW
    return rtt === null ? null : rtt + Math.max(0, this.loss() - free) * LOSS_COST_MS + biasMs
  }
}

/**
 * Extra cost of a path for its kind, in ms. `leg` is the kind of this node's leg to its home relay.
 */
export const biasMs = (path: PathRef, leg: PathKind.LegKind): number =>
  PathKind.TABLE[PathKind.of(path, leg, null)].biasMs + (path.kind === "direct" && path.family === 4 ? V4_BIAS_MS : 0)

/** Whether a cost is lower than another one by more than measurement errors. */
export const isClearlyBetter = (costMs: number, thanMs: number): boolean =>
  costMs + Math.max(BETTER_MS, BETTER_SHARE * thanMs) < thanMs
