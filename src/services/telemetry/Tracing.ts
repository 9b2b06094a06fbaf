/**
 * Which work is traced, and how a trace travels where no call carries it. A trace begins only where the code says so: with a
 * flow, above all. What timers and probes do all day belongs to no trace, and costs next to nothing.
 */
import { Context, Effect, type Exit, Option, Tracer } from "effect"
import { randomBytes } from "node:crypto"
import type { SpanRing } from "./SpanRing.ts"

/** Whether a trace begins with a span that has no parent, and is exported then: by chance, as config says, or in any case. */
type Beginning = "never" | "by_chance" | "always"
class Begins extends Context.Reference<Begins>()("sallyport/telemetry/Begins", {
  defaultValue: (): Beginning => "never"
}) {}

const contextOf = (beginning: Beginning) => Context.make(Begins, beginning) as Context.Context<never>

/** For `context` of a span with which a trace may begin: a share of them is exported, with all that follows. */
export const BY_CHANCE = contextOf("by_chance")
/** For spans that tell of others that are exported already. */
export const ALWAYS = contextOf("always")

/**
 * Exports a `share` (0 to 1, asked at each beginning) of the traces that begin here, and what follows on traces that others export. Every span of a trace is
 * kept in `ring`, exported or not.
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

/** Exports nothing: a hop that is not there for those who export. */
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
 * Is kept on this thread and exported to nobody. Of a trace that others export it bears its parent's id in what it tells the world, so
 * that what follows on it follows on its parent; what begins no trace and is of none has no ids, and is not kept.
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

/** W3C Trace Context. Null: the span is of no trace. One that nobody exports has ids, too, so that others do not either. */
export const traceparent = ({ sampled, spanId, traceId }: Tracer.AnySpan): string | null => {
  const text = `00-${traceId}-${spanId}-0${sampled ? 1 : 0}`
  return TRACEPARENT.test(text) ? text : null
}

/** For messages that may bear it. */
export const header: Effect.Effect<{ readonly traceparent?: string }> = Effect.map(
  Effect.option(Effect.currentParentSpan),
  (span) => {
    const text = Option.getOrNull(Option.map(span, traceparent))
    return text === null ? {} : { traceparent: text }
  }
)

/** What somebody else's span says of itself; none if it says nothing that can be understood. */
export const parse = (text: string | null | undefined): Option.Option<Tracer.ExternalSpan> => {
  const [, traceId = "", spanId = "", flags = ""] = TRACEPARENT.exec(text ?? "") ?? []
  return traceId === ""
    ? Option.none()
    : Option.some(Tracer.externalSpan({ traceId, spanId, sampled: (Number.parseInt(flags, 16) & 1) === 1 }))
}

/** Runs as a part of that trace. */
export const under = (text: string | undefined) => <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Option.match(parse(text), {
    onNone: () => effect,
    onSome: (span) => Effect.withParentSpan(effect, span) as Effect.Effect<A, E, R>
  })
