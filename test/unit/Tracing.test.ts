import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Option, type Tracer } from "effect"
import * as Tracing from "../../src/services/telemetry/Tracing.ts"

/** Keeps what it is asked to export. */
const exporter = () => {
  const names: Array<string> = []
  const inner: Tracer.Tracer = { ...Tracing.passing }
  const recording = Object.assign(Object.create(Tracing.passing) as Tracer.Tracer, {
    span: (...[name, parent, context, links, startTime, kind]: Parameters<Tracer.Tracer["span"]>) => {
      names.push(name)
      const span = inner.span(name, parent, context, links, startTime, kind)
      const traceId = Option.match(parent, { onNone: () => "a".repeat(32), onSome: (above) => above.traceId })
      return Object.assign(span, { sampled: true, traceId, spanId: String(names.length).padStart(16, "0") })
    }
  })
  return { names, recording }
}

const begin = Effect.withSpan("begin", { context: Tracing.BY_CHANCE })
const header = Tracing.header

describe("sampling", () => {
  it.effect("exports the share that chance gives, with all that follows, and nothing that begins by itself", () =>
    Effect.gen(function*() {
      const { names, recording } = exporter()
      const chances = [0.24, 0.26]
      const tracer = Tracing.sampling(recording, 0.25, () => chances.shift() ?? 1)
      const work = Effect.withSpan(Effect.void, "child")
      yield* Effect.all([begin(work), begin(work), work]).pipe(Effect.provide(Layer.setTracer(tracer)))
      assert.deepStrictEqual(names, ["begin", "child"])
    }))

  it.effect("follows what the other end has decided", () =>
    Effect.gen(function*() {
      const { names, recording } = exporter()
      const tracer = Tracing.sampling(recording, 1, () => 0)
      const ids = `00-${"b".repeat(32)}-${"c".repeat(16)}`
      const work = (name: string) => Effect.withSpan(Effect.void, name)
      yield* Effect.all([Tracing.under(`${ids}-01`)(work("yes")), Tracing.under(`${ids}-00`)(work("no"))]).pipe(
        Effect.provide(Layer.setTracer(tracer))
      )
      assert.deepStrictEqual(names, ["yes"])
    }))

  it.effect("tells others of a trace that is not exported, so that they do not export their part", () =>
    Effect.gen(function*() {
      const tracer = Tracing.sampling(exporter().recording, 0, () => 0.5)
      const { traceparent } = yield* begin(header).pipe(Effect.provide(Layer.setTracer(tracer)))
      assert.match(traceparent ?? "", /^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/)
      assert.isFalse(Option.getOrThrow(Tracing.parse(traceparent)).sampled)
    }))
})

describe("a hop that exports nothing", () => {
  it.effect("passes on the ids that came, and has none of its own", () =>
    Effect.gen(function*() {
      const text = `00-${"b".repeat(32)}-${"c".repeat(16)}-01`
      const inner = Effect.withSpan(header, "inner")
      assert.deepStrictEqual(yield* Tracing.under(text)(inner), { traceparent: text })
      assert.deepStrictEqual(yield* begin(inner), {})
    }).pipe(Effect.provide(Layer.setTracer(Tracing.passing))))
})

describe("traceparent", () => {
  it("is understood to the letter or not at all", () => {
    const good = `00-${"0a".repeat(16)}-${"0b".repeat(8)}-01`
    const span = Option.getOrThrow(Tracing.parse(good))
    assert.deepStrictEqual([span.traceId, span.spanId, span.sampled], ["0a".repeat(16), "0b".repeat(8), true])
    assert.strictEqual(Tracing.traceparent(span), good)
    for (const bad of [null, undefined, "", good.toUpperCase(), `${good} `, good.replace("00-", "01-")]) {
      assert.isTrue(Option.isNone(Tracing.parse(bad)), String(bad))
    }
  })
})
