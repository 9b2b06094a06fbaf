/**
 * Calls of a node's SignalingActor. This file has no behaviour, so that importing it does not
 * import the actor.
 */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import { PRESENCES } from "../../protocol/path/PeerLoss.ts"
import { NodeKey } from "../../protocol/trust/NodeKey.ts"
import { Signed } from "../../protocol/trust/Signed.ts"
import * as ActorAddress from "../runtime/actor/ActorAddress.ts"
import {
  Dialed,
  DialRefused,
  Examine,
  NamedResource,
  NoTurn,
  RenewedDocuments,
  ReportRefused,
  SessionId,
  SignalingEvent,
  Target,
  TurnServers,
  UnknownSession
} from "./RelaySignalingRpcs.ts"

/**
 * Error when there is no link to the relay. The actor is reconnecting. `message` says why the last
 * attempt failed and what to check.
 */
export class SignalingDown extends Schema.TaggedError<SignalingDown>()("SignalingDown", { message: Schema.String }) {}

/** State of the link to the relay. */
export const SignalingState = Schema.Struct({
  state: Schema.Literal("connecting", "up", "refused"),
  /** Carrier of the last link, even while it is down. `null` before the first. */
  carrier: Schema.NullOr(Schema.String),
  relay: Schema.String,
  /** Why it is not up. Empty when it is. */
  problem: Schema.String,
  /** The kind of `problem`: the `reason` of a `LinkError`, or `null`. */
  reason: Schema.NullOr(Schema.String),
  /**
   * Proxy by which the relay is reached, without its login, and the place that names the proxy.
   * `null` if there is none.
   */
  proxy: Schema.NullOr(Schema.String),
  /** How many links have been up since this actor started. */
  connects: Schema.Int,
  /**
   * How often this node sends keepalives because something on the way ends idle connections early,
   * in ms. `null` if nothing does.
   */
  keepaliveMs: Schema.NullOr(Schema.Number),
  /**
   * How far this machine's clock is ahead of the directory's, in ms. `null` before the first
   * sign-in.
   */
  clockAheadMs: Schema.NullOr(Schema.Number)
})
export type SignalingState = typeof SignalingState.Type

/**
 * How far the directory's clock is ahead of this machine's `HostClock`, in ms. It is learned at
 * sign-in and confirmed later.
 */
export const TimeLearned = Schema.TaggedStruct("TimeLearned", { offsetMs: Schema.Number })
/**
 * Event: this node reaches the directory, or reaches it no more. `sinceMs` is a time of
 * `HostClock`.
 */
export const ReachChanged = Schema.TaggedStruct("ReachChanged", {
  reached: Schema.Boolean,
  sinceMs: Schema.Number
})
export type ReachChanged = typeof ReachChanged.Type
/** Events from the relay, and events that this node derives from them. */
export const NodeEvent = Schema.Union(SignalingEvent, TimeLearned, ReachChanged)
export type NodeEvent = typeof NodeEvent.Type

/** The relay has been reached, for the first time or again, and accepts a report. */
const ReportWanted = Schema.TaggedStruct("ReportWanted", {})
/** Information that the relay asks this node for. */
export const Wanted = Schema.Union(ReportWanted, Examine)
export type Wanted = typeof Wanted.Type

/**
 * Calls of the SignalingActor. Those that `RelaySignalingRpcs` has, too, are passed on to the
 * relay.
 */
export class SignalingRpcs extends RpcGroup.make(
  Rpc.make("Dial", {
    payload: { target: Target, exclude: Schema.Array(NodeKey) },
    success: Dialed,
    error: Schema.Union(DialRefused, SignalingDown)
  }),
  Rpc.make("Ready", { payload: { session: SessionId }, error: SignalingDown }),
  Rpc.make("Decline", { payload: { session: SessionId, reason: Schema.String }, error: SignalingDown }),
  Rpc.make("BrowsersLost", { error: SignalingDown }),
  Rpc.make("SessionsLost", { payload: { held: Schema.Array(SessionId) }, error: SignalingDown }),
  Rpc.make("Presence", {
    payload: { ticket: Signed },
    success: Schema.Literal(...PRESENCES),
    error: Schema.Union(DialRefused, SignalingDown)
  }),
  Rpc.make("Renew", {
    payload: { ticket: Signed },
    success: RenewedDocuments,
    error: Schema.Union(DialRefused, SignalingDown)
  }),
  /** Answers with the resources that this node may reach now, according to the relay. */
  Rpc.make("Resources", { success: Schema.Array(NamedResource), error: SignalingDown }),
  Rpc.make("TurnCredentials", { success: TurnServers, error: Schema.Union(NoTurn, SignalingDown) }),
  Rpc.make("Forward", {
    payload: { session: SessionId, box: Schema.Uint8ArrayFromSelf },
    error: Schema.Union(UnknownSession, SignalingDown)
  }),
  /**
   * Events from now on. Whether the directory is reached comes first, then its time and the last
   * snapshot, as soon as they are known.
   */
  Rpc.make("Events", { success: NodeEvent, stream: true }),
  /**
   * Questions of the relay about this node, from now on. Only for a subscriber that has the
   * operator's consent to answer.
   */
  Rpc.make("Wanted", { success: Wanted, stream: true }),
  Rpc.make("Report", { payload: { text: Schema.String }, error: Schema.Union(ReportRefused, SignalingDown) }),
  Rpc.make("Findings", {
    payload: { question: Schema.String, text: Schema.String },
    error: Schema.Union(ReportRefused, SignalingDown)
  }),
  /**
   * Notes that the relay answers packets again after a loss. If a new link to it is only due later,
   * it is made soon.
   */
  Rpc.make("RelayAnswers", {}),
  Rpc.make("State", { success: SignalingState }),
  /** Answers when the link is up and the first snapshot has arrived. */
  Rpc.make("AwaitUp", {})
) {}

/** Address of the SignalingActor, by which other actors call it. */
export const Signaling = ActorAddress.make("signaling", SignalingRpcs)
