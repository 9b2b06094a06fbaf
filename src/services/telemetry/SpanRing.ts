/**
 * The open spans of this thread and the last ones that ended, whether they are exported or not.
 * They show what a running process is doing and what it did a moment ago.
 *
 * The number of spans is bounded, and so is the size of each. They contain no address and no host
 * name, because attributes that may hold one are left out.
 */
import { Clock, Context, Effect, Exit, Schema, type Tracer } from "effect"
import { randomBytes } from "node:crypto"
import * as Redact from "./Redact.ts"

const Ids = Schema.Struct({ traceId: Schema.String, spanId: Schema.String })

/** A span as the ring stores and shows it. */
export const Kept = Schema.Struct({
  ...Ids.fields,
  /**
   * Id of the parent, which may be in another process. `null` if the trace begins with this span.
   */
  parentSpanId: Schema.NullOr(Schema.String),
  name: Schema.String,
  /** Epoch milliseconds with a fraction. */
  startMs: Schema.Number,
  /** Milliseconds. For an open span, the time until it was read. */
  durationMs: Schema.Number,
  status: Schema.Literal("open", "ok", "error"),
  attributes: Schema.Record({ key: Schema.String, value: Schema.Union(Schema.String, Schema.Number, Schema.Boolean) }),
  links: Schema.Array(Ids)
})
export type Kept = typeof Kept.Type

/** The spans of a thread. `dropped` counts the spans that newer ones replaced. */
export const Snapshot = Schema.Struct({ spans: Schema.Array(Kept), dropped: Schema.Int })
export type Snapshot = typeof Snapshot.Type

/**
 * Most ended spans that are kept: about fifty flows, in at most half a MiB. As many may be open.
 * Beyond that, the span that has been open longest is dropped.
 */
export const CAPACITY = 512
/** Most attributes of a span. Others are left out. */
const MAX_ATTRIBUTES = 16
/** Most links of a span. Others are left out. */
const MAX_LINKS = 16
/** Longest text of an attribute, in characters. The rest is cut. */
const MAX_CHARS = 120
/**
 * Attributes that are left out: those that name hosts, those that may (the text of an error), and
 * those that are of no use here.
 */
const WITHHELD: ReadonlySet<string> = new Set([
  ...Redact.HOSTS,
  "exception.message",
  "code.stacktrace",
  "requestId"
])

type SpanIds = { readonly spanId: string; readonly parentSpanId: string | null }

/** Stores the spans of one thread. When it is full, each new span replaces the oldest one. */
export class SpanRing {
  readonly #open = new Map<string, { readonly span: Tracer.Span; readonly ids: SpanIds }>()
  readonly #ring: Array<Kept> = []
  #at = 0
  #dropped = 0

  /**
   * Adds an open span. `ids` may differ from the ids that the span presents to others (see
   * `Tracing`).
   */
  onStart(span: Tracer.Span, ids: SpanIds): void {
    this.#open.set(ids.spanId, { span, ids })
    const [oldest] = this.#open.size > CAPACITY ? this.#open.keys() : []
    if (oldest === undefined) return
    this.#open.delete(oldest)
    this.#dropped++
  }

  /** Moves a span from the open ones to the ended ones. */
  onEnd(span: Tracer.Span, ids: SpanIds, endTime: bigint, exit: Exit.Exit<unknown, unknown>): void {
    this.#open.delete(ids.spanId)
    this.#push(keptOf(span, ids, endTime, Exit.isSuccess(exit) ? "ok" : "error"))
  }

  /**
   * Stores an event as a span without duration, below the span in which it happens. That span may
   * stay open for hours, so the event cannot wait for its end.
   */
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

  /**
   * Returns the ended spans in the order of their end, then the open ones. `now` is in epoch
   * nanoseconds.
   */
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

/** The ring of this thread. */
export class Spans extends Context.Reference<Spans>()("sallyport/telemetry/Spans", {
  defaultValue: () => new SpanRing()
}) {}

/** Reads this thread's spans. */
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
