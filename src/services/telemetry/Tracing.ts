/**
 * Decides which work is traced, and carries traces across messages.
 *
 * A trace begins only where the code asks for it, usually with a flow. The constant work of timers
 * and probes belongs to no trace and costs next to nothing.
 */
import { Context, Effect, type Exit, Option, Tracer } from "effect"
import { randomBytes } from "node:crypto"
import type { SpanRing } from "./SpanRing.ts"

/**
 * Whether a span without a parent begins a trace. `by_chance`: it does, and the configured share of
 * such traces is exported. `always`: it does, and the trace is always exported.
 */
type Beginning = "never" | "by_chance" | "always"
class Begins extends Context.Reference<Begins>()("sallyport/telemetry/Begins", {
  defaultValue: (): Beginning => "never"
}) {}

const contextOf = (beginning: Beginning) => Context.make(Begins, beginning) as Context.Context<never>

/**
 * Context of a span that may begin a trace. A share of these traces is exported, with all spans
 * that follow.
 */
export const BY_CHANCE = contextOf("by_chance")
/** Context of a span that is always exported, because it describes spans that are exported. */
export const ALWAYS = contextOf("always")

/**
 * Creates a tracer that keeps every span of a trace in `ring` and exports some traces.
 *
 * It exports a `share` (0 to 1, read at the start of each trace) of the traces that begin here, and
 * continues the traces that others export.
 */
export const sampling = (
  inner: Tracer.Tracer,
  share: () => number,
  chance: () => number,
  ring: SpanRing
): Tracer.Tracer =>
  Tracer.make({
    context: (run, fiber) => inner.context(run, fiber),
    span: (...asked) => {
      const [name, parent, context, links, startTime, kind] = asked
      if (Option.isSome(parent)) {
        return parent.value.sampled ? alsoKept(inner.span(...asked), ring) : new Kept(ring, ...asked)
      }
      const beginning = Context.get(context, Begins)
      const exports = beginning === "always" || (beginning === "by_chance" && chance() < share())
      return exports
        ? alsoKept(inner.span(...asked), ring)
        : new Kept(ring, name, parent, context, links, startTime, kind)
    }
  })

/**
 * Creates a tracer that keeps spans in `ring` and exports none. It stays invisible in the traces
 * that others export.
 */
export const keeping = (ring: SpanRing): Tracer.Tracer =>
  Tracer.make({ context: (run) => run(), span: (...asked) => new Kept(ring, ...asked) })

const newSpanId = (): string => randomBytes(8).toString("hex")

const alsoKept = (span: Tracer.Span, ring: SpanRing): Tracer.Span => {
  const { spanId } = span
  const end = span.end.bind(span)
  const event = span.event.bind(span)
  const ids = { spanId, parentSpanId: Option.getOrNull(Option.map(span.parent, (above) => above.spanId)) }
  ring.onStart(span, ids)
  return Object.assign(span, {
    end: (endTime: bigint, exit: Exit.Exit<unknown, unknown>) => {
      ring.onEnd(span, ids, endTime, exit)
      end(endTime, exit)
    },
    event: (name: string, at: bigint, attributes?: Record<string, unknown>) => {
      ring.onEvent(span, spanId, name, at, attributes)
      event(name, at, attributes)
    }
  })
}

/**
 * A span that is kept on this thread but not exported.
 *
 * In a trace that others export, it presents its parent's id, so that later spans attach to an
 * exported span. A span outside any trace has no ids and is not kept.
 */
class Kept implements Tracer.Span {
  readonly _tag = "Span"
  readonly traceId: string
  readonly spanId: string
  readonly sampled: boolean
  readonly attributes = new Map<string, unknown>()
  readonly links: ReadonlyArray<Tracer.SpanLink>
  readonly name: string
  readonly parent: Option.Option<Tracer.AnySpan>
  readonly context: Context.Context<never>
  readonly kind: Tracer.SpanKind
  status: Tracer.SpanStatus
  readonly #ring: SpanRing
  readonly #own: string

  constructor(ring: SpanRing, ...asked: Parameters<Tracer.Tracer["span"]>) {
    const [name, parent, context, links, startTime, kind] = asked
    const above = Option.getOrNull(parent)
    const isOf = above === null ? Context.get(context, Begins) !== "never" : above.traceId !== ""
    this.name = name
    this.parent = parent
    this.context = context
    this.kind = kind
    this.links = links
    this.sampled = above?.sampled ?? false
    this.traceId = !isOf ? "" : above?.traceId ?? randomBytes(16).toString("hex")
    this.#own = isOf ? newSpanId() : ""
    this.spanId = above !== null && above.sampled ? above.spanId : this.#own
    this.status = { _tag: "Started", startTime }
    this.#ring = ring
    if (isOf) ring.onStart(this, this.#ids())
  }

  end(endTime: bigint, exit: Exit.Exit<unknown, unknown>): void {
    if (this.traceId !== "") this.#ring.onEnd(this, this.#ids(), endTime, exit)
    this.status = { _tag: "Ended", startTime: this.status.startTime, endTime, exit }
  }

  attribute(key: string, value: unknown): void {
    if (this.traceId !== "") this.attributes.set(key, value)
  }
  event(name: string, at: bigint, attributes?: Record<string, unknown>): void {
    if (this.traceId !== "") this.#ring.onEvent(this, this.#own, name, at, attributes)
  }
  addLinks(): void {}

  #ids() {
    const above = Option.getOrNull(this.parent)
    return { spanId: this.#own, parentSpanId: above instanceof Kept ? above.#own : above?.spanId ?? null }
  }
}

const TRACEPARENT = /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/

/**
 * Encodes a span as W3C Trace Context. `null` if the span belongs to no trace. A trace that is not
 * exported also has ids, with the sampled flag off, so that other processes do not export it
 * either.
 */
export const traceparent = ({ sampled, spanId, traceId }: Tracer.AnySpan): string | null => {
  const text = `00-${traceId}-${spanId}-0${sampled ? 1 : 0}`
  return TRACEPARENT.test(text) ? text : null
}

/** The `traceparent` field for a message, or no field if the current span belongs to no trace. */
export const header: Effect.Effect<{ readonly traceparent?: string }> = Effect.map(
  Effect.option(Effect.currentParentSpan),
  (span) => {
    const text = Option.getOrNull(Option.map(span, traceparent))
    return text === null ? {} : { traceparent: text }
  }
)

/** Decodes a `traceparent`. `None` if it is missing or malformed. */
export const parse = (text: string | null | undefined): Option.Option<Tracer.ExternalSpan> => {
  const [, traceId = "", spanId = "", flags = ""] = TRACEPARENT.exec(text ?? "") ?? []
  return traceId === ""
    ? Option.none()
    : Option.some(Tracer.externalSpan({ traceId, spanId, sampled: (Number.parseInt(flags, 16) & 1) === 1 }))
}

/** Runs an effect as part of the trace in `text`, or unchanged if there is none. */
export const under = (text: string | undefined) => <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Option.match(parse(text), {
    onNone: () => effect,
    onSome: (span) => Effect.withParentSpan(effect, span) as Effect.Effect<A, E, R>
  })
