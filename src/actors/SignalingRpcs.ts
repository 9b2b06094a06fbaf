/** What a node's other actors may ask of its SignalingActor. No behaviour here: importing this file must not pull in the actor. */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import { Resource } from "../protocol/Documents.ts"
import { NodeKey } from "../protocol/NodeKey.ts"
import { PRESENCES } from "../protocol/PeerLoss.ts"
import { Signed } from "../protocol/Signed.ts"
import {
  Dialed,
  DialRefused,
  Examine,
  NoTurn,
  ReportRefused,
  SessionId,
  SignalingEvent,
  Target,
  TurnServers,
  UnknownSession
} from "./RelaySignalingRpcs.ts"
import * as ActorAddress from "./runtime/ActorAddress.ts"

/** No relay link now; the actor is reconnecting. `message` says why the last try failed and what to check. */
export class SignalingDown extends Schema.TaggedError<SignalingDown>()("SignalingDown", { message: Schema.String }) {}

export const SignalingState = Schema.Struct({
  state: Schema.Literal("connecting", "up", "refused"),
  /** Of the last link, also when it is down. */
  carrier: Schema.NullOr(Schema.String),
  relay: Schema.String,
  /** Why it is not up; empty when it is. */
  problem: Schema.String,
  /** The kind of `problem`: the `reason` of a `LinkError`, or `null`. */
  reason: Schema.NullOr(Schema.String),
  /** By which proxy the relay is reached, without its login, and where that proxy is named. `null` if there is none. */
  proxy: Schema.NullOr(Schema.String),
  connects: Schema.Int,
  /** How often this node speaks because something on the way ends idle connections early; `null` if nothing does. */
  keepaliveMs: Schema.NullOr(Schema.Number),
  /** How far this machine's clock is ahead of the directory's, milliseconds. `null` before the first sign-in. */
  clockAheadMs: Schema.NullOr(Schema.Number)
})
export type SignalingState = typeof SignalingState.Type

/** How far the directory's clock is ahead of this machine's `HostClock`, milliseconds: learned at sign-in, and confirmed since. */
export const TimeLearned = Schema.TaggedStruct("TimeLearned", { offsetMs: Schema.Number })
/** What the relay says, and what this node makes of it. */
export const NodeEvent = Schema.Union(SignalingEvent, TimeLearned)
export type NodeEvent = typeof NodeEvent.Type

/** The relay has been reached, perhaps anew, and takes a report. */
const ReportWanted = Schema.TaggedStruct("ReportWanted", {})
export const Wanted = Schema.Union(ReportWanted, Examine)
export type Wanted = typeof Wanted.Type

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
    success: Schema.Struct({ grant: Signed, ticket: Signed }),
    error: Schema.Union(DialRefused, SignalingDown)
  }),
  /** What this node may reach, as the relay says now. */
  Rpc.make("Resources", { success: Schema.Array(Resource), error: SignalingDown }),
  Rpc.make("TurnCredentials", { success: TurnServers, error: Schema.Union(NoTurn, SignalingDown) }),
  Rpc.make("Forward", {
    payload: { session: SessionId, box: Schema.Uint8ArrayFromSelf },
    error: Schema.Union(UnknownSession, SignalingDown)
  }),
  /** What the relay says, from now on. The directory's time and the last snapshot come first, as soon as they are known. */
  Rpc.make("Events", { success: NodeEvent, stream: true }),
  /** What the relay wants to know of this node, from now on. Whoever asks for it has the operator's consent to answer. */
  Rpc.make("Wanted", { success: Wanted, stream: true }),
  Rpc.make("Report", { payload: { text: Schema.String }, error: Schema.Union(ReportRefused, SignalingDown) }),
  Rpc.make("Findings", {
    payload: { question: Schema.String, text: Schema.String },
    error: Schema.Union(ReportRefused, SignalingDown)
  }),
  Rpc.make("State", { success: SignalingState }),
  /** Answers when the link is up and the first snapshot is here. */
  Rpc.make("AwaitUp", {})
) {}

export const Signaling = ActorAddress.make("signaling", SignalingRpcs)
