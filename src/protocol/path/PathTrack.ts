/**
 * One path of one session: what was sent on it, what came back, and when to send again. Times are
 * in ms, monotonic.
 */
import { PathMtu } from "./PathMtu.ts"
import { isFirstRelay, keyOf, type PathRef, type PathSample, type PathState } from "./PathRef.ts"
import * as PathScore from "./PathScore.ts"

/**
 * Times of a round's probes after its start. Both sides send, so the early probes open the NATs and
 * one of the next ones gets through.
 */
export const LADDER_MS: ReadonlyArray<number> = [0, 50, 100, 200, 400, 800]
/** Gap between probes after the ladder's last step. */
export const LADDER_GAP_MS = 1_000
/** Probes in a full round: the first one, and each one after a change. */
export const BUDGET = 12
/** Probes in a round that only looks again. */
export const BUDGET_AGAIN = 4
/** Age at which an open ping expires. An answer that comes later counts for nothing. */
export const EXPIRE_MS = 5_000
/**
 * Pings unanswered in a row before a path counts as silent. One or two are lost by chance, or wait
 * behind a busy thread.
 */
export const SILENT_PINGS = 3
/**
 * Pings unanswered in a row before a path counts as silent after a change of the network, when it
 * is probably gone.
 */
export const SILENT_PINGS_AFTER_CHANGE = 2
/** Shortest wait for an answer after a change of the network. */
const AFTER_CHANGE_MS = 60
/**
 * How long a path that fell silent is not taken again. Doubles at each fall, up to
 * {@link MAX_HOLD_MS}.
 */
export const HOLD_MS = 1_000
/** Longest hold of a path that fell silent. */
export const MAX_HOLD_MS = 30_000
/**
 * How long a path that was left for a better one is not taken again, so that two similar paths do
 * not take turns. Doubles each time, up to ten times {@link MAX_HOLD_MS}.
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
  /** Packet size that the data plane was given last. 0 if none yet. */
  toldBytes = 0
  /** When the round's next probe is due. `null` if the round is over. */
  ladderDue: number | null = null
  lastPingAt = -Infinity
  lastPongAt = -Infinity
  /** When the peer's last ping came by this path. That ping was answered. */
  pingedAt = -Infinity
  /** When the first ping after the newest answered one was sent. `null` if there is none. */
  unansweredSince: number | null = null
  unanswered = 0
  /** When the session's packets were last known to come by this path. */
  heardAt = -Infinity
  /** Consecutive answers that were clearly better than those of the path in use. */
  wins = 0
  /** Time before which the path is not taken on its merits. */
  holdUntil = -Infinity
  /**
   * Whether the path was left because another one was better. It is taken again only after several
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

  /** Whether the round's budget is spent. The round ends when `ladderDue` is over. */
  get isSpent(): boolean {
    return this.#sent >= this.#budget
  }

  /** Whether a full round is under way, so that it is open whether the path works. */
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
   * Moves the round's next probe forward. The peer's probe came by this path, so its direction is
   * open and waiting is of no use.
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

  /** When the oldest open ping's answer is late. `null` if none is open. */
  suspectAt(): number | null {
    return this.unansweredSince === null
      ? null
      : this.unansweredSince + (this.mistrusted ? 0 : this.score.suspectMs())
  }

  /**
   * Extends the wait for an answer, because this host itself was late by `lateMs`. Answers may wait
   * unread, and the path is not to blame.
   */
  forgive(lateMs: number, now: number): void {
    if (this.unansweredSince !== null) this.unansweredSince = Math.min(now, this.unansweredSince + lateMs)
  }

  /**
   * Holds the path back. The session left it because it was silent or broken, or (`demoted`)
   * because another one was better.
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

  /** Forgets what was measured, because the path leads through another network now. */
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
   * Notes that the relay has answered on this side's leg. Pings that were unanswered before say
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
  sample(now: number, relay: PathScore.RelayKind): PathSample {
    const costMs = this.state === "proved" ? this.score.costMs(now, PathScore.biasMs(this.path, relay)) : null
    return { path: this.path, state: this.state, rttMs: this.score.minRttMs(now), loss: this.score.loss(), costMs }
  }
}
