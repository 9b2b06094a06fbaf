/** Calls of the PathProberActor, and its calls to the data plane. This file has no behaviour. */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import { CandidateList, Mapping } from "../../protocol/candidate/Candidate.ts"
import { LEG_KINDS } from "../../protocol/path/PathKind.ts"
import { BASE_BYTES, LARGEST_BYTES } from "../../protocol/path/PathMtu.ts"
import { Decision, PathRef, PathSample, Reason, Role, SwitchReason } from "../../protocol/path/PathRef.ts"
import { MAX_SEEN, SAMPLES, SOCKETS } from "../../protocol/path/PortGuess.ts"
import * as ActorAddress from "../runtime/actor/ActorAddress.ts"
import { SessionId } from "../signaling/RelaySignalingRpcs.ts"

/**
 * Transaction id of a ping: 8 bytes in hex. It is unique within a session, even across restarts of
 * the prober.
 */
export const TxId = Schema.String.pipe(Schema.pattern(/^[0-9a-f]{16}$/))
export type TxId = typeof TxId.Type

/**
 * Event: a session has started. `path` is the path in use. When the prober subscribes, it first
 * receives this event for each live session.
 */
export const SessionUp = Schema.TaggedStruct("SessionUp", {
  session: SessionId,
  role: Role,
  peer: Schema.String,
  path: PathRef,
  /** Whether a flow is open, or was within the last few seconds. */
  active: Schema.Boolean
})
/** Event: a session has ended. */
export const SessionDown = Schema.TaggedStruct("SessionDown", { session: SessionId })
/**
 * Event: the peer's whole candidate list has arrived, and the data plane has acknowledged it. A
 * list with a lower `seq` than an earlier one is stale.
 */
export const PeerCandidates = Schema.TaggedStruct("PeerCandidates", {
  session: SessionId,
  seq: Schema.Int,
  list: CandidateList,
  /** Mapping of the peer's NAT. Absent if it is not known. */
  mapping: Schema.optional(Mapping)
})
/** Event: the peer has acknowledged this host's candidate list with the number `seq`. */
export const CandidatesAcked = Schema.TaggedStruct("CandidatesAcked", { session: SessionId, seq: Schema.Int })
/**
 * Event: an authenticated ping arrived, and the data plane answered it. `path` leads back to the
 * sender.
 */
export const PingSeen = Schema.TaggedStruct("PingSeen", { session: SessionId, path: PathRef })
/**
 * Event: a ping was answered. `observed` is this host's address as the peer saw it, or `null` over
 * a relay.
 */
export const Pong = Schema.TaggedStruct("Pong", {
  session: SessionId,
  path: PathRef,
  txId: TxId,
  rttMs: Schema.Number,
  observed: Schema.NullOr(SocketAddr)
})
/**
 * Event: the data plane has read its sockets since `AskRead`. Events of answers that waited there
 * come before it.
 */
export const SocketsRead = Schema.TaggedStruct("SocketsRead", { session: SessionId })
/**
 * Event: packets of the session arrive by the path in use although a ping is unanswered. The ping
 * or its answer may be queued behind other packets, so the path may still work.
 */
export const Heard = Schema.TaggedStruct("Heard", { session: SessionId, path: PathRef })
/**
 * Event: the activity of a session changed. `active` is `true` while a flow is open and for a few
 * seconds after it.
 */
export const Activity = Schema.TaggedStruct("Activity", { session: SessionId, active: Schema.Boolean })
/**
 * Event: the session's data began to move, or has not moved for a second. A session without flows
 * is quiet, too.
 */
export const Traffic = Schema.TaggedStruct("Traffic", { session: SessionId, moving: Schema.Boolean })
/**
 * Event: sending on the path failed permanently. The cause is EHOSTUNREACH or ENETUNREACH, QUIC has
 * closed the path, or the relay leg was lost.
 */
export const PathError = Schema.TaggedStruct("PathError", {
  session: SessionId,
  path: PathRef,
  message: Schema.String
})
/** Event on a connector: the client's packets now arrive by this path. */
export const PeerSelected = Schema.TaggedStruct("PeerSelected", { session: SessionId, path: PathRef })
/** Event on a client: the connector asks the client to leave the path in use. */
export const SwitchRequested = Schema.TaggedStruct("SwitchRequested", { session: SessionId, reason: SwitchReason })
/**
 * Event: relayed packets have another carrier, or the same one was bound again. The carrier
 * determines the relay path's cost. `kind` is `null` if nothing carries relayed packets.
 */
export const RelayLeg = Schema.TaggedStruct("RelayLeg", {
  kind: Schema.NullOr(Schema.Literal(...LEG_KINDS))
})
/**
 * Event: this node was bound, perhaps again, at a relay other than its home relay, or has lost that
 * binding. When the prober subscribes, it first receives this event for each such relay that is
 * bound.
 */
export const OtherRelay = Schema.TaggedStruct("OtherRelay", { name: Schema.String, bound: Schema.Boolean })

/**
 * Event: a STUN server answered a socket that `SampleGuess` opened. `local` is the socket's own
 * port.
 */
export const GuessSampled = Schema.TaggedStruct("GuessSampled", {
  session: SessionId,
  local: Schema.Int,
  mapped: SocketAddr
})
/**
 * Event: `count` sockets for port guessing could not be opened. `code` is the system's error, such
 * as EMFILE.
 */
export const GuessRefused = Schema.TaggedStruct("GuessRefused", {
  session: SessionId,
  count: Schema.Int,
  code: Schema.String
})
/** The peer's report that its sockets for port guessing are open; see `PortGuess.Opened`. */
export const Opened = Schema.Struct({
  attempt: Schema.Int,
  seen: Schema.Array(SocketAddr).pipe(Schema.maxItems(MAX_SEEN)),
  delta: Schema.NullOr(Schema.Int)
})
/** Event: the peer has opened its sockets for port guessing. */
export const PeerOpened = Schema.TaggedStruct("PeerOpened", { session: SessionId, opened: Opened })

/** Event of the data plane that concerns the choice of paths. */
export const PathEvent = Schema.Union(
  SessionUp,
  SessionDown,
  PeerCandidates,
  CandidatesAcked,
  PingSeen,
  Pong,
  SocketsRead,
  Heard,
  Activity,
  Traffic,
  PathError,
  PeerSelected,
  SwitchRequested,
  RelayLeg,
  OtherRelay,
  GuessSampled,
  GuessRefused,
  PeerOpened
)
export type PathEvent = typeof PathEvent.Type

/** Most addresses that one request may name. */
const MAX_GUESSES = 16

/**
 * Calls of the path prober to the data plane, which merges them into its own calls. A call about a
 * session that has ended is ignored: its `SessionDown` is on the way.
 */
export class PathDriverRpcs extends RpcGroup.make(
  /**
   * Events from now on. First come the RelayLeg and, for each live session, its SessionUp and the
   * peer's newest PeerCandidates.
   */
  Rpc.make("PathEvents", { success: PathEvent, stream: true }),
  /**
   * Sends a ping. `padTo` is the size of the plaintext in bytes, at least
   * `PathMessage.MIN_PING_BYTES`. The data plane measures the round trip.
   */
  Rpc.make("SendPing", { payload: { session: SessionId, path: PathRef, txId: TxId, padTo: Schema.Int } }),
  /**
   * Asks for the event `SocketsRead` once the data plane has read everything that waits in its
   * sockets now.
   */
  Rpc.make("AskRead", { payload: { session: SessionId } }),
  /**
   * Sends this host's candidates on every live path, including the relay. The prober repeats it
   * until `CandidatesAcked`.
   */
  Rpc.make("SendCandidates", {
    payload: { session: SessionId, seq: Schema.Int, list: CandidateList, mapping: Schema.optional(Mapping) }
  }),
  /**
   * Opens sockets for port guessing, which ask the relay for their mapped addresses. The sockets of
   * an earlier attempt are closed.
   */
  Rpc.make("SampleGuess", { payload: { session: SessionId, count: Schema.Int.pipe(Schema.between(1, SAMPLES)) } }),
  /**
   * Sends a sealed probe from each of `count` sockets. The sampled sockets are used first, and more
   * are opened as needed. One attempt opens at most `PortGuess.SOCKETS`.
   */
  Rpc.make("OpenGuess", {
    payload: { session: SessionId, to: SocketAddr, count: Schema.Int.pipe(Schema.between(1, SOCKETS)) }
  }),
  /**
   * Closes all sockets of port guessing except the one that received the peer's probe. That one
   * carries the path to the peer until the session ends.
   */
  Rpc.make("CloseGuess", { payload: { session: SessionId } }),
  /** Sends a sealed probe to each address from the usual socket. */
  Rpc.make("SendGuesses", {
    payload: { session: SessionId, to: Schema.Array(SocketAddr).pipe(Schema.maxItems(MAX_GUESSES)) }
  }),
  /** Reports this node's open sockets to the peer, sealed and by the relay. */
  Rpc.make("TellOpened", { payload: { session: SessionId, opened: Opened } }),
  /**
   * Makes `path` the one that packets take from now on. The old path continues to receive. Client
   * only.
   */
  Rpc.make("SelectPath", { payload: { session: SessionId, path: PathRef, reason: Reason } }),
  /** Records why the path in use is kept, for the traces of flows. Packets are not affected. */
  Rpc.make("KeepPath", { payload: { session: SessionId, reason: Reason } }),
  /** Limits QUIC packets on `path` to `bytes` from now on; see `PathMtu`. */
  Rpc.make("SetPacketSize", {
    payload: { session: SessionId, path: PathRef, bytes: Schema.Int.pipe(Schema.between(BASE_BYTES, LARGEST_BYTES)) }
  }),
  /** Sends a sealed `Switch` on every live path. Connector only. */
  Rpc.make("RequestSwitch", { payload: { session: SessionId, reason: SwitchReason } })
) {}

// ---------------------------------------------------------------------------- the prober's own

/** The path of one session, with the measurements of its other paths. */
export const SessionPath = Schema.Struct({
  session: SessionId,
  role: Role,
  peer: Schema.String,
  path: PathRef,
  /** Why this path is in use and no other; see `Reason`. */
  reason: Reason,
  /** Round trip of the path in use, in ms. `null` if it has not been measured. */
  rttMs: Schema.NullOr(Schema.Number),
  /** When this path was taken, in ms since the epoch. */
  since: Schema.Number,
  /** Whether a flow is open, or was within the last few seconds. */
  active: Schema.Boolean,
  /**
   * Whether better paths are being sought. That is so while a flow is open, and for a minute after
   * the last one.
   */
  seeking: Schema.Boolean,
  /** Every path that was tried or will be tried soon. */
  tried: Schema.Array(PathSample),
  /** Number of decisions made so far. `Decisions` holds the last 64 of them. */
  decisions: Schema.Int
})
export type SessionPath = typeof SessionPath.Type

/** One decision about a session's path. */
export const Decided = Schema.Struct({ session: SessionId, peer: Schema.String, decision: Decision })
export type Decided = typeof Decided.Type

/** Result of a successful ping. */
export const Pinged = Schema.Struct({ session: SessionId, path: PathRef, rttMs: Schema.Number, reason: Reason })
export type Pinged = typeof Pinged.Type

/**
 * Error when a ping failed. `no_session`: there is no session with the peer. `unanswered`: the peer
 * did not answer in time.
 */
export class PingFailed extends Schema.TaggedError<PingFailed>()("PingFailed", {
  reason: Schema.Literal("no_session", "unanswered"),
  message: Schema.String
}) {}

/** Calls of the PathProberActor. */
export class PathProberRpcs extends RpcGroup.make(
  /** Answers with the path of each session. */
  Rpc.make("Paths", { success: Schema.Array(SessionPath) }),
  /** Answers with a session's last decisions, oldest first. Empty if the session is not known. */
  Rpc.make("Decisions", { payload: { session: SessionId }, success: Schema.Array(Decision) }),
  /**
   * Decisions from now on, each as it is made. A slow reader may miss some; `Decisions` has them.
   */
  Rpc.make("Decided", { success: Decided, stream: true }),
  /**
   * Makes one round trip to a peer by the path in use, within 2 s. Each ping makes the prober seek
   * better paths for a while, as data does.
   */
  Rpc.make("Ping", { payload: { peer: Schema.String }, success: Pinged, error: PingFailed })
) {}

/** Address of the PathProberActor, by which other actors call it. */
export const PathProber = ActorAddress.make("pathProber", PathProberRpcs)
