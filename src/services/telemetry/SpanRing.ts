/**
 * The spans of this thread that are open, and the last ones that ended, whether they are exported or not: so that a running process
 * can show what it does, and did a moment ago. Bounded by number, and each span in size. It shows no address and no name of a host:
 * attributes that might bear one are left out.
 */
import { Clock, Context, Effect, Exit, Schema, type Tracer } from "effect"
import { randomBytes } from "node:crypto"
import * as Redact from "./Redact.ts"

const Ids = Schema.Struct({ traceId: Schema.String, spanId: Schema.String })

export const Kept = Schema.Struct({
  ...Ids.fields,
  /** Null: the trace begins with it. It may be another process's. */
  parentSpanId: Schema.NullOr(Schema.String),
  name: Schema.String,
  /** Epoch ms, with a fraction. */
  startMs: Schema.Number,
  /** So far, while it is open. */
  durationMs: Schema.Number,
  status: Schema.Literal("open", "ok", "error"),
  attributes: Schema.Record({ key: Schema.String, value: Schema.Union(Schema.String, Schema.Number, Schema.Boolean) }),
  links: Schema.Array(Ids)
})
export type Kept = typeof Kept.Type

/** `dropped`: so many have made room for newer ones. */
export const Snapshot = Schema.Struct({ spans: Schema.Array(Kept), dropped: Schema.Int })
export type Snapshot = typeof Snapshot.Type

/** Some fifty flows; half a MiB at most. So many again may be open: of more, those that have been open longest are not shown. */
export const CAPACITY = 512
const MAX_ATTRIBUTES = 16
const MAX_LINKS = 16
const MAX_CHARS = 120
/** What names hosts, what may (an error's text), and what is of use to nobody here. */
const WITHHELD: ReadonlySet<string> = new Set([
  ...Redact.HOSTS,
  "exception.message",
  "code.stacktrace",
  "requestId"
])

type SpanIds = { readonly spanId: string; readonly parentSpanId: string | null }

export class SpanRing {
  readonly #open = new Map<string, { readonly span: Tracer.Span; readonly ids: SpanIds }>()
  readonly #ring: Array<Kept> = []
  #at = 0
  #dropped = 0

  /** `ids`: they may be others than those that the span tells the world (`Tracing`). */
  onStart(span: Tracer.Span, ids: SpanIds): void {
    this.#open.set(ids.spanId, { span, ids })
    const [oldest] = this.#open.size > CAPACITY ? this.#open.keys() : []
    if (oldest === undefined) return
    this.#open.delete(oldest)
    this.#dropped++
  }

  onEnd(span: Tracer.Span, ids: SpanIds, endTime: bigint, exit: Exit.Exit<unknown, unknown>): void {
    this.#open.delete(ids.spanId)
    this.#push(keptOf(span, ids, endTime, Exit.isSuccess(exit) ? "ok" : "error"))
  }

  /** Something that takes no time: a span of its own within the one that it happens in, which may last for hours yet. */
  onEvent(
    span: Tracer.Span,
    parentSpanId: string,
    name: string,
    at: bigint,
    attributes: Record<string, unknown> = {}
  ): void {
    this.#push({
      traceId: span.traceId,
      spanId: randomBytes(8).toString("hex"),
      parentSpanId,
      name,
      startMs: Number(at) / 1e6,
      durationMs: 0,
      status: "ok",
      attributes: attributesOf(new Map(Object.entries(attributes))),
      links: []
    })
  }

  /** In the order in which they ended, then those that are open. `now`: epoch ns. */
  read(now: bigint): Snapshot {
    const open = Array.from(this.#open.values(), ({ ids, span }) => keptOf(span, ids, now, "open"))
    return { spans: [...this.#ring.slice(this.#at), ...this.#ring.slice(0, this.#at), ...open], dropped: this.#dropped }
  }

  #push(span: Kept): void {
    if (this.#ring.length < CAPACITY) return void this.#ring.push(span)
    this.#ring[this.#at] = span
    this.#at = (this.#at + 1) % CAPACITY
    this.#dropped++
  }
}

/** The thread's own. */
export class Spans extends Context.Reference<Spans>()("sallyport/telemetry/Spans", {
  defaultValue: () => new SpanRing()
}) {}

/** Of this thread. */
export const read: Effect.Effect<Snapshot> = Effect.zipWith(
  Spans,
  Clock.currentTimeNanos,
  (ring, now) => ring.read(now)
)

const keptOf = (span: Tracer.Span, ids: SpanIds, until: bigint, status: Kept["status"]): Kept => {
  const { startTime } = span.status
  return {
    traceId: span.traceId,
    ...ids,
    name: span.name,
    startMs: Number(startTime) / 1e6,
    durationMs: Math.max(0, Number(until - startTime)) / 1e6,
    status,
    attributes: attributesOf(span.attributes),
    links: span.links.slice(0, MAX_LINKS).map(({ span: { spanId, traceId } }) => ({ traceId, spanId }))
  }
}

const attributesOf = (all: ReadonlyMap<string, unknown>): Kept["attributes"] => {
  const kept: Record<string, string | number | boolean> = {}
  for (const [key, value] of all) {
    if (WITHHELD.has(key) || Object.keys(kept).length >= MAX_ATTRIBUTES) continue
    if (typeof value === "number" || typeof value === "boolean") kept[key] = value
    else if (typeof value === "string") kept[key] = value.slice(0, MAX_CHARS)
  }
  return kept
}
