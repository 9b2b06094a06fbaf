/** The kept traces, which are the flows of this process, and one of them span by span. */
import { useState } from "preact/hooks"
import type { Span, Trace } from "./Api.ts"
import { clock, ms, words } from "./Text.ts"

export const Traces = ({ traces }: { readonly traces: ReadonlyArray<Trace> }) => {
  const [chosen, choose] = useState<string | null>(null)
  const shown = traces.find(({ traceId }) => traceId === chosen) ?? traces[0]
  if (shown === undefined) return <p class="none">No flow has been traced yet.</p>
  return (
    <div class="flows">
      <ul class="choices">
        {traces.map((trace) => (
          <li key={trace.traceId}>
            <button type="button" aria-pressed={trace === shown} onClick={() => choose(trace.traceId)}>
              <span class="mono">{trace.traceId.slice(0, 8)}</span>
              <span>{targetOf(trace)}</span>
              <span class="soft">{clock(trace.startMs)}</span>
              <span class="num">{ms(trace.durationMs)}</span>
            </button>
          </li>
        ))}
      </ul>
      <div>
        <p class="why">{routeOf(shown)}</p>
        <Waterfall trace={shown} />
      </div>
    </div>
  )
}

/** Returns the root span's name, port and error. Traces contain no host names. */
const targetOf = ({ spans }: Trace): string => {
  const root = spans[0]
  if (root === undefined) return ""
  const { "error.type": error, "server.port": port } = root.attributes
  return [
    root.name,
    ...(port === undefined ? [] : [`:${String(port)}`]),
    ...(error === undefined ? [] : [words(String(error))])
  ]
    .join(" ")
}

/** Returns the path that the trace's flow took in the end, and why. */
const routeOf = ({ spans }: Trace): string => {
  const { "sallyport.path": path, "sallyport.path.reason": reason } = spans[0]?.attributes ?? {}
  return path === undefined ? "" : `by ${path}: ${words(String(reason))}`
}

const Waterfall = ({ trace }: { readonly trace: Trace }) => {
  const whole = Math.max(trace.durationMs, 0.001)
  return (
    <ol class="waterfall" aria-label={`Spans of trace ${trace.traceId}`}>
      {inOrder(trace.spans).map(({ depth, span }) => (
        <li key={span.spanId} class={span.status}>
          <span class="what" style={{ paddingInlineStart: `${Math.min(depth, 6) * 12}px` }}>
            {span.name} <span class="soft">{span.thread}</span>
          </span>
          <span class="track" aria-hidden="true">
            <span
              class="bar"
              style={{
                insetInlineStart: `${(100 * (span.startMs - trace.startMs)) / whole}%`,
                width: `${(100 * span.durationMs) / whole}%`
              }}
            />
          </span>
          <span class="num">
            {ms(span.durationMs)} {span.status === "error" ? <b>failed</b> : null}
            {span.status === "open" ? <span class="soft">and goes on</span> : null}
          </span>
        </li>
      ))}
    </ol>
  )
}

interface Placed {
  readonly span: Span
  readonly depth: number
}

/**
 * Orders spans: children follow their parents, by start time. A span whose parent is elsewhere
 * counts as a root.
 */
const inOrder = (spans: ReadonlyArray<Span>): ReadonlyArray<Placed> => {
  const ids = new Set(spans.map(({ spanId }) => spanId))
  const beneath = (parent: string | null, depth: number): Array<Placed> =>
    spans
      .filter(({ parentSpanId }) => (parentSpanId !== null && ids.has(parentSpanId) ? parentSpanId : null) === parent)
      .toSorted((a, b) => a.startMs - b.startMs)
      .flatMap((span) => [{ span, depth }].concat(beneath(span.spanId, depth + 1)))
  return beneath(null, 0)
}
