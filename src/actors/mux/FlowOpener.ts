/**
 * Carries out one flow of an application, from its request at a listener to its end: obtains a
 * session, opens a stream, and starts to move bytes. Until the connector has answered, no byte of
 * the application leaves, so a flow without an answer may be asked for in another session.
 */
import { Deferred, Effect, Exit, FiberId, RateLimiter } from "effect"
import type { Target, Verdict } from "../../protocol/flow/FlowWire.ts"
import * as Limits from "../../services/telemetry/Limits.ts"
import { FLOW_RESET } from "../../session/FlowStream.ts"
import type { FlowSession } from "../../transport/plane/FlowSession.ts"
import type { SessionId } from "../signaling/RelaySignalingRpcs.ts"
import type { FlowTrace, FlowTraces, Route } from "./FlowTrace.ts"
import type { Request } from "./Listeners.ts"
import type { MuxMetrics } from "./MuxMetrics.ts"

/** Options of {@link make}. */
export interface Options {
  readonly obtain: (target: Target) => Effect.Effect<FlowSession, Verdict>
  /**
   * Waits until this session's peer has owed an answer for too long and another session can carry
   * the flow. Returns that session. Never ends if there is none.
   */
  readonly elsewhere: (session: FlowSession, target: Target) => Effect.Effect<FlowSession>
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

/**
 * Limits how fast streams are opened. Hundreds of flows may be requested at once, for example when
 * a session comes up, and the open flows must continue meanwhile.
 */
const OPENS = { limit: 4, interval: "1 millis" } as const

/** Most sessions in which one flow is asked for. Those before the last were lost, or silent. */
const MAX_SESSIONS = 4

/**
 * Makes the function that opens flows. Its effect ends once the flow has been answered. The bytes
 * then move in callbacks of the data plane.
 */
export const make = Effect.fnUntraced(function*(options: Options) {
  const spread = yield* RateLimiter.make({ ...OPENS, algorithm: "fixed-window" })
  return (request: Request): Effect.Effect<void> =>
    Effect.suspend(() => {
      const flow = begin(options, request)
      return Effect.zipLeft(obtain(options, flow), spread(Effect.void)).pipe(
        Effect.flatMap((session) => inSession(options, flow, session, MAX_SESSIONS)),
        Effect.catchAll((verdict) => Effect.sync(() => flow.refuse(verdict, null, null)))
      )
    })
})

/** One flow that is being opened. */
interface Flow {
  readonly request: Request
  readonly target: Target
  readonly trace: FlowTrace
  /** Counts the answer. `resource` is the grant's name for the target's resource, or `null`. */
  readonly told: (code: Verdict["code"], resource: string | null) => void
  /** Refuses the application's connection. */
  readonly refuse: (verdict: Verdict, session: FlowSession | null, resource: string | null) => void
}

const begin = ({ metrics, onRefused, traces }: Options, request: Request): Flow => {
  const { host, kind, port } = request
  const askedAt = performance.now()
  const trace = traces.begin("flow", "client", null, { "server.address": host, "server.port": port })
  const told: Flow["told"] = (code, resource) => {
    metrics.onFlow(code, (performance.now() - askedAt) / 1000)
    if (resource !== null) metrics.resources.onFlow(resource, code)
  }
  return {
    request,
    target: { kind, host, port },
    trace,
    told,
    refuse: (verdict, session, resource) => {
      told(verdict.code, resource)
      if (session !== null && verdict.code === "too_many_flows") Limits.met("flows_at_connector")
      onRefused(request, session?.peer.peerName ?? null, verdict)
      trace.refused(verdict.code, verdict.reason)
      request.refuse(verdict)
    }
  }
}

const obtain = ({ obtain }: Options, { target, trace }: Flow): Effect.Effect<FlowSession, Verdict> =>
  Effect.suspend(() => Effect.withParentSpan(obtain(target), trace.phase("flow.session")))

/** Asks for the flow in this session, and afterwards in up to `left - 1` others. */
const inSession = (
  options: Options,
  flow: Flow,
  session: FlowSession,
  left: number
): Effect.Effect<void, Verdict> =>
  Effect.suspend(() => {
    if (flow.request.gone.aborted) return Effect.sync(() => flow.trace.refused(GONE, ""))
    flow.trace.joins(session.id, options.routeOf(session.id))
    const asked = ask(options, flow, session, left > 1)
    const answer = Effect.flatMap(Deferred.await(asked.outcome), (outcome) =>
      outcome === "over"
        ? Effect.void
        : Effect.flatMap(obtain(options, flow), (other) => inSession(options, flow, other, left - 1)))
    if (left === 1) return answer
    return Effect.raceFirst(Deferred.await(asked.outcome), options.elsewhere(session, flow.target)).pipe(
      Effect.flatMap((other) =>
        typeof other === "string" || !asked.giveUp() ? answer : inSession(options, flow, other, left - 1)
      )
    )
  })

/** A flow that was asked for in one session. */
interface Asked {
  /** `over`: the flow was accepted or refused, or the application left. */
  readonly outcome: Deferred.Deferred<"over" | "lost">
  /** Takes the question back. Returns `false` if it has an outcome already. */
  readonly giveUp: () => boolean
}

/** Asks for the flow. `again`: a flow whose session is lost is not refused, but `lost`. */
const ask = ({ metrics }: Options, flow: Flow, session: FlowSession, again: boolean): Asked => {
  const { request, target, told, trace } = flow
  const { gone } = request
  const resource = session.resourceOf(target)
  const outcome = Deferred.unsafeMake<"over" | "lost">(FiberId.none)
  let done = false
  /** Returns whether this is the first outcome. */
  const end = (how: "over" | "lost"): boolean => {
    if (done) return false
    done = true
    gone.removeEventListener("abort", onAbort)
    Deferred.unsafeDone(outcome, Exit.succeed(how))
    return true
  }
  const onAbort = () => {
    cancel()
    if (end("over")) trace.refused(GONE, "")
  }
  trace.phase("flow.open")
  const cancel = session.openFlow({ ...target, traceparent: trace.traceparent }, (answer) => {
    if (answer._tag === "Rejected") {
      if (answer.lost && again) return void end("lost")
      end("over")
      return flow.refuse(answer.verdict, session, resource)
    }
    end("over")
    told("accepted", resource)
    trace.phase("flow.first_byte")
    const begun = request.begin(answer.stream, answer.rest, {
      onFirst: (way) => {
        if (way === "received") trace.phase("flow.transfer")
      },
      onDone: (outcome) => {
        trace.done(outcome)
        session.flowEnded()
      },
      ...(resource !== null && { meter: metrics.resources.meterOf(resource) })
    })
    if (begun) return
    answer.stream.abort(FLOW_RESET)
    session.flowEnded()
    trace.refused(GONE, "")
  })
  if (!done) gone.addEventListener("abort", onAbort, { once: true })
  return {
    outcome,
    giveUp: () => {
      if (!end("over")) return false
      cancel()
      return true
    }
  }
}
