/** What other actors may ask of the PathProberActor, and what it asks of the data plane. No behaviour here. */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import { CandidateList, Mapping } from "../protocol/Candidate.ts"
import { BASE_BYTES, LARGEST_BYTES } from "../protocol/PathMtu.ts"
import { Decision, PathRef, PathSample, Reason, Role, SwitchReason } from "../protocol/PathRef.ts"
import { MAX_SEEN, SAMPLES, SOCKETS } from "../protocol/PortGuess.ts"
import { SocketAddr } from "../protocol/SocketAddr.ts"
import { SessionId } from "./RelaySignalingRpcs.ts"
import * as ActorAddress from "./runtime/ActorAddress.ts"

/** 8 bytes in hex. Unique within a session, also across restarts of the prober. */
export const TxId = Schema.String.pipe(Schema.pattern(/^[0-9a-f]{16}$/))
export type TxId = typeof TxId.Type

/** First for each live session when the prober subscribes. `path`: the one in use now. */
export const SessionUp = Schema.TaggedStruct("SessionUp", {
  session: SessionId,
  role: Role,
  peer: Schema.String,
  path: PathRef,
  /** Whether a flow is open now. */
  active: Schema.Boolean
})
export const SessionDown = Schema.TaggedStruct("SessionDown", { session: SessionId })
/** The peer's whole list; the mux has acknowledged it. A lower `seq` than one seen before is stale. */
export const PeerCandidates = Schema.TaggedStruct("PeerCandidates", {
  session: SessionId,
  seq: Schema.Int,
  list: CandidateList,
  /** Of the peer's translator; absent: not known. */
  mapping: Schema.optional(Mapping)
})
export const CandidatesAcked = Schema.TaggedStruct("CandidatesAcked", { session: SessionId, seq: Schema.Int })
/** An authenticated ping came and was answered by the mux. `path`: back to where it came from. */
export const PingSeen = Schema.TaggedStruct("PingSeen", { session: SessionId, path: PathRef })
/** `observed`: this host as the peer saw it; null over the relay. */
export const Pong = Schema.TaggedStruct("Pong", {
  session: SessionId,
  path: PathRef,
  txId: TxId,
  rttMs: Schema.Number,
  observed: Schema.NullOr(SocketAddr)
})
/** Packets of the session come by the path in use, though a ping is unanswered: they or the answer wait behind each other. */
export const Heard = Schema.TaggedStruct("Heard", { session: SessionId, path: PathRef })
/** `active`: a flow is open or moved bytes in the last second or so. */
export const Activity = Schema.TaggedStruct("Activity", { session: SessionId, active: Schema.Boolean })
/** Sending on the path failed for good (EHOSTUNREACH, ENETUNREACH, the engine closed it, the relay leg is lost). */
export const PathError = Schema.TaggedStruct("PathError", {
  session: SessionId,
  path: PathRef,
  message: Schema.String
})
/** Connector only: the client's packets now come by this path. */
export const PeerSelected = Schema.TaggedStruct("PeerSelected", { session: SessionId, path: PathRef })
/** Client only: the connector asks to leave the path in use. */
export const SwitchRequested = Schema.TaggedStruct("SwitchRequested", { session: SessionId, reason: SwitchReason })
/** What carries relayed packets now, which changes the relay path's cost; told again when it was bound anew. Null: nothing. */
export const RelayLeg = Schema.TaggedStruct("RelayLeg", {
  kind: Schema.NullOr(Schema.Literal("relay-udp", "relay-h3", "relay-tcp"))
})
/** A relay beside this node's own; told again when it was bound anew, and first for each that is bound when the prober subscribes. */
export const OtherRelay = Schema.TaggedStruct("OtherRelay", { name: Schema.String, bound: Schema.Boolean })

/** A socket opened by `SampleGuess`, by its own port, as a STUN server saw it. */
export const GuessSampled = Schema.TaggedStruct("GuessSampled", {
  session: SessionId,
  local: Schema.Int,
  mapped: SocketAddr
})
/** So many sockets for guessing could not be opened; `code` is the system's, such as EMFILE. */
export const GuessRefused = Schema.TaggedStruct("GuessRefused", {
  session: SessionId,
  count: Schema.Int,
  code: Schema.String
})
/** See `PortGuess.Opened`. */
export const Opened = Schema.Struct({
  attempt: Schema.Int,
  seen: Schema.Array(SocketAddr).pipe(Schema.maxItems(MAX_SEEN)),
  delta: Schema.NullOr(Schema.Int)
})
/** The peer has opened its sockets for guessing. */
export const PeerOpened = Schema.TaggedStruct("PeerOpened", { session: SessionId, opened: Opened })

export const PathEvent = Schema.Union(
  SessionUp,
  SessionDown,
  PeerCandidates,
  CandidatesAcked,
  PingSeen,
  Pong,
  Heard,
  Activity,
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

/** In one order. */
const MAX_GUESSES = 16

/** To be merged into the data plane's RPCs. A session that is gone is passed over in silence: its SessionDown is on the way. */
export class PathDriverRpcs extends RpcGroup.make(
  /** From now on; first come the RelayLeg and, for each live session, its SessionUp and the peer's newest PeerCandidates. */
  Rpc.make("PathEvents", { success: PathEvent, stream: true }),
  /** `padTo`: bytes of the plaintext, at least `PathMessage.MIN_PING_BYTES`. The mux measures the round trip. */
  Rpc.make("SendPing", { payload: { session: SessionId, path: PathRef, txId: TxId, padTo: Schema.Int } }),
  /** On every live path, the relay among them; the prober repeats it until `CandidatesAcked`. */
  Rpc.make("SendCandidates", {
    payload: { session: SessionId, seq: Schema.Int, list: CandidateList, mapping: Schema.optional(Mapping) }
  }),
  /** Opens sockets for guessing, which ask the relay for their outside addresses. Those of an earlier attempt are closed. */
  Rpc.make("SampleGuess", { payload: { session: SessionId, count: Schema.Int.pipe(Schema.between(1, SAMPLES)) } }),
  /** Opens more, the sampled ones first, and sends a sealed probe from each. At most `PortGuess.SOCKETS` in an attempt. */
  Rpc.make("OpenGuess", {
    payload: { session: SessionId, to: SocketAddr, count: Schema.Int.pipe(Schema.between(1, SOCKETS)) }
  }),
  /** All but the one by which the peer's probe came, which carries the path to that peer for as long as the session lasts. */
  Rpc.make("CloseGuess", { payload: { session: SessionId } }),
  /** A sealed probe to each, by the usual socket. */
  Rpc.make("SendGuesses", {
    payload: { session: SessionId, to: Schema.Array(SocketAddr).pipe(Schema.maxItems(MAX_GUESSES)) }
  }),
  /** Sealed, by the relay. */
  Rpc.make("TellOpened", { payload: { session: SessionId, opened: Opened } }),
  /** Client only: from now on packets go this way. The old path goes on receiving. */
  Rpc.make("SelectPath", { payload: { session: SessionId, path: PathRef, reason: Reason } }),
  /** Packets go on as they go: why, for whoever looks at the flows. */
  Rpc.make("KeepPath", { payload: { session: SessionId, reason: Reason } }),
  /** QUIC packets that leave by `path` have at most so many bytes from now on; see `PathMtu`. */
  Rpc.make("SetPacketSize", {
    payload: { session: SessionId, path: PathRef, bytes: Schema.Int.pipe(Schema.between(BASE_BYTES, LARGEST_BYTES)) }
  }),
  /** Connector only: a sealed `Switch` on every live path. */
  Rpc.make("RequestSwitch", { payload: { session: SessionId, reason: SwitchReason } })
) {}

// ----------------------------------------------------------------------------------------------------- the prober's own

export const SessionPath = Schema.Struct({
  session: SessionId,
  role: Role,
  peer: Schema.String,
  path: PathRef,
  /** Why it is this path and not another; see `Reason`. */
  reason: Reason,
  rttMs: Schema.NullOr(Schema.Number),
  /** Epoch ms when this path was taken. */
  since: Schema.Number,
  /** Whether a flow is open, or moved bytes in the last second or so. */
  active: Schema.Boolean,
  /** Whether better paths are looked for: while a flow is open, and for a minute after the last one. */
  seeking: Schema.Boolean,
  /** Every path that was tried or is about to be. */
  tried: Schema.Array(PathSample),
  /** Decisions made so far, of which `Decisions` holds the last 64. */
  decisions: Schema.Int
})
export type SessionPath = typeof SessionPath.Type

export const Decided = Schema.Struct({ session: SessionId, peer: Schema.String, decision: Decision })
export type Decided = typeof Decided.Type

/** A round trip that was just made. */
export const Pinged = Schema.Struct({ session: SessionId, path: PathRef, rttMs: Schema.Number, reason: Reason })
export type Pinged = typeof Pinged.Type

export class PingFailed extends Schema.TaggedError<PingFailed>()("PingFailed", {
  reason: Schema.Literal("no_session", "unanswered"),
  message: Schema.String
}) {}

export class PathProberRpcs extends RpcGroup.make(
  Rpc.make("Paths", { success: Schema.Array(SessionPath) }),
  /** Oldest first; empty for a session that is not known. */
  Rpc.make("Decisions", { payload: { session: SessionId }, success: Schema.Array(Decision) }),
  /** Each as it is made, from now on; those that a slow reader misses are in `Decisions`. */
  Rpc.make("Decided", { success: Decided, stream: true }),
  /**
   * One round trip to a peer by the path in use, within 2 s. While somebody asks, better paths are looked for as they are while data
   * flows.
   */
  Rpc.make("Ping", { payload: { peer: Schema.String }, success: Pinged, error: PingFailed }),
  /** This host's network changed in a way that addresses do not show (woken from sleep, rebound sockets): prove all again. */
  Rpc.make("NetworkChanged", {})
) {}

export const PathProber = ActorAddress.make("pathProber", PathProberRpcs)
