/** Renders a trace as a waterfall: one line for each span. */
import type { Span, Trace } from "../services/telemetry/Traces.ts"
import * as Asker from "./Asker.ts"
import { colour, table } from "./show/Table.ts"

/** Width of a trace's bar, in characters. */
const WIDTH = 32
const RED = 31
const BOLD = 1

/** Renders one trace. Spans that failed are red. */
export const render = (trace: Trace, colours: boolean): string => {
  const failed = trace.spans.some(({ status }) => status === "error")
  const isOpen = trace.spans.some(({ status }) => status === "open")
  const state = `${failed ? "  failed" : ""}${isOpen ? "  goes on" : ""}`
  const head = `${trace.traceId}  ${Asker.timeOf(trace.startMs)} UTC  ${ms(trace.durationMs)}${state}`
  const rows = nested(trace.spans).map(({ depth, span }) => [
    `+${ms(span.startMs - trace.startMs)}`,
    `${ms(span.durationMs)}${span.status === "open" ? " .." : ""}`,
    bar(span, trace),
    `${"  ".repeat(depth)}${span.name}`,
    span.thread,
    Object.entries(span.attributes).map(([key, value]) => `${key}=${value}`).join(" ")
  ])
  const lines = table([["BEGAN", "TOOK", "", "SPAN", "THREAD", ""], ...rows]).split("\n").slice(1)
  const errors = new Set(nested(trace.spans).flatMap(({ span }, index) => (span.status === "error" ? [index] : [])))
  const painted = lines.map((line, index) => (errors.has(index) ? colour(colours, RED, line) : line))
  return [colour(colours, failed ? RED : BOLD, head), ...painted].join("\n")
}

type Nested = { readonly span: Span; readonly depth: number }

/**
 * Orders spans so that each follows its parent, one level deeper. A span whose parent is not in the
 * trace is shown at the top level.
 */
const nested = (spans: ReadonlyArray<Span>): ReadonlyArray<Nested> => {
  const known = new Set(spans.map(({ spanId }) => spanId))
  const children = new Map<string, Array<Span>>()
  for (const span of spans) {
    const { parentSpanId, spanId } = span
    const above = parentSpanId !== null && parentSpanId !== spanId && known.has(parentSpanId) ? parentSpanId : ""
    children.set(above, [...children.get(above) ?? [], span])
  }
  const rows: Array<Nested> = []
  const add = (id: string, depth: number): void => {
    for (const span of children.get(id) ?? []) {
      rows.push({ span, depth })
      add(span.spanId, depth + 1)
    }
  }
  add("", 0)
  return rows
}

const bar = (span: Span, trace: Trace): string => {
  if (trace.durationMs <= 0) return "|".padEnd(WIDTH)
  const at = (value: number) => Math.min(WIDTH - 1, Math.floor((value - trace.startMs) / trace.durationMs * WIDTH))
  const from = at(span.startMs)
  const length = Math.max(1, at(span.startMs + span.durationMs) - from + 1)
  return `${" ".repeat(from)}${span.durationMs === 0 ? "|" : "=".repeat(length)}`.padEnd(WIDTH).slice(0, WIDTH)
}

const ms = (value: number): string => `${value.toFixed(1)} ms`
