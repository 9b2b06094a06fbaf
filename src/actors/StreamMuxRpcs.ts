/** What other actors and the main thread may ask of the StreamMuxActor, the owner of a node's data plane. No behaviour here. */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import { VERDICTS } from "../protocol/FlowWire.ts"
import { IceSignal } from "../protocol/IceSignal.ts"
import { PathRef } from "../protocol/PathRef.ts"
import { SocketAddr } from "../protocol/SocketAddr.ts"
import { PathDriverRpcs } from "./PathProberRpcs.ts"
import { LegKind } from "./RelayRpcs.ts"
import { SessionId } from "./RelaySignalingRpcs.ts"
import * as ActorAddress from "./runtime/ActorAddress.ts"
import { UdpControlRpcs } from "./StunRpcs.ts"

/** How the relay's control frames that travel by the packet link are told from those by UDP: no datagram has this address. */
export const LINK_ADDRESS: SocketAddr = { host: "0.0.0.0", port: 1 }

/** By what relayed packets leave and come from now on; null: by nothing. */
export const LegChoice = Schema.Union(
  Schema.Struct({ kind: Schema.Literal("relay-udp"), relay: SocketAddr }),
  /** The link that `OpenLink` made. */
  Schema.Struct({ kind: Schema.Literal("link") })
)
export type LegChoice = typeof LegChoice.Type

/** The relay link for packets could not be opened; `message` says what to check. */
export class LinkUnavailable extends Schema.TaggedError<LinkUnavailable>()("LinkUnavailable", {
  message: Schema.String
}) {}

export const SessionStatus = Schema.Struct({
  session: SessionId,
  peer: Schema.String,
  role: Schema.Literal("client", "connector"),
  up: Schema.Boolean,
  path: PathRef,
  /** What carries relayed packets at this end and at the peer's; null: nothing, or not told yet. */
  leg: Schema.NullOr(LegKind),
  peerLeg: Schema.NullOr(LegKind),
  /** Smoothed by QUIC on the path in use, ms. */
  rttMs: Schema.Number,
  /** Open now. */
  flows: Schema.Int,
  /** Of the session's packets since it began. */
  bytesIn: Schema.Number,
  bytesOut: Schema.Number
})
export type SessionStatus = typeof SessionStatus.Type

export const Listeners = Schema.Struct({
  socks5: Schema.NullOr(Schema.String),
  forwards: Schema.Array(Schema.String)
})
export type Listeners = typeof Listeners.Type

/** Where a listener listens: an address, or a unix socket. */
export const Endpoint = Schema.Union(
  Schema.Struct({ host: Schema.String, port: Schema.Int }),
  Schema.Struct({ path: Schema.String })
)

export const Forward = Schema.Struct({
  listen: Schema.Struct({ host: Schema.String, port: Schema.Int }),
  resource: Schema.String,
  port: Schema.Int
})
export type Forward = typeof Forward.Type

/** A listener could not be opened; `message` says which and why. */
export class ListenFailed extends Schema.TaggedError<ListenFailed>()("ListenFailed", { message: Schema.String }) {}

/** Flows that were refused alike of late, counted together. */
export const Refusal = Schema.Struct({
  /** What the application asked for. */
  host: Schema.String,
  port: Schema.Int,
  /** The node at the other end. `null` if the flow never had a session. */
  peer: Schema.NullOr(Schema.String),
  code: Schema.Literal(...VERDICTS),
  /** A sentence for people; may be empty. */
  why: Schema.String,
  count: Schema.Int,
  /** When it last happened, epoch ms. */
  at: Schema.Number
})
export type Refusal = typeof Refusal.Type

/** What the peer of a session says to set up a WebRTC connection. `signal` null: the session is over. */
export const IceEvent = Schema.Struct({ session: SessionId, signal: Schema.NullOr(IceSignal) })
export type IceEvent = typeof IceEvent.Type

/** By which a session's relayed frames are known: `send` is what this node's own bear, `receive` the peer's. */
export const Tags = Schema.Struct({ send: Schema.Int, receive: Schema.Int })

export class StreamMuxRpcs extends RpcGroup.make(
  /** Opens the packet link to the relay in this thread; the one before it is closed. `http3`: whether the relay takes those. */
  Rpc.make("OpenLink", { payload: { http3: Schema.Boolean }, success: LegKind, error: LinkUnavailable }),
  Rpc.make("CloseLink", {}),
  /** Answers when the link that is open ends. */
  Rpc.make("LinkEnded", {}),
  /** Also said again of the same leg when it was bound anew: relayed packets get through again. */
  Rpc.make("UseLeg", { payload: { leg: Schema.NullOr(LegChoice) } }),
  /** Another relay: where it is, null to forget it, and whether this node is bound there, perhaps anew. */
  Rpc.make("UseRelay", {
    payload: { name: Schema.NonEmptyString, at: Schema.NullOr(SocketAddr), bound: Schema.Boolean }
  }),
  /** From now on. */
  Rpc.make("IceEvents", { success: IceEvent, stream: true }),
  /** On the session's control stream. One that is gone is passed over. */
  Rpc.make("SendIce", { payload: { session: SessionId, signal: IceSignal } }),
  /** Null: there is no such session. */
  Rpc.make("TagsOf", { payload: { session: SessionId }, success: Schema.NullOr(Tags) }),
  Rpc.make("Status", { success: Schema.Array(SessionStatus) }),
  /** The last 10 minutes' refused flows, the newest first. */
  Rpc.make("Refusals", { success: Schema.Array(Refusal) }),
  /** Opens the listeners that are new and closes those that are gone. Open flows go on. If one fails, nothing changes. */
  Rpc.make("SetDoors", {
    payload: { socks5: Schema.NullOr(Endpoint), forwards: Schema.Array(Forward) },
    error: ListenFailed
  }),
  Rpc.make("Listeners", { success: Listeners })
).merge(PathDriverRpcs, UdpControlRpcs) {}

export const StreamMux = ActorAddress.make("streamMux", StreamMuxRpcs)
