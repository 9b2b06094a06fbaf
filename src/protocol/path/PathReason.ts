/**
 * The reason for a session's current path. There is always exactly one, from a closed list, and it
 * follows from what the machine knows now.
 */
import { type GuessReason, isWebRtc, type PathRef, type Reason, type Role } from "./PathRef.ts"
import type { PathTrack } from "./PathTrack.ts"

/**
 * How long a session waits for the first list of candidates before its reason says that there are
 * none.
 */
export const YOUNG_MS = 2_000

/** State of a session from which its reason follows. */
export type Facts = {
  readonly role: Role
  readonly now: number
  readonly startedAt: number
  readonly current: PathTrack
  /** All paths of the session. */
  readonly tracks: Iterable<PathTrack>
  /** Reason of the last move, or how the session began. */
  readonly moved: Reason
  /** Number of addresses that this side offers. `null` if its list has not come yet. */
  readonly local: number | null
  /** Number of addresses that the peer offers. `null` if its list has not come yet. */
  readonly peer: number | null
  /** Whether no STUN server answers this host over UDP. */
  readonly udpBlocked: boolean
  /** Reason that port guessing gave last. `null` if it gave none. */
  readonly guess: GuessReason | null
}

/**
 * Reasons of moves away from a path that was in trouble. Each stays the reason while a direct path
 * is still sought.
 */
const FALLS: ReadonlySet<Reason> = new Set(["path_blackholed", "path_failed", "peer_request", "network_changed"])

const IMPROVEMENTS: ReadonlySet<Reason> = new Set([
  "direct_proved",
  "direct_faster",
  "direct_slower_than_relay",
  "relay_faster",
  "webrtc_faster"
])

/**
 * Whether a move for this reason is an improvement, which means that the path that is left still
 * works.
 */
export const isImprovement = (reason: Reason): boolean => IMPROVEMENTS.has(reason)

/** Returns the reason for the path that is in use. */
export const of = (facts: Facts): Reason => {
  const { current, moved } = facts
  const others = [...facts.tracks].filter((track) => track !== current)
  if (isDown(current) && !others.some((track) => track.state === "proved")) return "nothing_answers"
  if (current.mistrusted) return "network_changed"
  return current.path.kind === "direct" || isWebRtc(current.path)
    ? moved
    : ofRelay(facts, others.filter(({ path }) => path.kind === "direct"))
}

const isDown = (track: PathTrack): boolean => track.state === "silent" || track.state === "failed"

const ofRelay = (facts: Facts, direct: ReadonlyArray<PathTrack>): Reason => {
  const { moved, now, role } = facts
  const proved = direct.filter((track) => track.state === "proved")
  if (proved.length > 0) {
    if (FALLS.has(moved) && proved.every((track) => now < track.holdUntil)) return moved
    return role === "client" ? "direct_slower_than_relay" : "peer_selected"
  }
  if (facts.guess === "guessing") return facts.guess
  if (direct.some((track) => track.isSought)) return FALLS.has(moved) ? moved : "probing"
  if (direct.length === 0) return ofNone(facts)
  return facts.udpBlocked ? "udp_blocked" : facts.guess ?? "probes_unanswered"
}

const ofNone = ({ local, now, peer, startedAt, udpBlocked }: Facts): Reason => {
  if (local === null || peer === null) return now - startedAt < YOUNG_MS ? "relay_first" : "no_candidates"
  if (udpBlocked) return "udp_blocked"
  return local === 0 || peer === 0 ? "no_candidates" : "no_common_family"
}

/**
 * Returns the paths that a decision shows: the chosen one, the relays, and then the likeliest
 * others.
 */
export const shownPaths = (
  tracks: Iterable<PathTrack>,
  chosen: PathRef,
  keyOf: (path: PathRef) => string,
  limit: number
): ReadonlyArray<PathTrack> => {
  const rank = (track: PathTrack): number =>
    track.key === keyOf(chosen) ? 3 : track.path.kind === "relay" ? 2 : track.state === "proved" ? 1 : 0
  return [...tracks]
    .sort((a, b) => rank(b) - rank(a) || (b.priority > a.priority ? 1 : b.priority < a.priority ? -1 : 0))
    .slice(0, limit)
}
