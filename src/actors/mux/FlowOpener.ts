/**
 * Carries out one flow of an application, from its request at a listener to its end: obtains a
 * session, opens a stream, and starts to move bytes.
 */
import { Effect, RateLimiter } from "effect"
import type { Target, Verdict } from "../../protocol/flow/FlowWire.ts"
import * as Limits from "../../services/telemetry/Limits.ts"
import { FLOW_RESET } from "../../session/FlowStream.ts"
import type { FlowSession } from "../../transport/plane/FlowSession.ts"
import type { SessionId } from "../signaling/RelaySignalingRpcs.ts"
import type { FlowTrace, FlowTraces, Route } from "./FlowTrace.ts"
import type { Request } from "./Listeners.ts"
import type { MuxMetrics } from "./MuxMetrics.ts"
import type { ResourceMetrics } from "./ResourceMetrics.ts"

/** Options of {@link make}. */
export interface Options {
  readonly obtain: (target: Target) => Effect.Effect<FlowSession, Verdict>
  readonly metrics: MuxMetrics
  readonly traces: FlowTraces
  readonly routeOf: (session: SessionId) => Route | null
  /**
   * Called with each flow that was not opened. `peer` is the connector, or `null` if the flow never
   * had a session.
   */
  readonly onRefused: (request: Request, peer: string | null, verdict: Verdict) => void
}

/** Code in a trace for an application that left before the answer. */
const GONE = "gone"
const ACCEPTED: Verdict = { code: "accepted", reason: "" }

/**
 * Limits how fast streams are opened. Hundreds of flows may be requested at once, for example when
 * a session comes up, and the open flows must continue meanwhile.
 */
const OPENS = { limit: 4, interval: "1 millis" } as const

/**
 * Makes the function that opens flows. Its effect ends once the flow is requested. The rest happens
 * in callbacks of the data plane.
 */
export const make = Effect.fnUntraced(function*({ metrics, obtain, onRefused, routeOf, traces }: Options) {
  const spread = yield* RateLimiter.make({ ...OPENS, algorithm: "fixed-window" })
  return (request: Request): Effect.Effect<void> =>
    Effect.suspend(() => {
      const { host, kind, port } = request
      const askedAt = performance.now()
      const trace = traces.begin("flow", "client", null, { "server.address": host, "server.port": port })
      const told = (code: Verdict["code"], resource: string | null) => {
        metrics.onFlow(code, (performance.now() - askedAt) / 1000)
        if (resource !== null) metrics.resources.onFlow(resource, code)
      }
      return Effect.zipLeft(obtain({ kind, host, port }), spread(Effect.void)).pipe(
        Effect.withParentSpan(trace.phase("flow.session")),
        Effect.matchEffect({
          onSuccess: (session) =>
            Effect.sync(() => {
              if (request.gone.aborted) return trace.refused(GONE, "")
              trace.joins(session.id, routeOf(session.id))
              open(session, request, trace, metrics.resources, (verdict, resource) => {
                told(verdict.code, resource)
                if (verdict.code === "too_many_flows") Limits.met("flows_at_connector")
                if (verdict.code !== "accepted") onRefused(request, session.peer.peerName, verdict)
              })
            }),
          onFailure: (verdict) =>
            Effect.sync(() => {
              told(verdict.code, null)
              onRefused(request, null, verdict)
              trace.refused(verdict.code, verdict.reason)
              request.refuse(verdict)
            })
        })
      )
    })
})

const open = (
  session: FlowSession,
  request: Request,
  trace: FlowTrace,
  resources: ResourceMetrics,
  told: (verdict: Verdict, resource: string | null) => void
): void => {
  const { gone, host, kind, port } = request
  const target: Target = { kind, host, port }
  const resource = session.resourceOf(target)
  trace.phase("flow.open")
  const onAbort = () => {
    giveUp()
    trace.refused(GONE, "")
  }
  const giveUp = session.openFlow({ ...target, traceparent: trace.traceparent }, (answer) => {
    gone.removeEventListener("abort", onAbort)
    told(answer._tag === "Rejected" ? answer.verdict : ACCEPTED, resource)
    if (answer._tag === "Rejected") {
      trace.refused(answer.verdict.code, answer.verdict.reason)
      return request.refuse(answer.verdict)
    }
    trace.phase("flow.first_byte")
    const begun = request.begin(answer.stream, answer.rest, {
      onFirst: (way) => {
        if (way === "received") trace.phase("flow.transfer")
      },
      onDone: (outcome) => {
        trace.done(outcome)
        session.flowEnded()
      },
      ...(resource !== null && { meter: resources.meterOf(resource) })
    })
    if (begun) return
    answer.stream.abort(FLOW_RESET)
    session.flowEnded()
    trace.refused(GONE, "")
  })
  gone.addEventListener("abort", onAbort, { once: true })
}
