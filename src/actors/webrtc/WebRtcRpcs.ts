/** Calls of the WebRtcActor. This file has no behaviour. */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import { Draining } from "../mux/StreamMuxRpcs.ts"
import * as ActorAddress from "../runtime/actor/ActorAddress.ts"
import { SessionId } from "../signaling/RelaySignalingRpcs.ts"

/** A WebRTC connection with another node. */
export const WebRtcLink = Schema.Struct({
  session: SessionId,
  open: Schema.Boolean,
  /** Type of the chosen local candidate (RFC 8445, section 5.1.1). `null` if none is chosen yet. */
  local: Schema.NullOr(Schema.String),
  /** Type of the chosen remote candidate. `null` if none is chosen yet. */
  remote: Schema.NullOr(Schema.String),
  /** Frames that were dropped because the queue was full. */
  dropped: Schema.Int
})
export type WebRtcLink = typeof WebRtcLink.Type

/** A browser that has a session with this node. */
export const BrowserPeer = Schema.Struct({
  session: SessionId,
  name: Schema.String,
  local: Schema.NullOr(Schema.String),
  remote: Schema.NullOr(Schema.String),
  rttMs: Schema.NullOr(Schema.Number),
  flows: Schema.Int,
  bytesIn: Schema.Number,
  bytesOut: Schema.Number
})
export type BrowserPeer = typeof BrowserPeer.Type

/** Calls of the WebRtcActor. */
export class WebRtcRpcs extends RpcGroup.make(
  /** Answers with the connections that are open or being made. */
  Rpc.make("Links", { success: Schema.Array(WebRtcLink) }),
  /** Answers with the browsers that are connected. Connector only. */
  Rpc.make("Browsers", { success: Schema.Array(BrowserPeer) }),
  /** Does for browsers what `SetDraining` of the StreamMuxActor does for nodes. Connector only. */
  Rpc.make("SetDraining", { payload: { wanted: Schema.Boolean }, success: Draining })
) {}

/** Address of the WebRtcActor, by which other actors call it. */
export const WebRtc = ActorAddress.make("webRtc", WebRtcRpcs)
