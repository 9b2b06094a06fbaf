/** The words in which the data plane and path choice talk about paths. */
import { Schema } from "effect"
import { SocketAddr } from "./SocketAddr.ts"

/** The client chooses among paths, the connector follows and may ask (RFC 9000, section 9: only a QUIC client migrates). */
export const Role = Schema.Literal("client", "connector")
export type Role = typeof Role.Type

/**
 * The nodes' own relay is one path, whatever carries it; so is each other relay, which has a name. A direct path is a local socket
 * (by family) and the peer's address.
 */
export const PathRef = Schema.Union(
  Schema.Struct({
    kind: Schema.Literal("relay"),
    relay: Schema.optionalWith(Schema.NonEmptyString, { exact: true })
  }),
  Schema.Struct({ kind: Schema.Literal("direct"), family: Schema.Literal(4, 6), remote: SocketAddr })
)
export type PathRef = typeof PathRef.Type

export const RELAY: PathRef = { kind: "relay" }

/** By another relay than the nodes' own. */
export const viaRelay = (name: string): PathRef => ({ kind: "relay", relay: name })

/** By a WebRTC connection between the two nodes, which is to them as another relay is. No relay can have this name. */
export const WEBRTC_NAME = "(webrtc)"
export const WEBRTC: PathRef = viaRelay(WEBRTC_NAME)
export const isWebRtc = (path: PathRef): boolean => path.kind === "relay" && path.relay === WEBRTC_NAME

/** By the nodes' own relay, where each session begins. */
export const isFirstRelay = (path: PathRef): boolean => path.kind === "relay" && path.relay === undefined

/** `remote.host` is canonical (`Candidate.canonical`), or equal paths would have different keys. */
export const direct = (remote: SocketAddr): PathRef => ({
  kind: "direct",
  family: remote.host.includes(":") ? 6 : 4,
  remote
})

/** Two paths with the same key are the same path. */
export const keyOf = (path: PathRef): string =>
  path.kind === "direct"
    ? `${path.remote.host}|${path.remote.port}`
    : path.relay === undefined
    ? "relay"
    : `relay ${path.relay}`

/** Why a session's path is what it is. Closed: whoever shows it can explain each. */
export const Reason = Schema.Literal(
  /** The session is new; the relay works, and nothing else has been tried yet. */
  "relay_first",
  /** The path in use was found so: the prober started after the session. */
  "resumed",
  /** This side or the other has not offered any address to probe. */
  "no_candidates",
  /** Both sides offered addresses, but none of the same IP version. */
  "no_common_family",
  /** No STUN server answers over UDP here: the network blocks UDP. */
  "udp_blocked",
  /** Relayed: both sides' translators have another port for every destination, so neither can know where the other is. */
  "symmetric_both",
  /** Relayed while the ports of a translator are guessed. */
  "guessing",
  /** Relayed: the ports were guessed to the budget and none answered. */
  "guess_exhausted",
  /** Relayed: this host gives too few sockets for guessing; raise its limit of open files. */
  "guess_unavailable",
  /** Relayed while probes are under way. */
  "probing",
  /** Relayed: each pair was probed to its budget and none answered. */
  "probes_unanswered",
  /** Moved to a direct path that answers and costs no more than the one before. */
  "direct_proved",
  /** Moved to a direct path that is clearly better than the one before. */
  "direct_faster",
  /** Relayed, although a direct path answers: the relay is clearly faster. */
  "direct_slower_than_relay",
  /** Moved to another relay that is clearly faster than the one before. */
  "relay_faster",
  /** Moved to a WebRTC connection that is clearly faster than the relay: ICE got through where no direct path answers. */
  "webrtc_faster",
  /** The path in use went silent while this one answers. */
  "path_blackholed",
  /** The kernel or the engine reported the path in use as broken. */
  "path_failed",
  /** This host's addresses changed; paths are being proved anew. */
  "network_changed",
  /** The other side asked to leave the path. */
  "peer_request",
  /** Connector only: the client moved here. */
  "peer_selected",
  /** No path answers now; the last one is kept. */
  "nothing_answers"
)
export type Reason = typeof Reason.Type
/** Those that port guessing gives. */
export type GuessReason = Extract<Reason, "symmetric_both" | `guess${string}`>

/** `untried`: no probe sent yet. `proved`: an authenticated answer came within the path's deadline. `silent`: it did once. */
export const PathState = Schema.Literal("untried", "probing", "proved", "silent", "failed", "exhausted")
export type PathState = typeof PathState.Type

/** What was known of one path when a decision was made. */
export const PathSample = Schema.Struct({
  path: PathRef,
  state: PathState,
  /** Lowest round trip in the window, ms; null: never measured. */
  rttMs: Schema.NullOr(Schema.Number),
  /** 0 to 1, of the last probes. */
  loss: Schema.Number,
  /** What paths are compared by, ms; null: not eligible. */
  costMs: Schema.NullOr(Schema.Number)
})
export type PathSample = typeof PathSample.Type

export const Decision = Schema.Struct({
  /** Epoch ms where an actor answers with it; the machine's own `now` inside it. */
  atMs: Schema.Number,
  paths: Schema.Array(PathSample),
  chosen: PathRef,
  reason: Reason,
  /** False: the path stayed, and only the reason for it changed. */
  moved: Schema.Boolean
})
export type Decision = typeof Decision.Type

/** Why a connector asks the client to leave the path. */
export const SwitchReason = Schema.Literal("path_blackholed", "path_failed", "network_changed")
export type SwitchReason = typeof SwitchReason.Type
