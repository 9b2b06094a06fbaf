/**
 * Logs to stderr, and exports logs, spans and metrics to an OTLP collector if one is configured.
 * The main thread and every worker thread use the same layer, and each keeps its last spans. Only
 * the main thread exports metrics.
 */
import * as OtlpLogger from "@effect/opentelemetry/OtlpLogger"
import * as OtlpResource from "@effect/opentelemetry/OtlpResource"
import * as OtlpSerialization from "@effect/opentelemetry/OtlpSerialization"
import * as OtlpTracer from "@effect/opentelemetry/OtlpTracer"
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as HttpBody from "@effect/platform/HttpBody"
import * as HttpClient from "@effect/platform/HttpClient"
import { Clock, Duration, Effect, FiberRef, Layer, Logger, LogLevel, Schema } from "effect"
import { randomInt } from "node:crypto"
import type * as Metrics from "./Metrics.ts"
import * as OtlpMetrics from "./OtlpMetrics.ts"
import * as Printable from "./Printable.ts"
import * as Redact from "./Redact.ts"
import * as SpanRing from "./SpanRing.ts"
import * as Tracing from "./Tracing.ts"

/**
 * Telemetry settings. They survive a structured clone, because threads receive them in their
 * `workerData`.
 */
export const Settings = Schema.Struct({
  format: Schema.Literal("json", "pretty"),
  level: Schema.Literal("All", "Trace", "Debug", "Info", "Warning", "Error", "Fatal", "None"),
  /**
   * Base URL of an OTLP/HTTP collector, such as `http://127.0.0.1:4318`. `null` if nothing is
   * exported.
   */
  otlp: Schema.NullOr(Schema.String),
  /** Share of flows that are traced, from 0 to 1. */
  sample: Schema.Number,
  serviceName: Schema.String
})
export type Settings = typeof Settings.Type

/** Settings of a process that configures nothing. */
export const DEFAULT: Settings = { format: "json", level: "Info", otlp: null, sample: 1, serviceName: "sallyport" }

/**
 * Sets up logging and tracing for a thread. `thread` is "main" or the name from the placement. When
 * the layer is released, it flushes pending exports.
 */
export const layer = (settings: Settings, thread: string): Layer.Layer<never> =>
  Layer.suspend(() => {
    const live = new Live(settings)
    return Layer.mergeAll(
      Logger.replace(Logger.defaultLogger, stderr(settings.format)),
      Logger.minimumLogLevel(live as unknown as LogLevel.LogLevel), // only its ordinal is compared
      settings.otlp === null
        ? Layer.unwrapEffect(Effect.map(SpanRing.Spans, (ring) => Layer.setTracer(Tracing.keeping(ring))))
        : exporter(settings.otlp, settings, thread, live)
    )
  })

/** The settings that may change while a thread runs. */
export const Tunable = Settings.pick("level", "sample")
export type Tunable = typeof Tunable.Type

/**
 * A log level that can be changed. It is the minimum log level of all fibers under `layer`, and
 * `tune` finds it there. Two programs in one process therefore share no state.
 */
class Live {
  sample: number
  #level: LogLevel.LogLevel
  constructor({ level, sample }: Tunable) {
    this.#level = LogLevel.fromLiteral(level)
    this.sample = sample
  }
  get _tag() {
    return this.#level._tag
  }
  get label() {
    return this.#level.label
  }
  get syslog() {
    return this.#level.syslog
  }
  get ordinal() {
    return this.#level.ordinal
  }
  tune({ level, sample }: Tunable): void {
    this.#level = LogLevel.fromLiteral(level)
    this.sample = sample
  }
}

/**
 * Changes the log level and the share of traced flows of this thread. Does nothing without `layer`.
 */
export const tune = (settings: Tunable): Effect.Effect<void> =>
  Effect.map(FiberRef.get(FiberRef.currentMinimumLogLevel), (level: unknown) => {
    if (level instanceof Live) level.tune(settings)
  })

const stderr = (format: Settings["format"]) =>
  format === "json"
    ? Logger.map(Logger.jsonLogger, (line) => void process.stderr.write(`${line}\n`))
    : Logger.mapInputOptions(Logger.prettyLogger({ stderr: true }), Printable.entry)

const urlOf = (baseUrl: string, path: string): string => `${baseUrl.replace(/\/$/, "")}${path}`
const resourceOf = (serviceName: string, thread: string) => ({ serviceName, attributes: { "thread.name": thread } })

const exporter = (baseUrl: string, { serviceName }: Settings, thread: string, live: Live) => {
  const to = (path: string) => ({ url: urlOf(baseUrl, path), resource: resourceOf(serviceName, thread) })
  const tracer = Effect.zipWith(
    OtlpTracer.make(to("/v1/traces")),
    SpanRing.Spans,
    (inner, ring) =>
      Layer.setTracer(Tracing.sampling(inner, () => live.sample, () => randomInt(2 ** 32) / 2 ** 32, ring))
  )
  return Layer.merge(Layer.unwrapScoped(tracer), OtlpLogger.layer(to("/v1/logs"))).pipe(
    Layer.provide([FetchHttpClient.layer, withoutAddresses])
  )
}

/** Encodes telemetry for export, with all addresses taken out. */
const encode = (data: unknown) => HttpBody.text(Redact.otlp(data), "application/json")
const withoutAddresses = Layer.succeed(OtlpSerialization.OtlpSerialization, {
  traces: encode,
  metrics: encode,
  logs: encode
})

/**
 * Time between two exports of metrics. A collector that keeps values for a minute shows no gaps.
 */
const METRICS_INTERVAL = Duration.seconds(15)
/** Longest time for one export of metrics. */
const METRICS_DEADLINE = Duration.seconds(3)
/**
 * Longest time for the last export, so that stopping a process does not wait for a collector that
 * hangs.
 */
const LAST_METRICS_DEADLINE = Duration.seconds(1)

/**
 * Sends the metrics of `read` to the collector, if there is one, at intervals until the scope
 * closes, and once more at the end.
 */
export const exportMetrics = Effect.fnUntraced(function*(
  { otlp, serviceName }: Settings,
  read: Effect.Effect<ReadonlyArray<Metrics.Family>>
) {
  if (otlp === null) return
  const client = HttpClient.withTracerDisabledWhen(yield* HttpClient.HttpClient, () => true)
  const resource = OtlpResource.make(resourceOf(serviceName, "main"))
  let failing = false
  const post = Effect.gen(function*() {
    const now = yield* Clock.currentTimeMillis
    const body = encode(OtlpMetrics.render(yield* read, resource, { startedAt: performance.timeOrigin, now }))
    const { status } = yield* client.post(urlOf(otlp, "/v1/metrics"), { body })
    if (status >= 300) return yield* Effect.fail(`it answers with status ${status}`)
    failing = false
  }).pipe(
    Effect.scoped,
    Effect.timeout(METRICS_DEADLINE),
    Effect.catchAll((error) => {
      const before = failing
      failing = true
      return before
        ? Effect.void
        : Effect.logWarning("the collector did not accept the metrics; sallyport sends them again", String(error))
    })
  )
  yield* Effect.addFinalizer(() => Effect.ignore(Effect.timeout(post, LAST_METRICS_DEADLINE)))
  yield* Effect.forkScoped(Effect.forever(Effect.delay(post, METRICS_INTERVAL)))
}, Effect.provide(FetchHttpClient.layer))
