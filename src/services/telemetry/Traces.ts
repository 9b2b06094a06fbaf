/** What the threads of a process have kept of each trace, put together. */
import { Schema } from "effect"
import { Kept, type Snapshot } from "./SpanRing.ts"

const { traceId: _, ...fields } = Kept.fields
export const Span = Schema.Struct({ ...fields, thread: Schema.String })
export type Span = typeof Span.Type

export const Trace = Schema.Struct({
  /** 32 hex digits, the same in every process that had a part in it. */
  traceId: Schema.String,
  /** Of what is kept of it. Epoch ms, with a fraction. */
  startMs: Schema.Number,
  durationMs: Schema.Number,
  /** By when they began. */
  spans: Schema.Array(Span)
})
export type Trace = typeof Trace.Type

/** `dropped`: spans that were overwritten by newer ones since the threads started. */
export const Traces = Schema.Struct({ traces: Schema.Array(Trace), dropped: Schema.Int })
export type Traces = typeof Traces.Type

export const MAX_LAST = 500
const LAST = 20
/** Which of them; the query of an URL. */
export const Wanted = Schema.Struct({
  last: Schema.optionalWith(Schema.NumberFromString.pipe(Schema.int(), Schema.between(1, MAX_LAST)), {
    default: () => LAST
  }),
  /** The beginning of a trace's id; empty: any. */
  id: Schema.optionalWith(Schema.String.pipe(Schema.pattern(/^([0-9a-f]{4,32})?$/)), { default: () => "" })
})

export const pick = ({ dropped, traces }: Traces, { id, last }: typeof Wanted.Type): Traces => ({
  traces: traces.filter(({ traceId }) => traceId.startsWith(id)).slice(0, last),
  dropped
})

/** Newest first. */
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
