/** One path of one session: what was sent on it, what came back, and when to send again. Times: ms, monotonic. */
import { PathMtu } from "./PathMtu.ts"
import { isFirstRelay, keyOf, type PathRef, type PathSample, type PathState } from "./PathRef.ts"
import * as PathScore from "./PathScore.ts"

/** After the start of a round. Both sides send, so the early ones open the translators and one of the next gets through. */
export const LADDER_MS: ReadonlyArray<number> = [0, 50, 100, 200, 400, 800]
/** Gap after the ladder's last step. */
export const LADDER_GAP_MS = 1_000
/** Probes in a first round, and in one after a change. */
export const BUDGET = 12
/** Probes in a round that only looks again. */
export const BUDGET_AGAIN = 4
/** An answer that comes later than this counts for nothing. */
export const EXPIRE_MS = 5_000
/** Unanswered in a row before a path counts as silent: one or two are lost by chance, or wait behind a busy thread. */
export const SILENT_PINGS = 3
/** The same once the network changed, when the path is probably gone. */
export const SILENT_PINGS_AFTER_CHANGE = 2
const AFTER_CHANGE_MS = 60
/** A path that fell silent may be taken again after this long, doubled at each fall. */
export const HOLD_MS = 1_000
export const MAX_HOLD_MS = 30_000
/** The same for a path that was left because another one was better: two alike must not take turns. */
export const DEMOTED_HOLD_MS = 10_000
/** A path that lasted this long starts over with `HOLD_MS`. */
const GOOD_WHILE_MS = 60_000
const MAX_OUTSTANDING = 128
/** A path by which packets come, but never an answer, leads one way only: it is given up after this much more. */
const ONE_WAY_MS = 2_000

export class PathTrack {
  readonly path: PathRef
  readonly key: string
  /** False: learned from the peer's packets, not from its list. */
  readonly offered: boolean
  /** Of the pair; higher is probed first. */
  priority: bigint
  state: PathState
  score = new PathScore.PathScore()
  readonly mtu = new PathMtu()
  /** The packet size that the data plane was told; 0: none yet. */
  toldBytes = 0
  /** When the round's next probe is due; null: the round is over. */
  ladderDue: number | null = null
  lastPingAt = -Infinity
  lastPongAt = -Infinity
  /** When the peer's last ping came by it, which was answered. */
  pingedAt = -Infinity
  /** When the oldest ping after the newest answered one was sent; null: none is open. */
  unansweredSince: number | null = null
  unanswered = 0
  /** When the session's packets were last known to come by it. */
  heardAt = -Infinity
  /** In a row clearly better than the path in use. */
  wins = 0
  /** Not to be chosen on its merits before this. */
  holdUntil = -Infinity
  /** It lost to another path on cost: to return it must be clearly better, not only equal. */
  demoted = false
  /** The network changed and the path has not answered since. */
  mistrusted = false
  roundAt = -Infinity
  #budget = 0
  #sent = 0
  #falls = 0
  #fellAt = -Infinity
  /** The network changed since the last answer. */
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

  get inFlight(): number {
    return this.#outstanding.size
  }

  /** Sent by the ladder in this round. */
  get sent(): number {
    return this.#sent
  }

  /** The round's budget is spent; it ends when `ladderDue` is over. */
  get isSpent(): boolean {
    return this.#sent >= this.#budget
  }

  /** A full round is under way: whether the path works is an open question. */
  get isSought(): boolean {
    return this.ladderDue !== null && this.#budget === BUDGET && this.state !== "proved"
  }

  /** A direct path (or one by another relay) that does not answer and is not being probed. */
  get isIdleDirect(): boolean {
    return !isFirstRelay(this.path) && this.ladderDue === null && this.state !== "proved"
  }

  startRound(now: number, budget: number, delayMs = 0): void {
    this.#budget = budget
    this.#sent = 0
    this.roundAt = now + delayMs
    this.ladderDue = now + delayMs
    if (this.state === "exhausted" && budget === BUDGET) this.state = "probing"
  }

  /** The peer's probe came by this path: its way to us is open, so the next probe of the round need not wait. */
  hurry(now: number): void {
    if (this.ladderDue !== null && !this.isSpent) {
      this.ladderDue = Math.max(Math.min(this.ladderDue, this.lastPingAt + LADDER_MS[1]!), now)
    }
  }

  endRound(): void {
    this.ladderDue = null
  }

  /** The path that is probed is on the ladder, too, as long as it has not answered. */
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
    // A step is never less than its ladder gap after the one before, even when the ladder ran late.
    const gap = next === undefined ? LADDER_GAP_MS : next - LADDER_MS[this.#sent - 1]!
    this.ladderDue = now + gap
  }

  /** True: this answered one of our pings, which also settles all that were sent before it. */
  onPong(txId: string, rttMs: number, now: number): boolean {
    const sentAt = this.#outstanding.get(txId)
    if (sentAt === undefined) return false
    for (const id of this.#outstanding.keys()) {
      this.#outstanding.delete(id)
      if (id === txId) break
      this.score.onLost()
    }
    // The hold is the punishment of a path that fell, and a change of the network is not its fault.
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

  /** Forgets pings that will not be answered, ends a spent round, and says whether the path fell silent just now. */
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

  /** Enough pings, for long enough, without an answer. */
  isOverdue(now: number): boolean {
    const due = this.overdueAt()
    return due !== null && due <= now
  }

  /** Null: too few pings are open. */
  overdueAt(): number | null {
    const needed = this.mistrusted ? SILENT_PINGS_AFTER_CHANGE : SILENT_PINGS
    if (this.unansweredSince === null || this.unanswered < needed) return null
    if (this.mistrusted) return this.unansweredSince + this.patienceMs()
    const heardAt = Math.min(this.heardAt, this.unansweredSince + ONE_WAY_MS)
    return Math.max(this.unansweredSince, heardAt) + this.patienceMs()
  }

  patienceMs(): number {
    return this.mistrusted ? Math.max(this.score.suspectMs(), AFTER_CHANGE_MS) : this.score.silenceMs()
  }

  /** When the oldest open ping's answer is late; null: none is open. */
  suspectAt(): number | null {
    return this.unansweredSince === null
      ? null
      : this.unansweredSince + (this.mistrusted ? 0 : this.score.suspectMs())
  }

  /** This host itself was late by so much: answers may wait unread, and the path is not to blame. */
  forgive(lateMs: number, now: number): void {
    if (this.unansweredSince !== null) this.unansweredSince = Math.min(now, this.unansweredSince + lateMs)
  }

  /** The session left it because it was silent or broken, or (`demoted`) not as good as another one. */
  onFall(now: number, demoted: boolean): void {
    if (now - this.#fellAt > GOOD_WHILE_MS) this.#falls = 0
    const [first, most] = demoted ? [DEMOTED_HOLD_MS, 10 * MAX_HOLD_MS] : [HOLD_MS, MAX_HOLD_MS]
    this.holdUntil = now + Math.min(first * 2 ** Math.min(this.#falls, 10), most)
    this.demoted ||= demoted
    this.#falls++
    this.#fellAt = now
    this.wins = 0
  }

  /** The path leads through another network now: nothing measured counts. */
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

  /** The relay has answered on this side's leg: what was not answered before says nothing, and it may be asked at once. */
  onBoundAnew(): void {
    this.#outstanding.clear()
    this.unansweredSince = null
    this.unanswered = 0
    this.lastPingAt = -Infinity
    if (this.state === "silent" || this.state === "failed") this.state = "proved"
  }

  sample(now: number, relay: PathScore.RelayKind): PathSample {
    const costMs = this.state === "proved" ? this.score.costMs(now, PathScore.biasMs(this.path, relay)) : null
    return { path: this.path, state: this.state, rttMs: this.score.minRttMs(now), loss: this.score.loss(), costMs }
  }
}
