/** Logs to stderr, and logs, spans and metrics to an OTLP collector if there is one; the same in main and in every thread. */
import * as Otlp from "@effect/opentelemetry/Otlp"
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import { Layer, Logger, LogLevel, Schema } from "effect"

/** Survives a structured clone: threads get it in their `workerData`. */
export const Settings = Schema.Struct({
  format: Schema.Literal("json", "pretty"),
  level: Schema.Literal("All", "Trace", "Debug", "Info", "Warning", "Error", "Fatal", "None"),
  /** Base URL of an OTLP/HTTP collector, as `http://127.0.0.1:4318`. Null: nothing is exported. */
  otlp: Schema.NullOr(Schema.String),
  serviceName: Schema.String
})
export type Settings = typeof Settings.Type

export const DEFAULT: Settings = { format: "json", level: "Info", otlp: null, serviceName: "sallyport" }

/** `thread`: "main", or the name from the placement. What is still to be exported is flushed when the layer is released. */
export const layer = (settings: Settings, thread: string): Layer.Layer<never> =>
  Layer.mergeAll(
    Logger.replace(Logger.defaultLogger, stderr(settings.format)),
    Logger.minimumLogLevel(LogLevel.fromLiteral(settings.level)),
    settings.otlp === null ? Layer.empty : exporter(settings.otlp, settings.serviceName, thread)
  )

const stderr = (format: Settings["format"]) =>
  format === "json"
    ? Logger.map(Logger.jsonLogger, (line) => void process.stderr.write(`${line}\n`))
    : Logger.prettyLogger({ stderr: true })

const exporter = (baseUrl: string, serviceName: string, thread: string) =>
  Otlp.layerJson({ baseUrl, resource: { serviceName, attributes: { "thread.name": thread } } }).pipe(
    Layer.provide(FetchHttpClient.layer)
  )
