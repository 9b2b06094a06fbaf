/**
 * Path choice for one session, without I/O. Each method takes an event and returns what to do as
 * data. The relay works from the start, and direct paths are probed beside it. The session moves to
 * a direct path when an authenticated answer proves it and it costs no more. It leaves a path that
 * goes silent as soon as another one answers. Times are in ms, monotonic; every input carries
 * `now`.
 *
 * The client chooses the path. A connector probes in the same way, because both sides must send to
 * open their NATs. It follows the client, and asks the client to move if it sees trouble first.
 */
import * as Candidate from "../candidate/Candidate.ts"
import { CandidateOffer } from "../candidate/CandidateOffer.ts"
import type { LegKind } from "./PathKind.ts"
import { MIN_PING_BYTES, SEAL_BYTES } from "./PathMessage.ts"
import * as PathReason from "./PathReason.ts"
import {
  type Decision,
  type GuessReason,
  isFirstRelay,
  isWebRtc,
  keyOf,
  type PathRef,
  type PathSample,
  type Reason,
  type Role,
  type SwitchReason
} from "./PathRef.ts"
import { biasMs, isClearlyBetter } from "./PathScore.ts"
import { PathTable } from "./PathTable.ts"
import { BUDGET, BUDGET_AGAIN, LADDER_GAP_MS, type PathTrack } from "./PathTrack.ts"

/** Gap between two ladder probes of a session, over all its pairs: at most 200 a second. */
export const PACE_MS = 5
/** Gap between pings on the path in use and on its best alternative, while data flows. */
export const BUSY_GAP_MS = 200
/**
 * Gap between pings on the path in use while flows are open but no data moves. While the session is
 * relayed, its best alternative is pinged as often. The first packet of data makes the session ping
 * both at once.
 */
export const QUIET_GAP_MS = 1_000
/**
 * Gap between pings on the other proved paths, while data flows. After its last flow, a relayed
 * session that still looks for a direct path uses this gap on all proved paths.
 */
export const SPARE_GAP_MS = 5_000
/** Gap between pings on a path whose answer is late. */
export const SUSPECT_GAP_MS = 50
/** Gap between pings on the other paths, while the path in use is suspect. */
export const RESCUE_GAP_MS = 100
/**
 * Longest gap between keepalives on an idle direct path, which the client sends. Most NATs keep a
 * UDP mapping for 30 s.
 */
export const KEEPALIVE_MS = 25_000
/** Connectors whose own NAT needs packets more often than this send keepalives, too. */
const CONNECTOR_KEEPALIVE_MS = 20_000
/**
 * Factor by which a connector waits longer than a client behind the same kind of NAT, so that the
 * client's keepalive usually makes its own unnecessary.
 */
const AFTER_CLIENT = 1.1
/**
 * Answers that a fresh path must give before it counts as measured. The pings for them follow at
 * {@link SUSPECT_GAP_MS}.
 */
const MEASURE_PINGS = 3
/** How often direct paths are probed again while the session is relayed. */
export const REPROBE_MS = 30_000
/** How long after its last flow a session still looks for a direct path. */
export const SEEK_MS = 60_000
/** A probe of the peer restarts the probes of a spent pair at most once in this time. */
const REVIVE_MS = 5_000
/**
 * Shortest time between a move and a later move to a cheaper path. A move from the relay to a
 * direct path does not wait, unless the session left that path before because of its cost.
 */
export const DWELL_MS = 1_000
/**
 * Number of consecutive answers with which a path must be clearly better before the session moves
 * to it. A direct path that was left for the relay before only needs to cost no more.
 */
export const WINS = 3
/**
 * Greatest age of another path's last answer for it to be trusted, when the path in use has failed
 * or the connector asked to leave it.
 */
const FRESH_MS = 1_000
/**
 * Shortest gap between two requests to leave a path. A client ignores a request this soon after a
 * move.
 */
const SWITCH_REQUEST_MS = 250
/** Shortest wait for the answer to a padded probe, which may stand behind a window of packets. */
const MTU_PATIENCE_MS = 500
/**
 * Delay of a wake-up above which this host counts as busy. Answers that wait unread are then no
 * sign of a dead path.
 */
const LATE_MS = 40
/** Shortest gap between two questions to the data plane whether it has read its sockets. */
const ASK_READ_MS = 1_000
/** Most decisions that are kept. Older ones are dropped. */
export const MAX_HISTORY = 64
/** Most paths that one decision shows. */
const MAX_SAMPLES = 6

/** An action that the machine wants. */
export type Output =
  | { readonly _tag: "SendPing"; readonly path: PathRef; readonly txId: string; readonly padTo: number }
  | {
    readonly _tag: "SendCandidates"
    readonly seq: number
    readonly list: ReadonlyArray<Candidate.Candidate>
    readonly mapping?: Candidate.Mapping
  }
  | { readonly _tag: "Select"; readonly path: PathRef; readonly reason: Reason }
  /** Sets the largest size in bytes of QUIC packets on `path`. */
  | { readonly _tag: "SetPacketSize"; readonly path: PathRef; readonly bytes: number }
  | { readonly _tag: "RequestSwitch"; readonly reason: SwitchReason }
  /**
   * Asks for a call of `onRead` when the data plane has read everything that waits in its sockets.
   */
  | { readonly _tag: "AskRead" }
  | { readonly _tag: "Decided"; readonly decision: Decision }
  /**
   * Asks for a call of `onTick` at this time or before it, and replaces any earlier request. `null`
   * if nothing is due.
   */
  | { readonly _tag: "Wake"; readonly at: number | null }

/** Options of {@link PathMachine}. */
export type Options = {
  readonly role: Role
  readonly now: number
  /** Path in use at the start. It is the relay, unless the machine takes over a running session. */
  readonly path: PathRef
  readonly active: boolean
  /**
   * Eight hex digits that differ for each machine of a session. Answers to the probes of an earlier
   * machine then do not count.
   */
  readonly txPrefix: string
  /**
   * Number of this machine's first candidate list. Must be larger than any that a former machine of
   * the session used.
   */
  readonly firstSeq?: number
}

/** State machine that chooses the path of one session. */
export class PathMachine {
  readonly role: Role
  readonly #table: PathTable
  readonly #relay: PathTrack
  readonly #startedAt: number
  readonly #txPrefix: string
  #txCount = 0
  #since: number
  #moved: Reason
  #reason: Reason
  #active: boolean
  /** Whether data moves. */
  #moving = true
  #keepaliveMs = KEEPALIVE_MS
  #lastActiveAt: number
  #relayKind: LegKind = "relay-udp"
  #local: ReadonlyArray<Candidate.Candidate> | null = null
  /** Bridge addresses of this host, whether offered or not. */
  #own: ReadonlySet<string> = new Set()
  #mapping: Candidate.Mapping | null = null
  #udpBlocked = false
  #guess: GuessReason | null = null
  #peer: ReadonlyArray<Candidate.Candidate> | null = null
  #peerSeq = -1
  readonly #offer: CandidateOffer
  #nextLadderAt = -Infinity
  #movedAt = -Infinity
  /** When the machine asked to be woken. */
  #dueAt = Infinity
  #requestedAt = -Infinity
  /**
   * Why the connector asked to leave the path in use. `null` if it did not ask, or the session has
   * moved since.
   */
  #leave: SwitchReason | null = null
  /**
   * When another path first answered while the path in use owed an answer. `null` if none has.
   * Until then nothing shows that the peer itself answers: it may be asleep, or its host too busy.
   */
  #othersAnswerSince: number | null = null
  /** How much longer than the round trip such answers took, in ms, because a host was busy. */
  #othersLateMs = 0
  /** When the data plane was asked whether it has read its sockets. */
  #askedReadAt = -Infinity
  /** Whether the data plane has just read its sockets, so that no answer waits there. */
  #hasRead = false
  /**
   * State of a path in use that has lost this host's address. `waiting` until the relay is bound
   * again, then `ready`. `null` if the path has not lost it, or has answered since.
   */
  #orphan: "waiting" | "ready" | null = null
  #history: Array<Decision> = []
  #decisions = 0
  #out: Array<Output> = []

  constructor(options: Options) {
    this.role = options.role
    this.#startedAt = options.now
    this.#since = options.now
    this.#txPrefix = options.txPrefix
    this.#offer = new CandidateOffer(options.firstSeq ?? 0)
    this.#active = options.active
    this.#lastActiveAt = options.now
    this.#table = new PathTable(options.role, options.path)
    this.#relay = this.#table.relay
    this.#moved = isFirstRelay(options.path) ? "relay_first" : "resumed"
    this.#reason = this.#moved
    this.#record(options.now, false)
    this.#out = []
  }

  // --- Current state

  /** Path that the session uses now. */
  get path(): PathRef {
    return this.#table.current.path
  }
  /** Reason why the session uses its path. */
  get reason(): Reason {
    return this.#reason
  }
  /** When the session began to use its current path, in ms (monotonic). */
  get since(): number {
    return this.#since
  }
  /** Whether flows are open in the session. */
  get active(): boolean {
    return this.#active
  }
  /**
   * Whether a direct path is sought: while a flow is open, and for {@link SEEK_MS} after the last
   * one.
   */
  isSeeking(now: number): boolean {
    return this.#active || now - this.#lastActiveAt <= SEEK_MS
  }
  /** The last decisions, oldest first, at most {@link MAX_HISTORY}. */
  get history(): ReadonlyArray<Decision> {
    return this.#history
  }
  /** Number of all decisions so far. */
  get decisions(): number {
    return this.#decisions
  }
  /** The last reason that port guessing gave for having no direct path. `null` if it gave none. */
  get guess(): GuessReason | null {
    return this.#guess
  }
  /** Whether a direct path answers. */
  get hasDirect(): boolean {
    for (const { path, state } of this.#table.tracks()) if (path.kind === "direct" && state === "proved") return true
    return false
  }
  /**
   * Lowest round trip of the path in use in the last half minute, in ms. `null` if never measured.
   */
  rttMs(now: number): number | null {
    return this.#table.current.score.minRttMs(now)
  }
  /** Returns the state of every path. */
  samples(now: number): ReadonlyArray<PathSample> {
    return [...this.#table.tracks()].map((track) => track.sample(now, this.#relayKind))
  }

  // --- Inputs

  /**
   * Does what is due now. It is also the first call after the machine was made. It may be called
   * late or too often.
   */
  onTick(now: number): ReadonlyArray<Output> {
    return this.#run(now)
  }

  /**
   * Takes this host's candidates and offers them to the peer if they changed. `udpBlocked`: whether
   * no STUN server answers over UDP. `mapping`: `null` if it is not known. `leftOut`: addresses of
   * this host that are not offered.
   */
  onLocalCandidates(
    list: ReadonlyArray<Candidate.Candidate>,
    udpBlocked: boolean,
    now: number,
    mapping: Candidate.Mapping | null = null,
    leftOut: ReadonlyArray<Candidate.Candidate> = []
  ): ReadonlyArray<Output> {
    this.#udpBlocked = udpBlocked
    this.#own = Candidate.virtualHosts([...list, ...leftOut])
    const clean = Candidate.toPeer(Candidate.accept(list, { allowLoopback: true }))
    if (this.#local === null || mapping !== this.#mapping || !Candidate.sameList(this.#local, clean)) {
      this.#local = clean
      this.#mapping = mapping
      this.#offer.renew()
      this.#sendOffer(now)
      this.#table.pair(this.#local, this.#peer, now, this.#own)
    }
    return this.#run(now)
  }

  /** Takes the peer's candidates. A list that is no newer than the last one is ignored. */
  onPeerCandidates(seq: number, list: ReadonlyArray<Candidate.Candidate>, now: number): ReadonlyArray<Output> {
    if (seq > this.#peerSeq) {
      this.#peerSeq = seq
      this.#peer = list.slice(0, Candidate.MAX_CANDIDATES)
      this.#table.pair(this.#local, this.#peer, now, this.#own)
    }
    return this.#run(now)
  }

  /** Notes that the peer has received the list of candidates with this number. */
  onCandidatesAcked(seq: number, now: number): ReadonlyArray<Output> {
    this.#offer.onAcked(seq)
    return this.#run(now)
  }

  /**
   * Sets the gap between keepalives that this host's own NAT needs. A gap above
   * {@link KEEPALIVE_MS} has no effect, because the peer's NAT is not known here.
   */
  onKeepalive(gapMs: number): void {
    this.#keepaliveMs = Math.min(KEEPALIVE_MS, gapMs)
  }

  /** Handles an answer to a ping on `path`. An answer to a ping that is not open is ignored. */
  onPong(path: PathRef, txId: string, rttMs: number, now: number): ReadonlyArray<Output> {
    const track = this.#table.get(path)
    if (track?.mtu.onPong(txId, now) === true) return this.#run(now)
    if (track?.onPong(txId, rttMs, now) === true) {
      if (track === this.#table.current) {
        this.#orphan = null
        this.#clearDoubt()
      } else {
        this.#onOtherAnswers(track, now)
        if (this.role === "client") this.#consider(track, now)
      }
    }
    return this.#run(now)
  }

  /**
   * Notes that the data plane has read its sockets since it was asked. Answers that waited there
   * were passed on before.
   */
  onRead(now: number): ReadonlyArray<Output> {
    this.#askedReadAt = -Infinity
    this.#hasRead = true
    const out = this.#run(now)
    this.#hasRead = false
    return out
  }

  /**
   * Notes that the session's packets come by `path`. While they do, it takes longer until
   * unanswered pings condemn the path.
   */
  onHeard(path: PathRef, now: number): ReadonlyArray<Output> {
    const track = this.#table.get(path)
    if (track !== undefined) track.heardAt = now
    return this.#run(now)
  }

  /**
   * Handles an authenticated ping that came by `path`. The sender may not have known its address
   * there, so the path may be new (RFC 8445, section 7.3.1.3).
   */
  onPing(path: PathRef, now: number): ReadonlyArray<Output> {
    const track = this.#table.learn(path)
    track.pingedAt = now
    if (track !== this.#relay && track.state !== "proved") {
      const isOver = track.ladderDue === null || track.isSpent
      // While ports are guessed, this ping is the success that was waited for.
      if (isOver && (this.#guess === "guessing" || now - track.roundAt >= REVIVE_MS)) track.startRound(now, BUDGET)
      track.hurry(now)
    }
    return this.#run(now)
  }

  /** Handles a report by the kernel or the QUIC engine that `path` is broken. */
  onPathError(path: PathRef, now: number): ReadonlyArray<Output> {
    const track = this.#table.get(path)
    if (track !== undefined && track.state !== "failed") {
      track.state = "failed"
      track.startRound(now, BUDGET, LADDER_GAP_MS)
    }
    return this.#run(now)
  }

  /**
   * Notes that this side's leg to the home relay is of this kind and has just been bound, perhaps
   * again.
   */
  onRelayBound(kind: LegKind, now: number): ReadonlyArray<Output> {
    this.#relayKind = kind
    this.#relay.onBoundAnew()
    if (this.#orphan !== null) this.#orphan = "ready"
    // The last list may not have left.
    if (this.#offer.isOpen) this.#sendOffer(now)
    return this.#run(now)
  }

  /**
   * Notes that this side has just been bound, perhaps again, at another relay than the home relay.
   * The peer may be bound there, too.
   */
  onOtherRelayBound(path: PathRef, now: number): ReadonlyArray<Output> {
    const track = this.#table.learn(path)
    track.onBoundAnew()
    if (track.state !== "proved") track.startRound(now, BUDGET)
    return this.#run(now)
  }

  /** Notes whether flows are open. */
  onActivity(active: boolean, now: number): ReadonlyArray<Output> {
    if (this.#active || active) this.#lastActiveAt = now
    this.#active = active
    return this.#run(now)
  }

  /** Notes whether data moves in the session's flows. It counts as moving until this is called. */
  onTraffic(moving: boolean, now: number): ReadonlyArray<Output> {
    this.#moving = moving
    return this.#run(now)
  }

  /**
   * Looks for better paths although no flow is open, because somebody wants to know how well the
   * peer can be reached.
   */
  onAsked(now: number): ReadonlyArray<Output> {
    this.#lastActiveAt = now
    return this.#run(now)
  }

  /** Takes the reason that port guessing gives for having no direct path. */
  onGuess(reason: GuessReason | null, now: number): ReadonlyArray<Output> {
    this.#guess = reason
    return this.#run(now)
  }

  /**
   * Handles a change of this host's addresses or sockets. It discards all measurements and proves
   * all paths again, the path in use first. `lost`: IP versions for which this host has no address
   * any more. If the path in use is a direct one of them, the relay is likely to be better as soon
   * as it is bound again.
   */
  onNetworkChange(now: number, lost: ReadonlyArray<4 | 6> = []): ReadonlyArray<Output> {
    const { path } = this.#table.current
    this.#orphan = path.kind === "direct" && lost.includes(path.family) ? "waiting" : this.#orphan
    for (const track of this.#table.tracks()) track.onNetworkChange(now, track === this.#table.current)
    if (this.#local !== null) this.#sendOffer(now)
    return this.#run(now)
  }

  /** Follows the client, whose packets now come by this path. Connector only. */
  onSelectedByPeer(path: PathRef, now: number): ReadonlyArray<Output> {
    const track = this.#table.learn(path)
    if (this.role === "connector" && track !== this.#table.current) {
      this.#take(track, "peer_selected", now)
      if (track.state === "untried" || track.state === "exhausted") track.startRound(now, BUDGET)
    }
    return this.#run(now)
  }

  /** Handles the connector's request to leave the path in use. Client only. */
  onSwitchRequested(reason: SwitchReason, now: number): ReadonlyArray<Output> {
    if (this.role === "client" && now - this.#movedAt >= SWITCH_REQUEST_MS) this.#leave = reason
    return this.#run(now)
  }

  // --- Choice of the path

  #run(now: number): ReadonlyArray<Output> {
    const late = now - this.#dueAt
    if (late > LATE_MS) { for (const track of this.#table.tracks()) track.forgive(late, now) }
    if (this.#active) this.#lastActiveAt = now
    for (const track of this.#table.tracks()) track.settle(now, track === this.#table.current)
    this.#escape(now)
    this.#reprobe(now)
    this.#ping(now)
    this.#size(now)
    if (this.#offer.dueAt(this.isSeeking(now)) <= now) {
      this.#offer.onSentAgain(now)
      this.#tellCandidates()
    }
    this.#explain(now)
    const wakeAt = this.#wakeAt(now)
    this.#dueAt = wakeAt ?? Infinity
    this.#out.push({ _tag: "Wake", at: wakeAt })
    const out = this.#out
    this.#out = []
    return out
  }

  /**
   * Leaves a path in use that is silent, broken or unwanted, as soon as another one is known to
   * answer. A connector asks the client to do so.
   */
  #escape(now: number): void {
    const current = this.#table.current
    const why = this.#trouble(now)
    if (why === null) return
    const isSilent = why === "path_blackholed" || why === "network_changed"
    if (why === "path_blackholed" && now < this.#condemnAt()) return
    const since = isSilent ? current.unansweredSince ?? now : now - FRESH_MS
    let best: PathTrack | null = null
    for (const track of this.#table.tracks()) {
      if (track === current || track.state !== "proved" || track.isOverdue(now)) continue
      const unasked = why === "path_failed" || this.#orphan === "ready"
      const trusted = track.lastPongAt >= since || (track === this.#relay && unasked)
      if (trusted && (best === null || this.#cost(track, now) < this.#cost(best, now))) best = track
    }
    if (best === null) return
    if (why === "path_blackholed" && !this.#hasRead) return this.#askRead(now)
    if (this.role === "connector") return this.#requestSwitch(why === "peer_request" ? "path_blackholed" : why, now)
    const moved = why === "network_changed" || this.#leave === "network_changed"
    if (!moved) current.onFall(now, false)
    this.#select(best, why, now)
    // A move of this host or its peer is not the path's fault. The path is sought again at once,
    // without a penalty.
    if (moved) current.onNetworkChange(now, false)
  }

  /**
   * Asks whether the data plane has read its sockets. Its thread may have stood still, and the
   * missing answer may wait there.
   */
  #askRead(now: number): void {
    if (now - this.#askedReadAt < ASK_READ_MS) return
    if (this.role === "connector" && now - this.#requestedAt < SWITCH_REQUEST_MS) return
    this.#askedReadAt = now
    this.#out.push({ _tag: "AskRead" })
  }

  #clearDoubt(): void {
    this.#othersAnswerSince = null
    this.#othersLateMs = 0
    this.#askedReadAt = -Infinity
  }

  /** Notes that another path than the one in use has answered. */
  #onOtherAnswers(track: PathTrack, now: number): void {
    if (this.#table.current.unansweredSince === null) return
    this.#othersAnswerSince ??= now
    const lateMs = now - track.answeredSentAt - (track.score.minRttMs(now) ?? 0)
    this.#othersLateMs = Math.max(this.#othersLateMs, lateMs)
  }

  #trouble(now: number): SwitchReason | "peer_request" | null {
    const current = this.#table.current
    if (current.state === "failed") return "path_failed"
    if (this.#orphan === "ready" || (current.mistrusted && current.isOverdue(now))) return "network_changed"
    if (current.state === "silent") return "path_blackholed"
    return this.#leave === null ? null : "peer_request"
  }

  /**
   * When silence condemns the path in use: a moment after the peer was seen to answer on another
   * path. A peer that stood still answers on all its paths when it goes on, and which answer is
   * read first says nothing. If a host is busy, the answers on other paths are late, too. The path
   * in use then gets as much time again. `Infinity` while no other path answers.
   */
  #condemnAt(): number {
    if (this.#othersAnswerSince === null) return Infinity
    return this.#othersAnswerSince + Math.max(this.#table.current.score.suspectMs(), this.#othersLateMs)
  }

  /**
   * Decides whether a path that has just answered is better than the one in use, and moves if so.
   */
  #consider(track: PathTrack, now: number): void {
    const cost = this.#cost(track, now)
    const against = this.#cost(this.#table.current, now)
    if (now < track.holdUntil) return
    const toDirect = track.path.kind === "direct"
    const relayed = this.#table.current.path.kind === "relay"
    const isBetter = isClearlyBetter(cost, against)
    const better = toDirect
      ? "direct_faster" as const
      : isWebRtc(track.path)
      ? "webrtc_faster" as const
      : relayed
      ? "relay_faster" as const
      : "direct_slower_than_relay" as const
    // Of two paths that cost the same the direct one is taken: at once, or, if it lost before,
    // after several such answers in a row.
    const isEnough = isBetter || (relayed && toDirect && cost <= against)
    if (isEnough && relayed && toDirect && !track.demoted) {
      return this.#select(track, isBetter ? better : "direct_proved", now)
    }
    track.wins = isEnough ? track.wins + 1 : 0
    if (track.wins < WINS || now - this.#movedAt < DWELL_MS) return
    if (isBetter) this.#table.current.onFall(now, true)
    this.#select(track, isBetter ? better : "direct_proved", now)
  }

  #cost(track: PathTrack, now: number): number {
    return track.score.costMs(now, biasMs(track.path, this.#relayKind)) ?? Infinity
  }

  #select(track: PathTrack, reason: Reason, now: number): void {
    this.#out.push({ _tag: "Select", path: track.path, reason })
    this.#take(track, reason, now)
  }

  #take(track: PathTrack, reason: Reason, now: number): void {
    this.#table.current.mistrusted = false
    this.#table.current = track
    this.#clearDoubt()
    this.#since = now
    this.#movedAt = now
    this.#leave = null
    this.#orphan = null
    for (const other of this.#table.tracks()) other.wins = 0
    this.#moved = reason
    this.#reason = reason
    this.#record(now, true)
  }

  #requestSwitch(reason: SwitchReason, now: number): void {
    if (now - this.#requestedAt < SWITCH_REQUEST_MS) return
    this.#requestedAt = now
    this.#out.push({ _tag: "RequestSwitch", reason })
  }

  #explain(now: number): void {
    const reason = PathReason.of({
      role: this.role,
      now,
      startedAt: this.#startedAt,
      current: this.#table.current,
      tracks: this.#table.tracks(),
      moved: this.#moved,
      local: this.#local?.length ?? null,
      peer: this.#peer?.length ?? null,
      udpBlocked: this.#udpBlocked,
      guess: this.#guess
    })
    if (reason === this.#reason) return
    this.#reason = reason
    this.#record(now, false)
  }

  #record(now: number, moved: boolean): void {
    const chosen = this.#table.current.path
    const paths = PathReason.shownPaths(this.#table.tracks(), chosen, keyOf, MAX_SAMPLES)
      .map((track) => track.sample(now, this.#relayKind))
    const decision: Decision = { atMs: now, paths, chosen, reason: this.#reason, moved }
    this.#history.push(decision)
    if (this.#history.length > MAX_HISTORY) this.#history.shift()
    this.#decisions++
    this.#out.push({ _tag: "Decided", decision })
  }

  // --- Probes

  #reprobe(now: number): void {
    if (this.#table.current.path.kind !== "relay" || !this.isSeeking(now)) return
    for (const track of this.#table.tracks()) {
      if (track.isIdleDirect && now - track.roundAt >= REPROBE_MS) track.startRound(now, BUDGET_AGAIN)
    }
  }

  #ping(now: number): void {
    const standby = this.#standby(now)
    for (const track of this.#table.tracks()) {
      const gap = this.#upkeepGap(track, standby, now)
      if (gap !== null && track.lastPingAt + gap <= now) this.#send(track, now, false)
    }
    const due = [...this.#table.tracks()].filter((track) =>
      track.ladderDue !== null && track.ladderDue <= now && !track.isSpent
    )
    due.sort((a, b) => a.sent - b.sent || (b.priority > a.priority ? 1 : b.priority < a.priority ? -1 : 0))
    for (const track of due) {
      if (now < this.#nextLadderAt) break
      this.#nextLadderAt = now + PACE_MS
      this.#send(track, now, true)
    }
  }

  /** Probes for the largest packet on the path in use, while data flows, and reports a new size. */
  #size(now: number): void {
    const track = this.#table.current
    track.mtu.settle(now)
    const bytes = this.#active && track.state === "proved" ? track.mtu.due(now) : null
    if (bytes !== null) {
      const txId = this.#newTxId()
      track.mtu.onSent(txId, now, Math.max(MTU_PATIENCE_MS, track.patienceMs()))
      this.#out.push({ _tag: "SendPing", path: track.path, txId, padTo: bytes - SEAL_BYTES })
    }
    if (track.toldBytes === track.mtu.bytes) return
    track.toldBytes = track.mtu.bytes
    this.#out.push({ _tag: "SetPacketSize", path: track.path, bytes: track.toldBytes })
  }

  #newTxId(): string {
    return this.#txPrefix + (this.#txCount++ >>> 0).toString(16).padStart(8, "0")
  }

  #send(track: PathTrack, now: number, onLadder: boolean): void {
    const txId = this.#newTxId()
    track.onSent(txId, now, onLadder)
    this.#out.push({ _tag: "SendPing", path: track.path, txId, padTo: MIN_PING_BYTES })
  }

  /** The alternative that is kept as fresh as the path in use. `null` if there is none. */
  #standby(now: number): PathTrack | null {
    if (this.#table.current !== this.#relay && this.#relay.state === "proved") return this.#relay
    let best: PathTrack | null = null
    for (const track of this.#table.tracks()) {
      if (track === this.#table.current || track.state !== "proved") continue
      if (best === null || this.#cost(track, now) < this.#cost(best, now)) best = track
    }
    return best
  }

  /** Gap between two probes of a path outside its ladder. `null` if none is due. */
  #upkeepGap(track: PathTrack, standby: PathTrack | null, now: number): number | null {
    const current = track === this.#table.current
    if (track.state !== "proved") {
      const matters = (current || track.path.kind === "relay") && track.ladderDue === null
      return matters ? this.#active ? LADDER_GAP_MS : current ? this.#keepaliveMs : null : null
    }
    if (track.mistrusted && track.unansweredSince === null) return 0
    if (isSuspect(track, now) && (current || this.#active)) return SUSPECT_GAP_MS
    const { current: inUse } = this.#table
    if (!current && (isSuspect(inUse, now) || inUse.state === "failed" || this.#leave !== null)) return RESCUE_GAP_MS
    if (track.score.samples + track.inFlight < MEASURE_PINGS && this.isSeeking(now)) return SUSPECT_GAP_MS
    if (this.#active && !this.#moving) {
      // A better path than the relay is not kept waiting.
      return current || (track === standby && inUse.path.kind === "relay") ? QUIET_GAP_MS : SPARE_GAP_MS
    }
    if (this.#active) return current || track === standby ? BUSY_GAP_MS : SPARE_GAP_MS
    // A proved direct path may be the better one by now.
    if (this.#table.current.path.kind === "relay" && this.isSeeking(now)) return SPARE_GAP_MS
    return current && track.path.kind === "direct" ? this.#keepaliveGap(track) : null
  }

  /** Gap between this side's keepalives. `null` if those of the other side suffice. */
  #keepaliveGap(track: PathTrack): number | null {
    if (this.role === "client") return this.#keepaliveMs
    if (this.#keepaliveMs >= CONNECTOR_KEEPALIVE_MS) return null
    if (track.lastPingAt === -Infinity) return 0
    return Math.max(0, track.pingedAt - track.lastPingAt) + AFTER_CLIENT * this.#keepaliveMs
  }

  #wakeAt(now: number): number | null {
    const standby = this.#standby(now)
    let at = this.#offer.dueAt(this.isSeeking(now))
    if (this.#table.current.state === "silent") {
      const condemnAt = this.#condemnAt()
      if (condemnAt > now) at = Math.min(at, condemnAt)
      if (this.#askedReadAt > -Infinity) at = Math.min(at, this.#askedReadAt + ASK_READ_MS)
    }
    if (this.#reason === "relay_first") at = Math.min(at, this.#startedAt + PathReason.YOUNG_MS)
    const { mtu, state } = this.#table.current
    at = Math.min(at, mtu.lostAt(), this.#active && state === "proved" ? mtu.dueAt() : Infinity)
    const reprobes = this.#table.current.path.kind === "relay" && this.isSeeking(now)
    for (const track of this.#table.tracks()) {
      const gap = this.#upkeepGap(track, standby, now)
      if (gap !== null) at = Math.min(at, track.lastPingAt + gap)
      if (track.ladderDue !== null) {
        at = Math.min(at, track.isSpent ? track.ladderDue : Math.max(track.ladderDue, this.#nextLadderAt))
      }
      if (reprobes && track.isIdleDirect) at = Math.min(at, track.roundAt + REPROBE_MS)
      if (track.state !== "silent" && track.state !== "failed") {
        for (const due of [track.suspectAt(), track.overdueAt()]) if (due !== null && due > now) at = Math.min(at, due)
      }
    }
    return at === Infinity ? null : Math.max(at, now + 1)
  }

  // --- Candidates

  #sendOffer(now: number): void {
    this.#offer.onSent(now)
    this.#tellCandidates()
  }

  #tellCandidates(): void {
    const told = this.#mapping === null ? {} : { mapping: this.#mapping }
    this.#out.push({ _tag: "SendCandidates", seq: this.#offer.seq, list: this.#local ?? [], ...told })
  }
}

const isSuspect = (track: PathTrack, now: number): boolean => {
  const at = track.suspectAt()
  return at !== null && at <= now
}
