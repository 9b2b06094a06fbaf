/** Three actors in a row for the runtime's suite: `front` asks `middle`, which asks `echo`; and one that does not start. */
import * as Transferable from "@effect/platform/Transferable"
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import * as ActorAddress from "../../../src/actors/runtime/actor/ActorAddress.ts"

export class EchoFailed extends Schema.TaggedError<EchoFailed>()("EchoFailed", { why: Schema.String }) {}

export const MovedBytes = Transferable.schema(Schema.Uint8ArrayFromSelf, (bytes) => [bytes.buffer])

const Tick = Schema.Struct({ incarnation: Schema.Int, n: Schema.Int })
const Traces = Schema.Array(Schema.String) // the trace id at each hop

export class EchoRpcs extends RpcGroup.make(
  Rpc.make("Echo", { payload: { n: Schema.Int }, success: Schema.Int }),
  Rpc.make("Fail", { payload: { why: Schema.String }, error: EchoFailed }),
  Rpc.make("HandlerDies", {}),
  Rpc.make("LoopDies", {}),
  Rpc.make("Hang", {}),
  /** How many calls of `Hang` were interrupted. */
  Rpc.make("Interrupted", { success: Schema.Int }),
  /** State of one incarnation: each call adds one. */
  Rpc.make("Bump", { success: Schema.Int }),
  Rpc.make("Numbers", { payload: { to: Schema.Int }, success: Schema.Int, stream: true }),
  /** How many numbers were taken from `Numbers`' source. */
  Rpc.make("Produced", { success: Schema.Int }),
  /** One a few milliseconds, without end. */
  Rpc.make("Ticks", { success: Tick, stream: true }),
  Rpc.make("FailingStream", { success: Schema.Int, error: EchoFailed, stream: true }),
  Rpc.make("Move", { payload: { bytes: MovedBytes }, success: MovedBytes }),
  /** Message order: what was posted to the inbox, as handled. */
  Rpc.make("Append", { payload: { n: Schema.Int } }),
  Rpc.make("Appended", { success: Schema.Array(Schema.Int) }),
  /** In the handler, and in the inbox's loop. */
  Rpc.make("Trace", { success: Traces }),
  /** Throws outside Effect: ends the thread. */
  Rpc.make("CrashThread", {}),
  /** Never lets the event loop go. */
  Rpc.make("BlockThread", {})
) {}
export const Echo = ActorAddress.make("echo", EchoRpcs)

export class MiddleRpcs extends RpcGroup.make(
  Rpc.make("Trace", { success: Traces }),
  Rpc.make("Bump", { success: Schema.Int }),
  /** Asks echo to hang; answers with the reason why the ask failed. */
  Rpc.make("AskHang", { payload: { deadlineMs: Schema.Int }, success: Schema.String }),
  Rpc.make("AskEcho", { payload: { n: Schema.Int }, success: Schema.Union(Schema.Int, Schema.String) }),
  /** Pings echo `n` times, so many at once; milliseconds taken. */
  Rpc.make("PingEcho", { payload: { n: Schema.Int, atOnce: Schema.Int }, success: Schema.Number }),
  Rpc.make("Ticks", { success: Tick, stream: true }),
  Rpc.make("Incarnations", { success: Schema.Int, stream: true })
) {}
export const Middle = ActorAddress.make("middle", MiddleRpcs)

export class FrontRpcs extends RpcGroup.make(Rpc.make("Trace", { success: Traces })) {}
export const Front = ActorAddress.make("front", FrontRpcs)

export class BrokenRpcs extends RpcGroup.make(Rpc.make("Nothing", {})) {}
export const Broken = ActorAddress.make("broken", BrokenRpcs)
export const BrokenImport = ActorAddress.make("broken-import", BrokenRpcs)
