import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Option, type Tracer } from "effect"
import { CAPACITY, SpanRing } from "../../src/services/telemetry/SpanRing.ts"
import * as Traces from "../../src/services/telemetry/Traces.ts"
import * as Tracing from "../../src/services/telemetry/Tracing.ts"

const NOW = 9_000_000n

/** Keeps what it is asked to export. */
const exporter = () => {
  const names: Array<string> = []
  const inner = Tracing.keeping(new SpanRing())
  const recording = Object.assign(Object.create(inner) as Tracer.Tracer, {
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
  it.effect("exports the chosen share, with all that follows", () =>
    Effect.gen(function*() {
      const { names, recording } = exporter()
      const chances = [0.24, 0.26]
      const tracer = Tracing.sampling(recording, () => 0.25, () => chances.shift() ?? 1, new SpanRing())
      const work = Effect.withSpan(Effect.void, "child")
      yield* Effect.all([begin(work), begin(work), work]).pipe(Effect.provide(Layer.setTracer(tracer)))
      assert.deepStrictEqual(names, ["begin", "child"])
    }))

  it.effect("follows what the other end has decided", () =>
    Effect.gen(function*() {
      const { names, recording } = exporter()
      const tracer = Tracing.sampling(recording, () => 1, () => 0, new SpanRing())
      const ids = `00-${"b".repeat(32)}-${"c".repeat(16)}`
      const work = (name: string) => Effect.withSpan(Effect.void, name)
      yield* Effect.all([Tracing.under(`${ids}-01`)(work("yes")), Tracing.under(`${ids}-00`)(work("no"))]).pipe(
        Effect.provide(Layer.setTracer(tracer))
      )
      assert.deepStrictEqual(names, ["yes"])
    }))

  it.effect("tells others of traces that are not exported", () =>
    Effect.gen(function*() {
      const tracer = Tracing.sampling(exporter().recording, () => 0, () => 0.5, new SpanRing())
      const { traceparent } = yield* begin(header).pipe(Effect.provide(Layer.setTracer(tracer)))
      assert.match(traceparent ?? "", /^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/)
      assert.isFalse(Option.getOrThrow(Tracing.parse(traceparent)).sampled)
    }))
})

const kept = (ring: SpanRing) => ring.read(NOW).spans.map(({ name }) => name)

describe("a hop that exports nothing", () => {
  it.effect("passes on the ids that came", () => {
    const ring = new SpanRing()
    return Effect.gen(function*() {
      const text = `00-${"b".repeat(32)}-${"c".repeat(16)}-01`
      assert.deepStrictEqual(yield* Tracing.under(text)(Effect.withSpan(Effect.withSpan(header, "inner"), "outer")), {
        traceparent: text
      })
      const [inner, outer] = ring.read(NOW).spans
      assert.deepStrictEqual([outer?.traceId, outer?.parentSpanId], ["b".repeat(32), "c".repeat(16)])
      assert.strictEqual(inner?.parentSpanId, outer?.spanId)
    }).pipe(Effect.provide(Layer.setTracer(Tracing.keeping(ring))))
  })

  it.effect("keeps what begins with a flow, and nothing else", () => {
    const ring = new SpanRing()
    return Effect.gen(function*() {
      const { traceparent } = yield* begin(Effect.withSpan(header, "child"))
      assert.match(traceparent ?? "", /^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/)
      yield* Effect.withSpan(header, "timer")
      assert.deepStrictEqual(kept(ring), ["child", "begin"])
    }).pipe(Effect.provide(Layer.setTracer(Tracing.keeping(ring))))
  })
})

describe("the last spans", () => {
  it.effect("are kept when exported, too, and events take no time", () => {
    const ring = new SpanRing()
    const { names, recording } = exporter()
    const work = Effect.annotateCurrentSpan({ "server.address": "intranet", "error.type": "refused" }).pipe(
      Effect.zipRight(
        Effect.flatMap(Effect.currentSpan, (span) => Effect.sync(() => span.event("path.switch", 7_000_000n)))
      ),
      Effect.zipRight(Effect.fail("no"))
    )
    return Effect.gen(function*() {
      yield* Effect.ignore(begin(work))
      assert.deepStrictEqual(names, ["begin"])
      const [event, span] = ring.read(NOW).spans
      assert.deepStrictEqual([event?.name, event?.startMs, event?.durationMs], ["path.switch", 7, 0])
      assert.strictEqual(event?.parentSpanId, span?.spanId)
      assert.deepStrictEqual([span?.status, span?.parentSpanId], ["error", null])
      assert.notProperty(span?.attributes, "server.address")
    }).pipe(Effect.provide(Layer.setTracer(Tracing.sampling(recording, () => 1, () => 0, ring))))
  })

  it.effect("show what is open until it ends", () => {
    const ring = new SpanRing()
    const rows = () => ring.read(NOW).spans.map(({ durationMs, name, status }) => [name, status, durationMs])
    const work = Effect.gen(function*() {
      yield* Effect.annotateCurrentSpan({ "server.address": "intranet", "server.port": 80 })
      yield* Effect.withSpan(Effect.void, "dial")
      assert.deepStrictEqual(rows(), [["dial", "ok", 0], ["begin", "open", 9]])
      assert.deepStrictEqual(ring.read(NOW).spans[1]?.attributes, { "server.port": 80 })
    })
    return Effect.gen(function*() {
      yield* begin(work)
      assert.deepStrictEqual(rows(), [["dial", "ok", 0], ["begin", "ok", 0]])
    }).pipe(Effect.provide(Layer.setTracer(Tracing.keeping(ring))))
  })

  it.effect("of open ones omit those that are open longest", () => {
    const ring = new SpanRing()
    const tracer = Tracing.keeping(ring)
    const open = (name: string) => tracer.span(name, Option.none(), Tracing.BY_CHANCE, [], 0n, "internal")
    const first = open("first")
    for (let turn = 0; turn < CAPACITY; turn++) open("later")
    const { dropped, spans } = ring.read(NOW)
    assert.deepStrictEqual([spans.length, dropped, spans.some(({ name }) => name === "first")], [CAPACITY, 1, false])
    first.end(1n, Exit.void)
    assert.isTrue(ring.read(NOW).spans.some(({ name, status }) => name === "first" && status === "ok"))
    return Effect.void
  })

  it.effect("push out the oldest, and merge over threads", () => {
    const [one, other] = [new SpanRing(), new SpanRing()]
    const on = (ring: SpanRing) => Effect.provide(Layer.setTracer(Tracing.keeping(ring)))
    return Effect.gen(function*() {
      const { traceparent } = yield* begin(header).pipe(on(one))
      yield* Tracing.under(traceparent)(Effect.withSpan(Effect.void, "elsewhere")).pipe(on(other))
      const [trace] = Traces.group({ one: one.read(NOW), other: other.read(NOW) }).traces
      assert.deepStrictEqual(trace?.spans.map(({ name, thread }) => `${name}@${thread}`), [
        "begin@one",
        "elsewhere@other"
      ])
      assert.strictEqual(trace?.spans[1]?.parentSpanId, trace?.spans[0]?.spanId)
      for (let turn = 0; turn < CAPACITY + 2; turn++) yield* begin(Effect.void).pipe(on(other))
      const { dropped, spans } = other.read(NOW)
      assert.deepStrictEqual([spans.length, dropped], [CAPACITY, 3])
      assert.isFalse(spans.some(({ name }) => name === "elsewhere"))
    })
  })
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
