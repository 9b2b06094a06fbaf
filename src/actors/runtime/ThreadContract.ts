/** What the supervisor asks of a thread, over the thread's control port. No behaviour here. */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import * as Telemetry from "../../services/Telemetry.ts"
import * as Limits from "../../services/telemetry/Limits.ts"
import * as Metrics from "../../services/telemetry/Metrics.ts"
import * as SpanRing from "../../services/telemetry/SpanRing.ts"
import { NotStarted } from "./Actor.ts"
import { PortSchema } from "./Port.ts"

/** One incarnation of one actor. Calls about an incarnation that is gone do nothing (and close their port). */
const Which = { name: Schema.String, incarnation: Schema.Int }

export const Death = Schema.Struct({ ...Which, message: Schema.String })
export type Death = typeof Death.Type

export const QueueDepth = Schema.Struct({ name: Schema.String, capacity: Schema.Int, depth: Schema.Int })

export const Health = Schema.Struct({
  /** How much later than due the event loop ran a timer, ms: 99th percentile of the last 10 to 20 reports, largest since the last one. */
  loopDelayP99Ms: Schema.Number,
  loopDelayMaxMs: Schema.Number,
  /** Share of the time since the last call that the event loop was busy, 0 to 1. */
  loopUtilization: Schema.Number,
  heapUsedBytes: Schema.Int,
  /** Limits that the thread has met since it started. */
  limits: Schema.Array(Limits.Met),
  actors: Schema.Array(Schema.Struct({ ...Which, queues: Schema.Array(QueueDepth) }))
})
export type Health = typeof Health.Type

export class ThreadRpcs extends RpcGroup.make(
  /** Imports the actor and makes room for this incarnation, so that it can be connected. `uses`: names, to be checked. */
  Rpc.make("Load", { payload: { ...Which, uses: Schema.Array(Schema.String) }, error: NotStarted }),
  /** Answers when the actor is up. */
  Rpc.make("Start", { payload: { ...Which, config: Schema.Unknown }, error: NotStarted }),
  /** Answers when everything of the actor is released. */
  Rpc.make("Stop", { payload: Which }),
  /** Gives the actor a new port to a peer that came up. */
  Rpc.make("Connect", {
    payload: { ...Which, peer: Schema.String, peerIncarnation: Schema.Int, port: PortSchema }
  }),
  /** Gives the actor a port on which a caller will call it. */
  Rpc.make("Serve", { payload: { ...Which, port: PortSchema } }),
  /** This peer is not restarted any more: asks of it fail at once. */
  Rpc.make("GiveUp", { payload: { peer: Schema.String } }),
  Rpc.make("Health", { success: Health }),
  /** Of the actors on this thread, those that have ended among them as far as they counted. */
  Rpc.make("Metrics", { success: Schema.Array(Metrics.Family) }),
  /** The last spans that ended on this thread. */
  Rpc.make("Spans", { success: SpanRing.Snapshot }),
  /** Actors that died by themselves once they were up, after everything of theirs was released. */
  Rpc.make("Deaths", { success: Death, stream: true }),
  /** Changes what a thread logs and how many flows it traces. */
  Rpc.make("Tune", { payload: Telemetry.Tunable }),
  /** Flushes telemetry and ends the thread. May not be answered. */
  Rpc.make("Shutdown", {})
) {}
