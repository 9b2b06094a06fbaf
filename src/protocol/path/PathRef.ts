/** Names and reasons for paths, shared by the data plane and by path choice. */
import { Schema } from "effect"
import { familyOf, SocketAddr } from "../bytes/SocketAddr.ts"

/**
 * Side of a session. The client chooses the path. The connector follows and may ask for a move (RFC
 * 9000, section 9: only a QUIC client migrates).
 */
export const Role = Schema.Literal("client", "connector")
export type Role = typeof Role.Type

/**
 * Name of a path. The nodes' home relay is one path, whatever carries it. Each other relay is one
 * path, too, and has a name. A direct path is a local socket, given by its IP version, and the
 * peer's address.
 */
export const PathRef = Schema.Union(
  Schema.Struct({
    kind: Schema.Literal("relay"),
    relay: Schema.optionalWith(Schema.NonEmptyString, { exact: true })
  }),
  Schema.Struct({ kind: Schema.Literal("direct"), family: Schema.Literal(4, 6), remote: SocketAddr })
)
export type PathRef = typeof PathRef.Type

/** Path through the nodes' home relay. */
export const RELAY: PathRef = { kind: "relay" }

/** Returns the path through another relay than the home relay. */
export const viaRelay = (name: string): PathRef => ({ kind: "relay", relay: name })

/**
 * Name of the path over a WebRTC connection between the two nodes. They treat it as one more relay.
 * No relay can have this name.
 */
export const WEBRTC_NAME = "(webrtc)"
/** Path over a WebRTC connection between the two nodes. */
export const WEBRTC: PathRef = viaRelay(WEBRTC_NAME)
/** Whether the path goes over a WebRTC connection between the two nodes. */
export const isWebRtc = (path: PathRef): boolean => path.kind === "relay" && path.relay === WEBRTC_NAME

/** Whether the path goes through the home relay, where each session begins. */
export const isFirstRelay = (path: PathRef): boolean => path.kind === "relay" && path.relay === undefined

/**
 * Returns the direct path to `remote`. Its host must be canonical (`Candidate.canonical`), or equal
 * paths have different keys.
 */
export const direct = (remote: SocketAddr): PathRef => ({
  kind: "direct",
  family: familyOf(remote.host),
  remote
})

/** Returns the key of a path. Two paths with the same key are the same path. */
export const keyOf = (path: PathRef): string =>
  path.kind === "direct"
    ? `${path.remote.host}|${path.remote.port}`
    : path.relay === undefined
    ? "relay"
    : `relay ${path.relay}`

/**
 * Reason for a session's path. The list is closed, so that whoever shows a reason can explain it.
 */
export const Reason = Schema.Literal(
  /** The session is new; the relay works, and nothing else has been tried yet. */
  "relay_first",
  /** The prober started after the session, and found this path in use. */
  "resumed",
  /** This side or the other has not offered any address to probe. */
  "no_candidates",
  /** Both sides offered addresses, but none of the same IP version. */
  "no_common_family",
  /** No STUN server answers over UDP here, so the network blocks UDP. */
  "udp_blocked",
  /**
   * Relayed: both sides' NATs use another port for every destination, so neither side can know the
   * other's address.
   */
  "symmetric_both",
  /** Relayed while the ports of a NAT are guessed. */
  "guessing",
  /** Relayed: ports were guessed up to the budget, and none answered. */
  "guess_exhausted",
  /** Relayed: this host allows too few sockets for guessing. Raise its limit of open files. */
  "guess_unavailable",
  /** Relayed while probes are under way. */
  "probing",
  /** Relayed: each pair was probed up to its budget, and none answered. */
  "probes_unanswered",
  /** Moved to a direct path that answers and costs no more than the one before. */
  "direct_proved",
  /** Moved to a direct path that is clearly better than the one before. */
  "direct_faster",
  /** Relayed, although a direct path answers: the relay is clearly faster. */
  "direct_slower_than_relay",
  /** Moved to another relay that is clearly faster than the one before. */
  "relay_faster",
  /**
   * Moved to a WebRTC connection that is clearly faster than the relay. ICE got through where no
   * direct path answers.
   */
  "webrtc_faster",
  /** The path that was in use went silent while this one answers. */
  "path_blackholed",
  /** The kernel or the QUIC engine reported the path that was in use as broken. */
  "path_failed",
  /** This host's addresses changed. Paths are being proved again. */
  "network_changed",
  /** The other side asked to leave the path that was in use. */
  "peer_request",
  /** Connector only: the client moved here. */
  "peer_selected",
  /** This node's configuration allows only relays. `PathMachine` never gives this reason. */
  "relay_only",
  /** No path answers now. The last one is kept. */
  "nothing_answers"
)
export type Reason = typeof Reason.Type
/** Reasons that port guessing gives. */
export type GuessReason = Extract<Reason, "symmetric_both" | `guess${string}`>

/**
 * State of a path.
 * - `untried`: no probe was sent yet.
 * - `probing`: probes were sent, and none was answered yet.
 * - `proved`: an authenticated answer came within the path's deadline.
 * - `silent`: answers have stopped.
 * - `failed`: the kernel or the QUIC engine reported the path as broken.
 * - `exhausted`: all probes of the round were sent, and none was answered.
 */
export const PathState = Schema.Literal("untried", "probing", "proved", "silent", "failed", "exhausted")
export type PathState = typeof PathState.Type

/** State of one path when a decision was made. */
export const PathSample = Schema.Struct({
  path: PathRef,
  state: PathState,
  /** Lowest round trip of the last half minute, in ms. `null` if never measured. */
  rttMs: Schema.NullOr(Schema.Number),
  /** Share of the last probes that were lost, from 0 to 1. */
  loss: Schema.Number,
  /** Cost by which paths are compared, in ms. `null` if the path cannot be chosen. */
  costMs: Schema.NullOr(Schema.Number)
})
export type PathSample = typeof PathSample.Type

/** A decision about a session's path, or a new reason for the path that stayed. */
export const Decision = Schema.Struct({
  /**
   * Time of the decision. Epoch ms if an actor returns it, the machine's own `now` inside the
   * machine.
   */
  atMs: Schema.Number,
  paths: Schema.Array(PathSample),
  chosen: PathRef,
  reason: Reason,
  /** Whether the session moved. `false` if the path stayed and only the reason for it changed. */
  moved: Schema.Boolean
})
export type Decision = typeof Decision.Type

/** Reason for which a connector asks the client to leave the path. */
export const SwitchReason = Schema.Literal("path_blackholed", "path_failed", "network_changed")
export type SwitchReason = typeof SwitchReason.Type
