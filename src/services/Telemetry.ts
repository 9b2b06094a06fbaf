/** Logs to stderr, and logs and spans to an OTLP collector if there is one; the same in main and in every thread, which keep their last spans. */
import * as OtlpLogger from "@effect/opentelemetry/OtlpLogger"
import * as OtlpSerialization from "@effect/opentelemetry/OtlpSerialization"
import * as OtlpTracer from "@effect/opentelemetry/OtlpTracer"
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import { Effect, Layer, Logger, LogLevel, Schema } from "effect"
import { randomInt } from "node:crypto"
import * as SpanRing from "./telemetry/SpanRing.ts"
import * as Tracing from "./telemetry/Tracing.ts"

/** Survives a structured clone: threads get it in their `workerData`. */
export const Settings = Schema.Struct({
  format: Schema.Literal("json", "pretty"),
  level: Schema.Literal("All", "Trace", "Debug", "Info", "Warning", "Error", "Fatal", "None"),
  /** Base URL of an OTLP/HTTP collector, as `http://127.0.0.1:4318`. Null: nothing is exported. */
  otlp: Schema.NullOr(Schema.String),
  /** Share of the flows that are traced, 0 to 1. */
  sample: Schema.Number,
  serviceName: Schema.String
})
export type Settings = typeof Settings.Type

export const DEFAULT: Settings = { format: "json", level: "Info", otlp: null, sample: 1, serviceName: "sallyport" }

/** `thread`: "main", or the name from the placement. What is still to be exported is flushed when the layer is released. */
export const layer = (settings: Settings, thread: string): Layer.Layer<never> =>
  Layer.mergeAll(
    Logger.replace(Logger.defaultLogger, stderr(settings.format)),
    Logger.minimumLogLevel(LogLevel.fromLiteral(settings.level)),
    settings.otlp === null
      ? Layer.unwrapEffect(Effect.map(SpanRing.Spans, (ring) => Layer.setTracer(Tracing.keeping(ring))))
      : exporter(settings.otlp, settings, thread)
  )

const stderr = (format: Settings["format"]) =>
  format === "json"
    ? Logger.map(Logger.jsonLogger, (line) => void process.stderr.write(`${line}\n`))
    : Logger.prettyLogger({ stderr: true })

const exporter = (baseUrl: string, { sample, serviceName }: Settings, thread: string) => {
  const resource = { serviceName, attributes: { "thread.name": thread } }
  const to = (path: string) => ({ url: `${baseUrl.replace(/\/$/, "")}${path}`, resource })
  const tracer = Effect.zipWith(
    OtlpTracer.make(to("/v1/traces")),
    SpanRing.Spans,
    (inner, ring) => Layer.setTracer(Tracing.sampling(inner, sample, () => randomInt(2 ** 32) / 2 ** 32, ring))
  )
  return Layer.merge(Layer.unwrapScoped(tracer), OtlpLogger.layer(to("/v1/logs"))).pipe(
    Layer.provide([FetchHttpClient.layer, OtlpSerialization.layerJson])
  )
}
