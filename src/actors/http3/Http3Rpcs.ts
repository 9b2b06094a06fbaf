/** Calls of the Http3Actor. This file has no behaviour. */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import * as ActorAddress from "../runtime/actor/ActorAddress.ts"

/** Calls of the Http3Actor. */
export class Http3Rpcs extends RpcGroup.make(
  /** Answers with the UDP port of HTTP/3 once it is served. */
  Rpc.make("AwaitListening", { success: Schema.Struct({ http3: Schema.Int }) })
) {}

/** Address of the Http3Actor, by which other actors call it. */
export const Http3 = ActorAddress.make("http3", Http3Rpcs)
