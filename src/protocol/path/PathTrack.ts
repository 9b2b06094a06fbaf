/**
 * One path of one session: what was sent on it, what came back, and when to send again. Times are
 * in ms, monotonic.
 */
import type { LegKind } from "./PathKind.ts"
import { PathMtu } from "./PathMtu.ts"
import { isFirstRelay, keyOf, type PathRef, type PathSample, type PathState } from "./PathRef.ts"
import * as PathScore from "./PathScore.ts"

/**
 * Times of the probes of a round, in ms after its start. Both peers send. The early probes open
 * their NATs, and one of the next ones gets through. A NAT drops probes that arrive before it has
 * been opened.
 */
export const LADDER_MS: ReadonlyArray<number> = [0, 50, 100, 200, 400, 800]
/** Gap between probes after the ladder's last step. */
export const LADDER_GAP_MS = 1_000
/**
 * Number of probes in a full round. A new path gets such a round, and so does every path after a
 * change.
 */
export const BUDGET = 12
/** Number of probes in a round that checks an unsuccessful path again. */
export const BUDGET_AGAIN = 4
/** Time after which an unanswered ping expires. A later answer is ignored. */
export const EXPIRE_MS = 5_000
/**
 * Number of consecutive unanswered pings after which a path may count as silent. One or two may be
 * lost by chance, or wait behind a busy thread.
 */
export const SILENT_PINGS = 3
/**
 * The same number as {@link SILENT_PINGS} after a change of the network, when the path has probably
 * gone.
 */
export const SILENT_PINGS_AFTER_CHANGE = 2
/** Shortest wait for an answer after a change of the network. */
const AFTER_CHANGE_MS = 60
/**
 * Time during which a path that fell silent is not used again. It doubles each time, up to {@link
 * MAX_HOLD_MS}.
 */
export const HOLD_MS = 1_000
/** Longest time during which a path that fell silent is not used again. */
export const MAX_HOLD_MS = 30_000
/**
 * Time during which a path that was left for a better one is not used again, so that two similar
 * paths do not take turns. It doubles each time, up to ten times {@link MAX_HOLD_MS}.
 */
export const DEMOTED_HOLD_MS = 10_000
/** Time without a fall after which a path's holds start over with the shortest one. */
const GOOD_WHILE_MS = 60_000
/** Most pings that are open at once on a path. The oldest one is forgotten when there are more. */
const MAX_OUTSTANDING = 128
/**
 * How much longer a path is kept if packets come by it but no answer does. Such a path leads one
 * way only.
 */
const ONE_WAY_MS = 2_000

/** State of one path of a session. */
export class PathTrack {
  readonly path: PathRef
  readonly key: string
  /** Whether the path was offered. `false` if it was learned from the peer's packets. */
  readonly offered: boolean
  /** Priority of the candidate pair. A higher one is probed first. */
  priority: bigint
  state: PathState
  score = new PathScore.PathScore()
  readonly mtu = new PathMtu()
  /**
   * Largest packet size that the data plane was last given for this path, in bytes. 0 if none yet.
   */
  toldBytes = 0
  /** When the round's next probe is due. `null` if the round is over. */
  ladderDue: number | null = null
  lastPingAt = -Infinity
  lastPongAt = -Infinity
  /**
   * When the ping was ordered that was answered last. The order and the answer may have waited for
   * a busy thread of this host, which the round trip does not include.
   */
  answeredSentAt = -Infinity
  /** When the peer's last ping came by this path. That ping was answered. */
  pingedAt = -Infinity
  /** When the first ping after the newest answered one was sent. `null` if there is none. */
  unansweredSince: number | null = null
  unanswered = 0
  /** When the session's packets were last known to come by this path. */
  heardAt = -Infinity
  /** Consecutive answers that were clearly better than those of the path in use. */
  wins = 0
  /** Time before which the session does not return to this path for its quality alone. */
  holdUntil = -Infinity
  /**
   * Whether the session left the path because another one was better. It returns only after several
   * good answers in a row.
   */
  demoted = false
  /** Whether the path was in use when the network changed, and has not answered since. */
  mistrusted = false
  roundAt = -Infinity
  #budget = 0
  #sent = 0
  #falls = 0
  #fellAt = -Infinity
  /** Whether the network changed since the last answer. */
  #changed = false
  readonly #outstanding = new Map<string, number>()

  constructor(
    path: PathRef,
    options: { readonly state: PathState; readonly offered: boolean; readonly priority: bigint }
  ) {
    this.path = path
    this.key = keyOf(path)
    this.state = options.state
    this.offered = options.offered
    this.priority = options.priority
  }

  /** Number of pings that are open. */
  get inFlight(): number {
    return this.#outstanding.size
  }

  /** Number of probes that the ladder has sent in this round. */
  get sent(): number {
    return this.#sent
  }

  /**
   * Whether all probes of the round were sent. The round ends when the time in `ladderDue` has
   * passed.
   */
  get isSpent(): boolean {
    return this.#sent >= this.#budget
  }

  /** Whether a full round is under way. Until it ends, it is not known whether the path works. */
  get isSought(): boolean {
    return this.ladderDue !== null && this.#budget === BUDGET && this.state !== "proved"
  }

  /**
   * Whether this is a direct path, or one by another relay than the home relay, that does not
   * answer and is not being probed.
   */
  get isIdleDirect(): boolean {
    return !isFirstRelay(this.path) && this.ladderDue === null && this.state !== "proved"
  }

  /** Starts a round of `budget` probes on the ladder, after `delayMs`. */
  startRound(now: number, budget: number, delayMs = 0): void {
    this.#budget = budget
    this.#sent = 0
    this.roundAt = now + delayMs
    this.ladderDue = now + delayMs
    if (this.state === "exhausted" && budget === BUDGET) this.state = "probing"
  }

  /**
   * Moves the round's next probe forward. The peer's probe came by this path, so the peer's
   * direction is open and a longer wait is useless.
   */
  hurry(now: number): void {
    if (this.ladderDue !== null && !this.isSpent) {
      this.ladderDue = Math.max(Math.min(this.ladderDue, this.lastPingAt + LADDER_MS[1]!), now)
    }
  }

  /** Ends the round of probes. */
  endRound(): void {
    this.ladderDue = null
  }

  /**
   * Notes a ping that was sent. `onLadder`: whether it is a probe of the round, which counts
   * against the round's budget.
   */
  onSent(txId: string, now: number, onLadder: boolean): void {
    if (this.state === "untried") this.state = "probing"
    this.lastPingAt = now
    this.unansweredSince ??= now
    this.unanswered++
    this.#outstanding.set(txId, now)
    if (this.#outstanding.size > MAX_OUTSTANDING) this.#outstanding.delete(this.#outstanding.keys().next().value!)
    if (!onLadder) return
    this.#sent++
    const next = LADDER_MS[this.#sent]
    // A step never follows the one before it sooner than its gap on the ladder, even if the ladder
    // runs late.
    const gap = next === undefined ? LADDER_GAP_MS : next - LADDER_MS[this.#sent - 1]!
    this.ladderDue = now + gap
  }

  /**
   * Handles an answer. Returns whether it answers an open ping. All pings that were sent before
   * that one count as lost.
   */
  onPong(txId: string, rttMs: number, now: number): boolean {
    const sentAt = this.#outstanding.get(txId)
    if (sentAt === undefined) return false
    for (const id of this.#outstanding.keys()) {
      this.#outstanding.delete(id)
      if (id === txId) break
      this.score.onLost()
    }
    // Losses before this answer are forgotten: a path that fell is punished by its hold, and a
    // change of the network is not its fault.
    if (this.state === "silent" || this.state === "failed" || this.#changed) this.score.forgetLosses()
    this.#changed = false
    this.score.onRtt(rttMs, now)
    this.lastPongAt = now
    this.answeredSentAt = sentAt
    const [oldest] = this.#outstanding.values()
    this.unansweredSince = oldest ?? null
    this.unanswered = this.#outstanding.size
    this.mistrusted = false
    this.state = "proved"
    this.endRound()
    return true
  }

  /**
   * Forgets pings that have expired, ends a spent round, and returns whether the path fell silent
   * just now.
   */
  settle(now: number, inUse: boolean): boolean {
    for (const [id, sentAt] of this.#outstanding) {
      if (sentAt + EXPIRE_MS > now) break
      this.#outstanding.delete(id)
      this.score.onLost()
    }
    if (this.ladderDue !== null && this.isSpent && this.ladderDue <= now) {
      this.endRound()
      if (this.state === "probing") this.state = "exhausted"
    }
    if (this.state !== "proved" && !(inUse && (this.state === "probing" || this.state === "exhausted"))) return false
    if (!this.isOverdue(now)) return false
    this.state = "silent"
    this.startRound(now, BUDGET, LADDER_GAP_MS / 5)
    return true
  }

  /** Whether enough pings have been unanswered for long enough to count the path as silent. */
  isOverdue(now: number): boolean {
    const due = this.overdueAt()
    return due !== null && due <= now
  }

  /** When the path counts as silent if no answer comes. `null` if too few pings are open. */
  overdueAt(): number | null {
    const needed = this.mistrusted ? SILENT_PINGS_AFTER_CHANGE : SILENT_PINGS
    if (this.unansweredSince === null || this.unanswered < needed) return null
    if (this.mistrusted) return this.unansweredSince + this.patienceMs()
    const heardAt = Math.min(this.heardAt, this.unansweredSince + ONE_WAY_MS)
    return Math.max(this.unansweredSince, heardAt) + this.patienceMs()
  }

  /** How long pings may be unanswered before the path counts as silent. */
  patienceMs(): number {
    return this.mistrusted ? Math.max(this.score.suspectMs(), AFTER_CHANGE_MS) : this.score.silenceMs()
  }

  /** When the answer to the oldest open ping counts as late. `null` if none is open. */
  suspectAt(): number | null {
    return this.unansweredSince === null
      ? null
      : this.unansweredSince + (this.mistrusted ? 0 : this.score.suspectMs())
  }

  /**
   * Extends the wait for an answer by `lateMs`, because this host itself was busy. Answers may lie
   * unread, so their delay is not the path's fault.
   */
  forgive(lateMs: number, now: number): void {
    if (this.unansweredSince !== null) this.unansweredSince = Math.min(now, this.unansweredSince + lateMs)
  }

  /**
   * Blocks the path for a while (see {@link HOLD_MS}). The session left it because it was silent or
   * broken, or (`demoted`) because another one was better.
   */
  onFall(now: number, demoted: boolean): void {
    if (now - this.#fellAt > GOOD_WHILE_MS) this.#falls = 0
    const [first, most] = demoted ? [DEMOTED_HOLD_MS, 10 * MAX_HOLD_MS] : [HOLD_MS, MAX_HOLD_MS]
    this.holdUntil = now + Math.min(first * 2 ** Math.min(this.#falls, 10), most)
    this.demoted ||= demoted
    this.#falls++
    this.#fellAt = now
    this.wins = 0
  }

  /** Discards all measurements, because the path now leads through another network. */
  onNetworkChange(now: number, inUse: boolean): void {
    this.#changed = true
    this.#outstanding.clear()
    this.unansweredSince = null
    this.unanswered = 0
    this.heardAt = -Infinity
    this.mtu.reset()
    this.wins = 0
    this.demoted = false
    this.holdUntil = -Infinity
    this.mistrusted = inUse
    this.ladderDue = null
    this.lastPingAt = -Infinity
    if (this.path.kind === "direct") {
      if (!inUse) {
        this.score = new PathScore.PathScore()
        this.state = "untried"
      }
      this.startRound(now, BUDGET)
    }
  }

  /**
   * Notes that the relay has answered on this side's leg. Earlier unanswered pings then mean
   * nothing, and the next one may be sent at once.
   */
  onBoundAnew(): void {
    this.#outstanding.clear()
    this.unansweredSince = null
    this.unanswered = 0
    this.lastPingAt = -Infinity
    if (this.state === "silent" || this.state === "failed") this.state = "proved"
  }

  /**
   * Returns the state of the path for a decision. `relay` is the kind of this node's leg to its
   * home relay.
   */
  sample(now: number, relay: LegKind): PathSample {
    const costMs = this.state === "proved" ? this.score.costMs(now, PathScore.biasMs(this.path, relay)) : null
    return { path: this.path, state: this.state, rttMs: this.score.minRttMs(now), loss: this.score.loss(), costMs }
  }
}
