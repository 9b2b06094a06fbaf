/** Calls of the StreamMuxActor, which owns a node's data plane. This file has no behaviour. */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import { IceSignal } from "../../protocol/candidate/IceSignal.ts"
import { VERDICTS } from "../../protocol/flow/FlowWire.ts"
import { LocalListener } from "../../protocol/flow/LocalListener.ts"
import { PathRef } from "../../protocol/path/PathRef.ts"
import { PathDriverRpcs } from "../path/PathProberRpcs.ts"
import { LegKind } from "../relay/RelayRpcs.ts"
import * as ActorAddress from "../runtime/actor/ActorAddress.ts"
import { SessionId } from "../signaling/RelaySignalingRpcs.ts"
import { UdpControlRpcs } from "../stun/StunRpcs.ts"

/**
 * Address that marks the relay's control frames on the packet link, to distinguish them from those
 * over UDP. No datagram has this address.
 */
export const LINK_ADDRESS: SocketAddr = { host: "0.0.0.0", port: 1 }

/** Carrier that relayed packets take from now on. `null` if there is none. */
export const LegChoice = Schema.Union(
  Schema.Struct({ kind: Schema.Literal("relay-udp"), relay: SocketAddr }),
  /** The link that `OpenLink` opened. */
  Schema.Struct({ kind: Schema.Literal("link") })
)
export type LegChoice = typeof LegChoice.Type

/** Error when the packet link to the relay could not be opened. `message` says what to check. */
export class LinkUnavailable extends Schema.TaggedError<LinkUnavailable>()("LinkUnavailable", {
  message: Schema.String
}) {}

/** Status of one session, as `sallyport status` shows it. */
export const SessionStatus = Schema.Struct({
  session: SessionId,
  peer: Schema.String,
  role: Schema.Literal("client", "connector"),
  up: Schema.Boolean,
  path: PathRef,
  /** Carrier of relayed packets at this end. `null` if there is none. */
  leg: Schema.NullOr(LegKind),
  /**
   * Carrier of relayed packets at the peer's end. `null` if there is none, or the peer has not
   * reported it yet.
   */
  peerLeg: Schema.NullOr(LegKind),
  /** Round trip on the path in use as QUIC smooths it, in ms. */
  rttMs: Schema.Number,
  /** Flows that are open now. */
  flows: Schema.Int,
  /** Bytes of the session's received packets since it began. */
  bytesIn: Schema.Number,
  /** Bytes of the session's sent packets since it began. */
  bytesOut: Schema.Number
})
export type SessionStatus = typeof SessionStatus.Type

/** An open listener, for people. */
export const OpenListener = Schema.Struct({
  /** Name under which it is shown. `null` if it is not shown. */
  name: Schema.NullOr(Schema.String),
  /** Address with the port that was bound, or the path of a unix socket. */
  address: Schema.String
})
export type OpenListener = typeof OpenListener.Type

/** Reason that a draining connector gives to its clients and to the relay. */
export const DRAINING = "this connector is draining and takes no new flows"

/** Sessions and flows that are open at a connector. */
export const Draining = Schema.Struct({ sessions: Schema.Int, flows: Schema.Int })
export type Draining = typeof Draining.Type

/** Error when a listener could not be opened. `message` says which one and why. */
export class ListenFailed extends Schema.TaggedError<ListenFailed>()("ListenFailed", { message: Schema.String }) {}

/** How a node goes on while it does not reach the directory. */
export const Outage = Schema.Struct({
  /** When the directory was last reached, in ms since the epoch. */
  since: Schema.Number,
  /** When the first session ends because of that, in epoch seconds. */
  endsAt: Schema.Number
})
export type Outage = typeof Outage.Type

/** Recent flows that were refused in the same way, counted together. */
export const Refusal = Schema.Struct({
  /** Host for which the application asked. */
  host: Schema.String,
  port: Schema.Int,
  /**
   * Address of the forward that accepted these connections and reset them. `null` for flows of
   * SOCKS5, of pages, and at a connector.
   */
  forward: Schema.NullOr(Schema.String),
  /** Name of the node at the other end. `null` if the flow never had a session. */
  peer: Schema.NullOr(Schema.String),
  code: Schema.Literal(...VERDICTS),
  /** A sentence for people. May be empty. */
  why: Schema.String,
  count: Schema.Int,
  /** When it last happened, in ms since the epoch. */
  at: Schema.Number
})
export type Refusal = typeof Refusal.Type

/**
 * Signal from a session's peer to set up a WebRTC connection. `signal` is `null` when the session
 * is over.
 */
export const IceEvent = Schema.Struct({ session: SessionId, signal: Schema.NullOr(IceSignal) })
export type IceEvent = typeof IceEvent.Type

/** Tags of a session's relayed frames. This node's frames carry `send`, the peer's `receive`. */
export const Tags = Schema.Struct({ send: Schema.Int, receive: Schema.Int })

/**
 * Calls of the StreamMuxActor, including those of the path prober and the StunActor to the data
 * plane.
 */
export class StreamMuxRpcs extends RpcGroup.make(
  /**
   * Opens the packet link to the relay on this thread, after closing the one before. `http3` says
   * whether the relay takes links over HTTP/3.
   */
  Rpc.make("OpenLink", { payload: { http3: Schema.Boolean }, success: LegKind, error: LinkUnavailable }),
  /**
   * Opens a link over HTTP/3 beside the open one, then ends the open one. The next `OpenLink` uses
   * the new link. The open link stays if HTTP/3 does not work.
   */
  Rpc.make("ReplaceLinkByHttp3", { error: LinkUnavailable }),
  /** Closes the packet link, if one is open. */
  Rpc.make("CloseLink", {}),
  /** Answers when the open link ends. */
  Rpc.make("LinkEnded", {}),
  /**
   * Sets the carrier of relayed packets. It is repeated for the same carrier when that was bound
   * again, because relayed packets then get through again.
   */
  Rpc.make("UseLeg", { payload: { leg: Schema.NullOr(LegChoice) } }),
  /**
   * Sets the address of another relay, or removes the relay if `at` is `null`. `bound` says whether
   * this node is bound there. It is repeated when the relay was bound again.
   */
  Rpc.make("UseRelay", {
    payload: { name: Schema.NonEmptyString, at: Schema.NullOr(SocketAddr), bound: Schema.Boolean }
  }),
  /** Signals of peers from now on. */
  Rpc.make("IceEvents", { success: IceEvent, stream: true }),
  /** Sends a signal on the session's control stream. It is ignored if the session is gone. */
  Rpc.make("SendIce", { payload: { session: SessionId, signal: IceSignal } }),
  /** Answers with the tags of a session, or `null` if there is no such session. */
  Rpc.make("TagsOf", { payload: { session: SessionId }, success: Schema.NullOr(Tags) }),
  /** Answers with the status of all sessions. */
  Rpc.make("Status", { success: Schema.Array(SessionStatus) }),
  /** Answers with the refused flows of the last 10 minutes, newest first. */
  Rpc.make("Refusals", { success: Schema.Array(Refusal) }),
  /**
   * Opens the listeners that are new and closes those that are not listed any more. Open flows
   * continue. If one listener fails, nothing changes.
   */
  Rpc.make("SetListeners", { payload: { listeners: Schema.Array(LocalListener) }, error: ListenFailed }),
  /** Sets how long grants count while the directory is not reached; see `Config`. */
  Rpc.make("SetOfflineAccess", { payload: { seconds: Schema.NullOr(Schema.Int) } }),
  /**
   * Answers how long the open sessions go on without the directory. `null` if it is reached, and if
   * there is no session.
   */
  Rpc.make("Outage", { success: Schema.NullOr(Outage) }),
  /**
   * Allows direct paths, or closes them. While they are closed, no direct packet passes, peers get
   * an empty list of candidates, and theirs are not tried. Open flows continue through a relay.
   */
  Rpc.make("SetDirect", { payload: { allowed: Schema.Boolean } }),
  /** Answers with the open listeners. */
  Rpc.make("Listeners", { success: Schema.Array(OpenListener) }),
  /**
   * Declines new sessions from now on and asks the clients of open ones to open no more flows, or
   * takes new sessions again. Answers with what is open. It may be repeated. Connector only.
   */
  Rpc.make("SetDraining", { payload: { wanted: Schema.Boolean }, success: Draining })
).merge(PathDriverRpcs, UdpControlRpcs) {}

/** Address of the StreamMuxActor, by which other actors call it. */
export const StreamMux = ActorAddress.make("streamMux", StreamMuxRpcs)
