/** What may be asked of the WebRtcActor. No behaviour here. */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import { SessionId } from "./RelaySignalingRpcs.ts"
import * as ActorAddress from "./runtime/ActorAddress.ts"

export const WebRtcLink = Schema.Struct({
  session: SessionId,
  open: Schema.Boolean,
  /** Types of the chosen candidates (RFC 8445, section 5.1.1); null: none is chosen yet. */
  local: Schema.NullOr(Schema.String),
  remote: Schema.NullOr(Schema.String),
  /** Frames that found no room. */
  dropped: Schema.Int
})
export type WebRtcLink = typeof WebRtcLink.Type

/** A browser that is connected. */
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

export class WebRtcRpcs extends RpcGroup.make(
  /** Those that are being made, and those that are. */
  Rpc.make("Links", { success: Schema.Array(WebRtcLink) }),
  /** Of a connector. */
  Rpc.make("Browsers", { success: Schema.Array(BrowserPeer) })
) {}

export const WebRtc = ActorAddress.make("webRtc", WebRtcRpcs)
