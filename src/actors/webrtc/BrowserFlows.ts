/** Watches the flows of browsers: limits, traces, metrics and refusals. */
import { Clock, Effect } from "effect"
import * as Metrics from "../../services/telemetry/Metrics.ts"
import { Places } from "../../transport/flow/Places.ts"
import { type Asked, DEFAULT_FLOWS_PER_CLIENT, type FlowWatch } from "../../transport/plane/ConnectorFlows.ts"
import * as FlowTrace from "../mux/FlowTrace.ts"
import { Refusals } from "../mux/Refusals.ts"
import { ResourceMetrics } from "../mux/ResourceMetrics.ts"
import type { SessionId } from "../signaling/RelaySignalingRpcs.ts"

const BROWSER: FlowTrace.Route = { kind: "webrtc", why: "browser" }

/** Options of {@link make}. */
export interface Options {
  readonly traces: FlowTrace.FlowTraces
  readonly fork: (effect: Effect.Effect<void>) => void
}

/** Makes the watch over all flows of browsers. */
export const make = ({ fork, traces }: Options) => {
  const verdicts = new Metrics.Counts()
  const resources = new ResourceMetrics()
  const refusals = new Refusals()
  return {
    limits: { places: new Places(), flowsPerClient: DEFAULT_FLOWS_PER_CLIENT },
    /** Watches a flow that the browser `peer` asks for. */
    onFlow: (session: SessionId, peer: string, asked: Asked): FlowWatch =>
      FlowTrace.serve(traces, session, BROWSER, asked, resources, (verdict) => {
        verdicts.add(verdict.code)
        if (verdict.code === "accepted") return
        const { host, port } = asked
        const refused = { host, port, peer, verdict }
        fork(Effect.flatMap(Clock.currentTimeMillis, (now) => refusals.onRefused(refused, now)))
      }),
    /** Metrics of the flows, and the number of sessions. */
    metrics: (sessions: number): ReadonlyArray<Metrics.Family> => [
      Metrics.counter(
        { name: "sallyport_browser_flow_opens", help: "Flows that browsers asked for, by the answer." },
        verdicts.points("code")
      ),
      Metrics.gauge(
        { name: "sallyport_browser_sessions", help: "Sessions with browsers." },
        [{ labels: {}, value: sessions }]
      ),
      ...resources.read()
    ]
  } as const
}
