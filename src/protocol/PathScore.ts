/**
 * How good a path is, from its probes alone: a flow's own queue must not make an idle path look better, so paths compete on the
 * lowest round trip of the last half minute, and the smoothed one (RFC 6298) only says when an answer is overdue. Times: ms.
 */
import { isWebRtc, type PathRef } from "./PathRef.ts"

export const BUCKET_MS = 5_000
/** Lowest round trips are kept for this many buckets. Congestion control empties its queue more often than that. */
export const BUCKETS = 6
/** Probes whose outcome counts: 26 s of a path that is in use. */
export const LOSS_WINDOW = 128
/** Below this many probes, loss is counted as if of this many: one lost probe of two says little. */
const LOSS_MIN_PROBES = 64
/** Lost ones among them that count for nothing: at 2 % of loss, chance alone makes as many. */
const LOSS_FREE = 4
/** What losing every packet would cost. 5 % loss then weighs as much as 10 ms. */
const LOSS_COST_MS = 200

/** Nothing is taken for dead sooner: a radio that wakes up or a busy core needs as long. */
export const MIN_SILENCE_MS = 250
/** Before the first round trip is known. */
const UNKNOWN_SILENCE_MS = 1_000
/** A path with a huge round trip is given up no later than this; nothing useful is on it. */
export const MAX_SILENCE_MS = 3_000
const MIN_SUSPECT_MS = 20

/** "Clearly better": by both of these. */
export const BETTER_MS = 3
export const BETTER_SHARE = 0.1

export type RelayKind = "relay-udp" | "relay-h3" | "relay-tcp"
/**
 * The relay costs a little more than a direct path of equal latency: it is shared, and one more host that can fail. Over TCP a
 * lost packet also holds back all behind it.
 */
const RELAY_BIAS_MS: Record<RelayKind, number> = { "relay-udp": 3, "relay-h3": 5, "relay-tcp": 10 }
/** Two more processes on the way, and frames in DTLS and SCTP. */
const WEBRTC_BIAS_MS = 5
const V4_BIAS_MS = 1 // a translator on the way forgets; of two equal direct paths take the one without

type Bucket = { readonly fromMs: number; minMs: number }

export class PathScore {
  #buckets: Array<Bucket> = []
  #last: number | null = null
  #srtt = 0
  #var = 0
  #samples = 0
  #outcomes: Array<boolean> = [] // true: lost

  get samples(): number {
    return this.#samples
  }

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

  /** Does nothing before the first answer: until both sides have sent, a translator may drop what comes. */
  onLost(): void {
    if (this.#samples > 0) this.#outcome(true)
  }

  forgetLosses(): void {
    this.#outcomes = []
  }

  #outcome(lost: boolean): void {
    this.#outcomes.push(lost)
    if (this.#outcomes.length > LOSS_WINDOW) this.#outcomes.shift()
  }

  /** Null: never measured. Where the window holds nothing, the last round trip stands. */
  minRttMs(now: number): number | null {
    let min = Infinity
    for (const bucket of this.#buckets) {
      if (bucket.fromMs + BUCKETS * BUCKET_MS > now) min = Math.min(min, bucket.minMs)
    }
    return min === Infinity ? this.#last : min
  }

  /** 0 to 1. */
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

  /** How long until an unanswered probe calls for another one: the answer is late, yet one loss proves nothing. */
  suspectMs(): number {
    if (this.#samples === 0) return UNKNOWN_SILENCE_MS / 4
    return Math.max(
      Math.min(this.#srtt + Math.max(4 * this.#var, MIN_SUSPECT_MS), this.silenceMs() / 2),
      MIN_SUSPECT_MS
    )
  }

  /** What paths are compared by, ms; null: never measured. */
  costMs(now: number, biasMs: number): number | null {
    const rtt = this.minRttMs(now)
    const free = LOSS_FREE / LOSS_WINDOW
    return rtt === null ? null : rtt + Math.max(0, this.loss() - free) * LOSS_COST_MS + biasMs
  }
}

export const biasMs = (path: PathRef, relay: RelayKind): number =>
  path.kind === "relay"
    ? isWebRtc(path) ? WEBRTC_BIAS_MS : RELAY_BIAS_MS[path.relay === undefined ? relay : "relay-udp"]
    : path.family === 4
    ? V4_BIAS_MS
    : 0

/** Whether a cost beats another one by more than measuring errors. */
export const isClearlyBetter = (costMs: number, thanMs: number): boolean =>
  costMs + Math.max(BETTER_MS, BETTER_SHARE * thanMs) < thanMs
