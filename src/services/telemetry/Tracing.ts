/**
 * Which work is traced, and how a trace travels where no call carries it. A trace begins only where the code says so: with a
 * flow, above all. What timers and probes do all day belongs to no trace, and costs next to nothing.
 */
import { Context, Effect, type Exit, Option, Tracer } from "effect"
import { randomBytes } from "node:crypto"

/** Whether a trace may begin with a span that has no parent: by chance, as config says, or in any case. */
type Beginning = "never" | "by_chance" | "always"
class Begins extends Context.Reference<Begins>()("sallyport/telemetry/Begins", {
  defaultValue: (): Beginning => "never"
}) {}

const contextOf = (beginning: Beginning) => Context.make(Begins, beginning) as Context.Context<never>

/** For `context` of a span with which a trace may begin: a share of them is exported, with all that follows. */
export const BY_CHANCE = contextOf("by_chance")
/** For spans that tell of others that are exported already. */
export const ALWAYS = contextOf("always")

/** Exports a `share` (0 to 1) of the traces that begin here, and what follows on traces that others export. */
export const sampling = (inner: Tracer.Tracer, share: number, chance: () => number): Tracer.Tracer =>
  Tracer.make({
    context: (run, fiber) => inner.context(run, fiber),
    span: (name, parent, context, links, startTime, kind, options) => {
      if (Option.isSome(parent)) {
        return parent.value.sampled
          ? inner.span(name, parent, context, links, startTime, kind, options)
          : new Passing(name, parent, context, kind, startTime)
      }
      const beginning = Context.get(context, Begins)
      const exports = beginning === "always" || (beginning === "by_chance" && chance() < share)
      if (exports) return inner.span(name, parent, context, links, startTime, kind, options)
      return new Passing(name, parent, context, kind, startTime, beginning === "never" ? NOTHING : newIds())
    }
  })

/** Exports nothing and begins nothing: a hop that is not there for those who export. */
export const passing: Tracer.Tracer = Tracer.make({
  context: (run) => run(),
  span: (name, parent, context, _, startTime, kind) => new Passing(name, parent, context, kind, startTime)
})

type Ids = { readonly traceId: string; readonly spanId: string }
const NOTHING: Ids = { traceId: "", spanId: "" }
const newIds = (): Ids => ({ traceId: randomBytes(16).toString("hex"), spanId: randomBytes(8).toString("hex") })

/** Bears its parent's ids, so that what follows on it follows on its parent. */
class Passing implements Tracer.Span {
  readonly _tag = "Span"
  readonly traceId: string
  readonly spanId: string
  readonly sampled: boolean
  readonly attributes = new Map<string, unknown>()
  readonly links: ReadonlyArray<Tracer.SpanLink> = []
  readonly name: string
  readonly parent: Option.Option<Tracer.AnySpan>
  readonly context: Context.Context<never>
  readonly kind: Tracer.SpanKind
  status: Tracer.SpanStatus

  constructor(
    name: string,
    parent: Option.Option<Tracer.AnySpan>,
    context: Context.Context<never>,
    kind: Tracer.SpanKind,
    startTime: bigint,
    ids: Ids = Option.getOrElse(parent, () => NOTHING)
  ) {
    this.name = name
    this.parent = parent
    this.context = context
    this.kind = kind
    this.traceId = ids.traceId
    this.spanId = ids.spanId
    this.sampled = Option.exists(parent, ({ sampled }) => sampled)
    this.status = { _tag: "Started", startTime }
  }

  end(endTime: bigint, exit: Exit.Exit<unknown, unknown>): void {
    this.status = { _tag: "Ended", startTime: this.status.startTime, endTime, exit }
  }

  attribute(): void {}
  event(): void {}
  addLinks(): void {}
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
