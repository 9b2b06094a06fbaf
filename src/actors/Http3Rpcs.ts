/** What may be asked of the Http3Actor. No behaviour here. */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import * as ActorAddress from "./runtime/ActorAddress.ts"

export class Http3Rpcs extends RpcGroup.make(
  /** The UDP port that HTTP/3 is served at. */
  Rpc.make("AwaitListening", { success: Schema.Struct({ http3: Schema.Int }) })
) {}

export const Http3 = ActorAddress.make("http3", Http3Rpcs)
