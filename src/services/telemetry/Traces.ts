/** Joins the spans that a process's threads have kept into traces. */
import { Schema } from "effect"
import { Kept, type Snapshot } from "./SpanRing.ts"

const { traceId: _, ...fields } = Kept.fields
export const Span = Schema.Struct({ ...fields, thread: Schema.String })
export type Span = typeof Span.Type

/** One trace, with those of its spans that are still stored. */
export const Trace = Schema.Struct({
  /** 32 hex digits, the same in every process that took part in the trace. */
  traceId: Schema.String,
  /** Start of the earliest span that is kept, in epoch milliseconds with a fraction. */
  startMs: Schema.Number,
  durationMs: Schema.Number,
  /** Sorted by their start. */
  spans: Schema.Array(Span)
})
export type Trace = typeof Trace.Type

/**
 * Traces of a process. `dropped` counts the spans that newer ones have replaced since the threads
 * started.
 */
export const Traces = Schema.Struct({ traces: Schema.Array(Trace), dropped: Schema.Int })
export type Traces = typeof Traces.Type

/** Most traces in one answer. */
export const MAX_LAST = 500
/** Number of traces in an answer if the query names none. */
const LAST = 20
/** Selection of traces, as a URL's query. */
export const Wanted = Schema.Struct({
  last: Schema.optionalWith(Schema.NumberFromString.pipe(Schema.int(), Schema.between(1, MAX_LAST)), {
    default: () => LAST
  }),
  /** Beginning of the trace id. Empty for any. */
  id: Schema.optionalWith(Schema.String.pipe(Schema.pattern(/^([0-9a-f]{4,32})?$/)), { default: () => "" })
})

/** Selects the traces that `id` matches, at most `last` of them. */
export const pick = ({ dropped, traces }: Traces, { id, last }: typeof Wanted.Type): Traces => ({
  traces: traces.filter(({ traceId }) => traceId.startsWith(id)).slice(0, last),
  dropped
})

/** Joins the threads' spans into traces, newest trace first. */
export const group = (byThread: Readonly<Record<string, Snapshot>>): Traces => {
  const found = new Map<string, Map<string, Span>>()
  let dropped = 0
  for (const [thread, snapshot] of Object.entries(byThread)) {
    dropped += snapshot.dropped
    for (const { traceId, ...span } of snapshot.spans) {
      const spans = found.get(traceId) ?? new Map<string, Span>()
      found.set(traceId, spans.set(span.spanId, { ...span, thread }))
    }
  }
  const traces = Array.from(found, ([traceId, spans]) => traceOf(traceId, [...spans.values()]))
  return { traces: traces.toSorted((a, b) => b.startMs - a.startMs), dropped }
}

const traceOf = (traceId: string, spans: ReadonlyArray<Span>): Trace => {
  const sorted = spans.toSorted((a, b) => a.startMs - b.startMs)
  const startMs = sorted[0]?.startMs ?? 0
  const endMs = Math.max(startMs, ...sorted.map((span) => span.startMs + span.durationMs))
  return { traceId, startMs, durationMs: endMs - startMs, spans: sorted }
}
