/**
 * The paths of one session: by relays, between both sides' candidates, and those learned from the
 * peer's packets.
 */
import * as Candidate from "../candidate/Candidate.ts"
import { direct, isFirstRelay, keyOf, type PathRef, RELAY, type Role } from "./PathRef.ts"
import { BUDGET, PathTrack } from "./PathTrack.ts"

/** Most learned paths that are kept. A hostile peer may send from any number of ports. */
export const MAX_LEARNED = 8
/** Most paths that are kept, the relay included. */
export const MAX_TRACKS = 32
/** A new list of candidates restarts the probes of spent pairs at most once in this time. */
const REFRESH_MS = 1_000

/** All paths of one session. */
export class PathTable {
  readonly relay: PathTrack
  /** The path in use. */
  current: PathTrack
  readonly #role: Role
  readonly #tracks = new Map<string, PathTrack>()
  #refreshedAt = -Infinity

  constructor(role: Role, path: PathRef) {
    this.#role = role
    // The handshake went over the relay, so the relay counts as working until it falls silent.
    this.relay = new PathTrack(RELAY, { state: "proved", offered: true, priority: 0n })
    this.current = this.relay
    this.#tracks.set(this.relay.key, this.relay)
    if (isFirstRelay(path)) return
    this.current = new PathTrack(path, { state: "proved", offered: false, priority: 1n })
    this.#tracks.set(this.current.key, this.current)
  }

  tracks(): Iterable<PathTrack> {
    return this.#tracks.values()
  }

  /** Returns a path of the session. `undefined` if it is not known. */
  get(path: PathRef): PathTrack | undefined {
    return this.#tracks.get(keyOf(path))
  }

  /**
   * Derives the direct paths from the two lists of candidates. New paths are probed at once. Paths
   * whose probes were spent are probed again, because something changed. `own`: bridge addresses of
   * this host.
   */
  pair(
    local: ReadonlyArray<Candidate.Candidate> | null,
    peer: ReadonlyArray<Candidate.Candidate> | null,
    now: number,
    own?: ReadonlySet<string>
  ): void {
    if (local === null || peer === null) return
    const allowLoopback = local.some((candidate) => Candidate.isLoopback(candidate.address.host))
    const pairs = Candidate.pairs(local, Candidate.accept(peer, { allowLoopback }), this.#role, own)
    const keep = new Set(pairs.map((pair) => keyOf(direct(pair.remote.address))))
    for (const track of this.#tracks.values()) {
      if (track.offered && track.path.kind === "direct" && !keep.has(track.key) && this.#isExpendable(track)) {
        this.#tracks.delete(track.key)
      }
    }
    const again = now - this.#refreshedAt >= REFRESH_MS
    if (again) this.#refreshedAt = now
    for (const pair of pairs) {
      const path = direct(pair.remote.address)
      const track = this.get(path) ?? this.#add(path, pair.priority, true)
      track.priority = pair.priority
      if ((again || track.roundAt === -Infinity) && track.isIdleDirect) track.startRound(now, BUDGET)
    }
  }

  /**
   * Returns the path by which the peer's packets come, and adds it if it is new. An address that
   * the peer did not offer comes from a NAT between the two.
   */
  learn(path: PathRef): PathTrack {
    const known = this.get(path)
    if (known !== undefined) return known
    if (path.kind === "relay") return this.#add(path, 0n, true)
    let learned = 0
    for (const track of this.#tracks.values()) if (!track.offered && track !== this.current) learned++
    if (learned >= MAX_LEARNED) this.#evict((track) => !track.offered)
    const priority = Candidate.priorityOf("prflx", path.remote.host, Candidate.localPreference(path.remote.host, 0))
    return this.#add(path, Candidate.pairPriority(priority, priority), false)
  }

  #isExpendable(track: PathTrack): boolean {
    return track !== this.relay && track !== this.current && track.state !== "proved"
  }

  #add(path: PathRef, priority: bigint, offered: boolean): PathTrack {
    if (this.#tracks.size >= MAX_TRACKS) this.#evict(() => true)
    const track = new PathTrack(path, { state: "untried", offered, priority })
    this.#tracks.set(track.key, track)
    return track
  }

  /**
   * Forgets the path that answered longest ago, or never. The path in use and the home relay are
   * kept.
   */
  #evict(among: (track: PathTrack) => boolean): void {
    let victim: PathTrack | null = null
    for (const track of this.#tracks.values()) {
      if (track === this.relay || track === this.current || !among(track)) continue
      if (victim === null || track.lastPongAt < victim.lastPongAt) victim = track
    }
    if (victim !== null) this.#tracks.delete(victim.key)
  }
}
