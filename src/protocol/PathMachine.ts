/**
 * Path choice for one session, without I/O: what happened goes in, what to do comes out as data. The relay works from the
 * start; direct paths are probed beside it and taken when an authenticated answer proves them and they cost no more; a path
 * that goes silent while another one answers is left at once. Times: ms, monotonic; every input bears `now`.
 *
 * The client chooses. A connector probes in the same way, since both sides must send to open their translators, follows the
 * client, and asks it to move where it sees trouble first.
 */
import * as Candidate from "./Candidate.ts"
import { CandidateOffer } from "./CandidateOffer.ts"
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
import { biasMs, isClearlyBetter, type RelayKind } from "./PathScore.ts"
import { PathTable } from "./PathTable.ts"
import { BUDGET, BUDGET_AGAIN, LADDER_GAP_MS, type PathTrack } from "./PathTrack.ts"

/** Between two ladder probes of a session, over all its pairs: at most 200 a second. */
export const PACE_MS = 5
/** The path in use and its best alternative, while data flows. */
export const BUSY_GAP_MS = 200
/** Other proved paths, while data flows; after the last flow all of them, while a direct one is sought. */
export const SPARE_GAP_MS = 5_000
/** While an answer is overdue. */
export const SUSPECT_GAP_MS = 50
/** Other paths, while the one in use is suspect. */
export const RESCUE_GAP_MS = 100
/** A direct path in use, while nothing flows; by the client. The longest gap: most translators keep a UDP mapping for 30 s. */
export const KEEPALIVE_MS = 25_000
/** A connector whose own translator needs packets more often than this sends some, too. */
const CONNECTOR_KEEPALIVE_MS = 20_000
/** ... a bit later than a client with as bad a one, whose pings spare it its own. */
const AFTER_CLIENT = 1.1
/** Answers wanted of a fresh path, at `SUSPECT_GAP_MS`, before it is measured well enough. */
const MEASURE_PINGS = 3
/** How often direct paths are looked for again while relayed. */
export const REPROBE_MS = 30_000
/** How long after its last flow a session still looks for a direct path. */
export const SEEK_MS = 60_000
/** A peer's probe starts a spent pair's round anew at most this often. */
const REVIVE_MS = 5_000
/** After a move on cost, the next one waits at least this long. */
export const DWELL_MS = 1_000
/** In a row clearly better. */
export const WINS = 3
/** How recent an answer must be to follow a request or a failure, when nothing newer can be had. */
const FRESH_MS = 1_000
const SWITCH_REQUEST_MS = 250
/** A padded probe may wait behind a window of packets. */
const MTU_PATIENCE_MS = 500
/** Woken later than this, the host is busy, and unread answers are no sign of a dead path. */
const LATE_MS = 40
export const MAX_HISTORY = 64
/** In one decision. */
const MAX_SAMPLES = 6

export type Output =
  | { readonly _tag: "SendPing"; readonly path: PathRef; readonly txId: string; readonly padTo: number }
  | {
    readonly _tag: "SendCandidates"
    readonly seq: number
    readonly list: ReadonlyArray<Candidate.Candidate>
    readonly mapping?: Candidate.Mapping
  }
  | { readonly _tag: "Select"; readonly path: PathRef; readonly reason: Reason }
  /** QUIC packets on `path` may have so many bytes from now on. */
  | { readonly _tag: "SetPacketSize"; readonly path: PathRef; readonly bytes: number }
  | { readonly _tag: "RequestSwitch"; readonly reason: SwitchReason }
  | { readonly _tag: "Decided"; readonly decision: Decision }
  /** Call `onTick` no later than then. Replaces any earlier one; null: nothing is due. */
  | { readonly _tag: "Wake"; readonly at: number | null }

export type Options = {
  readonly role: Role
  readonly now: number
  /** The path in use; other than the relay only when the machine starts in the middle of a session. */
  readonly path: PathRef
  readonly active: boolean
  /** 8 hex digits, other ones for each machine of a session: answers to a former machine's probes must not count. */
  readonly txPrefix: string
  /** The first list of ours has this number; larger than any that a former machine of the session used. */
  readonly firstSeq?: number
}

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
  #keepaliveMs = KEEPALIVE_MS
  #lastActiveAt: number
  #relayKind: RelayKind = "relay-udp"
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
  /** When the machine wanted to be woken. */
  #dueAt = Infinity
  #requestedAt = -Infinity
  /** Why the connector asked to leave the path in use, and no other one has answered since. */
  #leave: SwitchReason | null = null
  /** The path in use has lost this host's address. `ready`: and the relay is bound by another one. */
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

  // ------------------------------------------------------------------------------------------------------ what is so now

  get path(): PathRef {
    return this.#table.current.path
  }
  get reason(): Reason {
    return this.#reason
  }
  /** When the path in use was taken. */
  get since(): number {
    return this.#since
  }
  get active(): boolean {
    return this.#active
  }
  /** Whether a direct path is looked for: while a flow is open, and for `SEEK_MS` after the last one. */
  isSeeking(now: number): boolean {
    return this.#active || now - this.#lastActiveAt <= SEEK_MS
  }
  /** Oldest first, at most `MAX_HISTORY`. */
  get history(): ReadonlyArray<Decision> {
    return this.#history
  }
  get decisions(): number {
    return this.#decisions
  }
  /** As it was told last. */
  get guess(): GuessReason | null {
    return this.#guess
  }
  /** A direct path answers. */
  get hasDirect(): boolean {
    for (const { path, state } of this.#table.tracks()) if (path.kind === "direct" && state === "proved") return true
    return false
  }
  rttMs(now: number): number | null {
    return this.#table.current.score.minRttMs(now)
  }
  samples(now: number): ReadonlyArray<PathSample> {
    return [...this.#table.tracks()].map((track) => track.sample(now, this.#relayKind))
  }

  // -------------------------------------------------------------------------------------------------------------- inputs

  /** Also the first call after making the machine. May be called late or too often. */
  onTick(now: number): ReadonlyArray<Output> {
    return this.#run(now)
  }

  /**
   * `udpBlocked`: no STUN server answers over UDP. `mapping`: `null` where it is not known. `leftOut`: addresses of this host that are
   * not offered.
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

  /** A list that is no newer than the last one is passed over. */
  onPeerCandidates(seq: number, list: ReadonlyArray<Candidate.Candidate>, now: number): ReadonlyArray<Output> {
    if (seq > this.#peerSeq) {
      this.#peerSeq = seq
      this.#peer = list.slice(0, Candidate.MAX_CANDIDATES)
      this.#table.pair(this.#local, this.#peer, now, this.#own)
    }
    return this.#run(now)
  }

  onCandidatesAcked(seq: number, now: number): ReadonlyArray<Output> {
    this.#offer.onAcked(seq)
    return this.#run(now)
  }

  /** What this host's own translator needs. The peer's is not known here, so that more than `KEEPALIVE_MS` counts for nothing. */
  onKeepalive(gapMs: number): void {
    this.#keepaliveMs = Math.min(KEEPALIVE_MS, gapMs)
  }

  /** `path`: the one that was pinged. An answer to a ping that is not open is passed over. */
  onPong(path: PathRef, txId: string, rttMs: number, now: number): ReadonlyArray<Output> {
    const track = this.#table.get(path)
    if (track?.mtu.onPong(txId, now) === true) return this.#run(now)
    if (track?.onPong(txId, rttMs, now) === true) {
      if (track === this.#table.current) this.#orphan = null
      else if (this.role === "client") this.#consider(track, now)
    }
    return this.#run(now)
  }

  /** The session's packets come by `path`: while they do, unanswered pings alone do not condemn it. */
  onHeard(path: PathRef, now: number): ReadonlyArray<Output> {
    const track = this.#table.get(path)
    if (track !== undefined) track.heardAt = now
    return this.#run(now)
  }

  /** An authenticated ping came by `path`, which the peer may not have known of itself (RFC 8445, section 7.3.1.3). */
  onPing(path: PathRef, now: number): ReadonlyArray<Output> {
    const track = this.#table.learn(path)
    track.pingedAt = now
    if (track !== this.#relay && track.state !== "proved") {
      const isOver = track.ladderDue === null || track.isSpent
      // While ports are guessed this is the news that was waited for.
      if (isOver && (this.#guess === "guessing" || now - track.roundAt >= REVIVE_MS)) track.startRound(now, BUDGET)
      track.hurry(now)
    }
    return this.#run(now)
  }

  onPathError(path: PathRef, now: number): ReadonlyArray<Output> {
    const track = this.#table.get(path)
    if (track !== undefined && track.state !== "failed") {
      track.state = "failed"
      track.startRound(now, BUDGET, LADDER_GAP_MS)
    }
    return this.#run(now)
  }

  /** Another way to know the relay's round trip (its handshake): counts until probes have measured it. */
  onRelayRtt(rttMs: number, now: number): ReadonlyArray<Output> {
    if (this.#relay.score.samples === 0) this.#relay.score.onRtt(rttMs, now)
    return this.#run(now)
  }

  /** This side's leg to the relay is of this kind and has just been bound, perhaps anew. */
  onRelayBound(kind: RelayKind, now: number): ReadonlyArray<Output> {
    this.#relayKind = kind
    this.#relay.onBoundAnew()
    if (this.#orphan !== null) this.#orphan = "ready"
    if (this.#offer.isOpen) this.#sendOffer(now) // it may not have left
    return this.#run(now)
  }

  /** This side has just been bound, perhaps anew, at another relay than the first; the peer may be, too. */
  onOtherRelayBound(path: PathRef, now: number): ReadonlyArray<Output> {
    const track = this.#table.learn(path)
    track.onBoundAnew()
    if (track.state !== "proved") track.startRound(now, BUDGET)
    return this.#run(now)
  }

  onActivity(active: boolean, now: number): ReadonlyArray<Output> {
    if (this.#active || active) this.#lastActiveAt = now
    this.#active = active
    return this.#run(now)
  }

  /** Somebody wants to know how well the peer is reached: better paths are looked for, though nothing flows. */
  onAsked(now: number): ReadonlyArray<Output> {
    this.#lastActiveAt = now
    return this.#run(now)
  }

  /** What port guessing knows of why there is no direct path. */
  onGuess(reason: GuessReason | null, now: number): ReadonlyArray<Output> {
    this.#guess = reason
    return this.#run(now)
  }

  /**
   * Addresses or sockets changed: nothing that was measured counts, all is proved anew, the path in use first. `lost`: direct paths
   * of these IP versions have lost this host's address, so that the relay is the better guess as soon as it is bound again.
   */
  onNetworkChange(now: number, lost: ReadonlyArray<4 | 6> = []): ReadonlyArray<Output> {
    const { path } = this.#table.current
    this.#orphan = path.kind === "direct" && lost.includes(path.family) ? "waiting" : this.#orphan
    for (const track of this.#table.tracks()) track.onNetworkChange(now, track === this.#table.current)
    if (this.#local !== null) this.#sendOffer(now)
    return this.#run(now)
  }

  /** Connector: the client's packets come by this path now. */
  onSelectedByPeer(path: PathRef, now: number): ReadonlyArray<Output> {
    const track = this.#table.learn(path)
    if (this.role === "connector" && track !== this.#table.current) {
      this.#take(track, "peer_selected", now)
      if (track.state === "untried" || track.state === "exhausted") track.startRound(now, BUDGET)
    }
    return this.#run(now)
  }

  /** Client: the connector asks to leave the path in use. */
  onSwitchRequested(reason: SwitchReason, now: number): ReadonlyArray<Output> {
    if (this.role === "client" && now - this.#movedAt >= SWITCH_REQUEST_MS) this.#leave = reason
    return this.#run(now)
  }

  // ------------------------------------------------------------------------------------------------------------ choosing

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

  /** Leaves a path in use that is silent, broken or unwanted, as soon as another one is known to answer. */
  #escape(now: number): void {
    const current = this.#table.current
    const why = this.#trouble(now)
    if (why === null) return
    const isSilent = why === "path_blackholed" || why === "network_changed"
    const since = isSilent ? current.unansweredSince ?? now : now - FRESH_MS
    let best: PathTrack | null = null
    for (const track of this.#table.tracks()) {
      if (track === current || track.state !== "proved" || track.isOverdue(now)) continue
      const unasked = why === "path_failed" || this.#orphan === "ready"
      const trusted = track.lastPongAt >= since || (track === this.#relay && unasked)
      if (trusted && (best === null || this.#cost(track, now) < this.#cost(best, now))) best = track
    }
    if (best === null) return
    if (this.role === "connector") return this.#requestSwitch(why === "peer_request" ? "path_blackholed" : why, now)
    const moved = why === "network_changed" || this.#leave === "network_changed"
    if (!moved) current.onFall(now, false)
    this.#select(best, why, now)
    // A move of this host or its peer is not the path's fault: it is looked for at once, in its own right.
    if (moved) current.onNetworkChange(now, false)
  }

  #trouble(now: number): SwitchReason | "peer_request" | null {
    const current = this.#table.current
    if (current.state === "failed") return "path_failed"
    if (this.#orphan === "ready" || (current.mistrusted && current.isOverdue(now))) return "network_changed"
    if (current.state === "silent") return "path_blackholed"
    return this.#leave === null ? null : "peer_request"
  }

  /** Another path than the one in use has just answered: is it the better one? */
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
    // Of two that cost the same the direct one is taken: at once, or, when it lost before, as soon as it holds its ground.
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

  // ------------------------------------------------------------------------------------------------------------- probing

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

  /** Finds out how large the packets of the path in use may be, while data flows. */
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

  /** The alternative that is kept as fresh as the path in use. */
  #standby(now: number): PathTrack | null {
    if (this.#table.current !== this.#relay && this.#relay.state === "proved") return this.#relay
    let best: PathTrack | null = null
    for (const track of this.#table.tracks()) {
      if (track === this.#table.current || track.state !== "proved") continue
      if (best === null || this.#cost(track, now) < this.#cost(best, now)) best = track
    }
    return best
  }

  /** Between two probes of a path outside its ladder; null: none is due. */
  #upkeepGap(track: PathTrack, standby: PathTrack | null, now: number): number | null {
    const current = track === this.#table.current
    if (track.state !== "proved") {
      const matters = (current || track.path.kind === "relay") && track.ladderDue === null
      return matters ? this.#active ? LADDER_GAP_MS : current ? this.#keepaliveMs : null : null
    }
    if (track.mistrusted && track.unansweredSince === null) return 0
    if (isSuspect(track, now) && (current || this.#active)) return SUSPECT_GAP_MS
    if (!current && (isSuspect(this.#table.current, now) || this.#leave !== null)) return RESCUE_GAP_MS
    if (track.score.samples + track.inFlight < MEASURE_PINGS && this.isSeeking(now)) return SUSPECT_GAP_MS
    if (this.#active) return current || track === standby ? BUSY_GAP_MS : SPARE_GAP_MS
    if (this.#table.current.path.kind === "relay" && this.isSeeking(now)) return SPARE_GAP_MS // is the direct one the better one now?
    return current && track.path.kind === "direct" ? this.#keepaliveGap(track) : null
  }

  /** Since the last ping of ours; null: the other side's suffice. */
  #keepaliveGap(track: PathTrack): number | null {
    if (this.role === "client") return this.#keepaliveMs
    if (this.#keepaliveMs >= CONNECTOR_KEEPALIVE_MS) return null
    if (track.lastPingAt === -Infinity) return 0
    return Math.max(0, track.pingedAt - track.lastPingAt) + AFTER_CLIENT * this.#keepaliveMs
  }

  #wakeAt(now: number): number | null {
    const standby = this.#standby(now)
    let at = this.#offer.dueAt(this.isSeeking(now))
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

  // ---------------------------------------------------------------------------------------------------------- candidates

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
