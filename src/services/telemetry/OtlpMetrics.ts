/**
 * Encodes metrics as OTLP (opentelemetry-proto, metrics/v1). Families and names are the same as in
 * a scrape, so that one dashboard serves both. Sums are cumulative since the process started, so a
 * lost export leaves no gap in the next one.
 */
import type { Family, Labels } from "./Metrics.ts"

/** OTLP's AggregationTemporality for cumulative sums. */
const CUMULATIVE = 2
/** UCUM unit for each OpenMetrics unit, as OpenTelemetry writes units. */
const UNITS: Readonly<Record<string, string>> = { bytes: "By", seconds: "s", ratio: "1" }

type Times = { readonly startTimeUnixNano: string; readonly timeUnixNano: string }

/** Makes an ExportMetricsServiceRequest. `startedAt` and `now` are epoch milliseconds. */
export const render = (
  families: ReadonlyArray<Family>,
  resource: unknown,
  { now, startedAt }: { readonly startedAt: number; readonly now: number }
) => {
  const times = { startTimeUnixNano: nanos(startedAt), timeUnixNano: nanos(now) }
  return {
    resourceMetrics: [{
      resource,
      scopeMetrics: [{ scope: { name: "sallyport" }, metrics: families.map((family) => metricOf(family, times)) }]
    }]
  }
}

const metricOf = (family: Family, times: Times) => ({
  name: family.name,
  description: family.help,
  unit: UNITS[family.unit] ?? family.unit,
  ...dataOf(family, times)
})

const dataOf = (family: Family, times: Times) => {
  const numbers = (points: ReadonlyArray<{ readonly labels: Labels; readonly value: number }>) =>
    points.map(({ labels, value }) => ({ attributes: attributesOf(labels), ...times, asDouble: value }))
  switch (family._tag) {
    case "Counter":
      return {
        sum: { aggregationTemporality: CUMULATIVE, isMonotonic: true, dataPoints: numbers(family.points) }
      }
    case "Gauge":
      return { gauge: { dataPoints: numbers(family.points) } }
    case "Histogram":
      return {
        histogram: {
          aggregationTemporality: CUMULATIVE,
          dataPoints: family.points.map(({ counts, labels, sum }) => ({
            attributes: attributesOf(labels),
            ...times,
            count: String(counts.reduce((all, count) => all + count, 0)),
            sum,
            bucketCounts: counts.map(String),
            explicitBounds: family.bounds
          }))
        }
      }
  }
}

const attributesOf = (labels: Labels) =>
  Object.entries(labels).map(([key, stringValue]) => ({ key, value: { stringValue } }))

/** Encodes a time as nanoseconds. OTLP's JSON writes 64-bit numbers as text. */
const nanos = (epochMs: number): string => (BigInt(Math.round(epochMs * 1000)) * 1000n).toString()
