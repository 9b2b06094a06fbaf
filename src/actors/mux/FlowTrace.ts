/**
 * Spans of flows. Callbacks outside Effect move a flow, so its span is begun and ended by hand. Its
 * time is divided into phases, each of which begins where the one before it ends.
 */
import { Effect, Exit, Option, type Tracer } from "effect"
import type { Verdict } from "../../protocol/flow/FlowWire.ts"
import type { PathKind } from "../../protocol/path/PathKind.ts"
import * as Tracing from "../../services/telemetry/Tracing.ts"
import type { FlowOutcome } from "../../transport/flow/FlowPump.ts"
import type { Asked, FlowWatch } from "../../transport/plane/ConnectorFlows.ts"
import type { SessionId } from "../signaling/RelaySignalingRpcs.ts"
import type { ResourceMetrics } from "./ResourceMetrics.ts"

/** Path of a flow's session, and why it is used. */
export interface Route {
  /** Kind of the path. */
  readonly kind: PathKind
  /** Reason why the session uses this path. */
  readonly why: string
}

/** Trace of one flow. */
export interface FlowTrace {
  /** W3C Trace Context for the other end. `null` if the flow has none. */
  readonly traceparent: string | null
  /** Ends the phase before and begins a new one. Returns the span of the new phase. */
  readonly phase: (name: string) => Tracer.Span
  /**
   * Assigns the flow to a session, which may replace another one. From now on the session's moves
   * become events of the flow, and its path is an attribute.
   */
  readonly joins: (session: SessionId, route: Route | null) => void
  /**
   * Ends the trace of a flow that was not opened. `code` is the reason for programs. `why` is the
   * reason in words and may be empty.
   */
  readonly refused: (code: string, why: string) => void
  /** Ends the trace of a flow that has ended. */
  readonly done: (outcome: FlowOutcome) => void
}

/** Traces of all flows of this node. */
export interface FlowTraces {
  /** Begins the trace of one flow. `parent` is a traceparent, or `null`. */
  readonly begin: (
    name: string,
    kind: Tracer.SpanKind,
    parent: string | null,
    attributes: Readonly<Record<string, string | number>>
  ) => FlowTrace
  /**
   * Records that a session moved to another path: by a span with links to the flows concerned, and
   * an event in each flow.
   */
  readonly onSwitch: (session: SessionId, to: Route) => void
  /** Records why a session's path is kept. */
  readonly onKept: (session: SessionId, route: Route) => void
}

/** Traces and counts one flow of a session, from its Open to its end. Connector only. */
export const serve = (
  traces: FlowTraces,
  session: SessionId,
  route: Route | null,
  { host, port, resource, traceparent }: Asked,
  resources: ResourceMetrics,
  onVerdict: (verdict: Verdict) => void
): FlowWatch => {
  const about = { "server.address": host, "server.port": port }
  const trace = traces.begin("flow.serve", "server", traceparent, about)
  trace.joins(session, route)
  trace.phase("flow.dial")
  return {
    onVerdict: (verdict) => {
      const { code, reason } = verdict
      onVerdict(verdict)
      if (resource !== null) resources.onFlow(resource, code)
      if (code === "accepted") trace.phase("flow.first_byte")
      else trace.refused(code, reason)
    },
    onFirst: () => void trace.phase("flow.transfer"),
    onDone: trace.done,
    ...(resource !== null && { meter: resources.meterOf(resource) })
  }
}

/** Makes the traces with the current tracer and clock. */
export const make: Effect.Effect<FlowTraces> = Effect.gen(function*() {
  const tracer = yield* Effect.tracer
  const clock = yield* Effect.clock
  const open = new Map<SessionId, Set<Tracer.Span>>()
  const now = () => clock.unsafeCurrentTimeNanos()
  const child = (name: string, parent: Tracer.Span) =>
    tracer.span(name, Option.some(parent), Tracing.BY_CHANCE, [], now(), "internal")

  const begin: FlowTraces["begin"] = (name, kind, parent, attributes) => {
    const span = tracer.span(name, Tracing.parse(parent), Tracing.BY_CHANCE, [], now(), kind)
    let phase: Tracer.Span | null = null
    let session: SessionId | null = null
    for (const [key, value] of Object.entries(attributes)) span.attribute(key, value)
    const endPhase = () => {
      phase?.end(now(), Exit.void)
      phase = null
    }
    const end = (exit: Exit.Exit<void, string>) => {
      if (span.status._tag === "Ended") return
      endPhase()
      span.end(now(), exit)
      leave()
    }
    const leave = () => {
      const flows = session === null ? undefined : open.get(session)
      flows?.delete(span)
      if (session !== null && flows?.size === 0) open.delete(session)
    }
    return {
      traceparent: Tracing.traceparent(span),
      phase: (name) => {
        endPhase()
        phase = child(name, span)
        return phase
      },
      joins: (id, route) => {
        leave()
        session = id
        if (route !== null) mark(span, route)
        span.attribute("sallyport.session", id)
        const flows = open.get(id) ?? new Set()
        open.set(id, flows.add(span))
      },
      refused: (code, why) => {
        span.attribute("error.type", code)
        if (why !== "") span.attribute("error.message", why)
        end(Exit.fail(why === "" ? code : `${code}: ${why}`))
      },
      done: ({ how, received, sent }) => {
        span.attribute("sallyport.flow.end", how)
        span.attribute("sallyport.flow.bytes_sent", sent)
        span.attribute("sallyport.flow.bytes_received", received)
        end(Exit.void)
      }
    }
  }

  const onKept: FlowTraces["onKept"] = (session, route) => {
    for (const span of open.get(session) ?? []) mark(span, route)
  }
  const onSwitch: FlowTraces["onSwitch"] = (session, to) => {
    const flows = open.get(session)
    if (flows === undefined) return
    const at = now()
    const about = aboutOf(to)
    for (const span of flows) {
      mark(span, to)
      span.event("path.switch", at, about)
    }
    const links = Array.from(flows, (span): Tracer.SpanLink => ({ _tag: "SpanLink", span, attributes: {} }))
      .filter(({ span }) => span.sampled)
    if (links.length === 0) return
    const moved = tracer.span("path.switch", Option.none(), Tracing.ALWAYS, links, at, "internal")
    for (const [key, value] of Object.entries({ ...about, "sallyport.session": session })) moved.attribute(key, value)
    moved.end(at, Exit.void)
  }
  return { begin, onKept, onSwitch }
})

const aboutOf = ({ kind, why }: Route) => ({ "sallyport.path": kind, "sallyport.path.reason": why })

/** Sets the path attributes. A later call replaces them, so they show the last path of the flow. */
const mark = (span: Tracer.Span, route: Route): void => {
  for (const [key, value] of Object.entries(aboutOf(route))) span.attribute(key, value)
}
