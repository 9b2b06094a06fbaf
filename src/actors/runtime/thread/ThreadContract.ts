/**
 * Calls by which the supervisor controls a thread, over the thread's control port. This file has no
 * behaviour.
 */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import * as Limits from "../../../services/telemetry/Limits.ts"
import * as Metrics from "../../../services/telemetry/Metrics.ts"
import * as SpanRing from "../../../services/telemetry/SpanRing.ts"
import * as Telemetry from "../../../services/telemetry/Telemetry.ts"
import { NotStarted } from "../actor/Actor.ts"
import { PortSchema } from "../port/Port.ts"

/**
 * Names one incarnation of one actor. A call about an incarnation that is gone does nothing, except
 * that it closes the port it brings.
 */
const Which = { name: Schema.String, incarnation: Schema.Int }

/** Death of one incarnation, with its cause as text. */
export const Death = Schema.Struct({ ...Which, message: Schema.String })
export type Death = typeof Death.Type

/** Depth of one queue. */
export const QueueDepth = Schema.Struct({ name: Schema.String, capacity: Schema.Int, depth: Schema.Int })

/** Health of a thread and the queue depths of its actors. */
export const Health = Schema.Struct({
  /**
   * How much later than due the event loop ran a timer, in ms: the 99th percentile of the last 10
   * to 20 reports.
   */
  loopDelayP99Ms: Schema.Number,
  /**
   * How much later than due the event loop ran a timer, in ms: the largest delay since the last
   * report.
   */
  loopDelayMaxMs: Schema.Number,
  /** Share of the time since the last report in which the event loop was busy, from 0 to 1. */
  loopUtilization: Schema.Number,
  heapUsedBytes: Schema.Int,
  /** Limits that the thread has met since it started. */
  limits: Schema.Array(Limits.Met),
  actors: Schema.Array(Schema.Struct({ ...Which, queues: Schema.Array(QueueDepth) }))
})
export type Health = typeof Health.Type

/** Calls of the supervisor to a thread. */
export class ThreadRpcs extends RpcGroup.make(
  /**
   * Imports the actor and prepares this incarnation, so that ports to peers can be connected.
   * `uses` are the names that the supervisor expects the actor to declare.
   */
  Rpc.make("Load", { payload: { ...Which, uses: Schema.Array(Schema.String) }, error: NotStarted }),
  /** Starts the actor with the encoded `config`. Answers when the actor is up. */
  Rpc.make("Start", { payload: { ...Which, config: Schema.Unknown }, error: NotStarted }),
  /** Stops the actor. Answers when everything of the actor is released. */
  Rpc.make("Stop", { payload: Which }),
  /** Gives the actor a new port to a peer that came up. */
  Rpc.make("Connect", {
    payload: { ...Which, peer: Schema.String, peerIncarnation: Schema.Int, port: PortSchema }
  }),
  /** Gives the actor a port on which a caller will call it. */
  Rpc.make("Serve", { payload: { ...Which, port: PortSchema } }),
  /** Reports that this peer is not restarted any more, so that asks of it fail at once. */
  Rpc.make("GiveUp", { payload: { peer: Schema.String } }),
  Rpc.make("Health", { success: Health }),
  /**
   * Metrics of the actors on this thread. Those that have ended are included with what they
   * counted.
   */
  Rpc.make("Metrics", { success: Schema.Array(Metrics.Family) }),
  /** Last spans that ended on this thread. */
  Rpc.make("Spans", { success: SpanRing.Snapshot }),
  /**
   * Actors that died by themselves after they were up. Each is reported after everything it held is
   * released, or its release has timed out.
   */
  Rpc.make("Deaths", { success: Death, stream: true }),
  /** Changes what the thread logs and how many flows it traces. */
  Rpc.make("Tune", { payload: Telemetry.Tunable }),
  /** Flushes telemetry and ends the thread. The call may not be answered. */
  Rpc.make("Shutdown", {})
) {}
