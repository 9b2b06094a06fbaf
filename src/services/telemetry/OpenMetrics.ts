/**
 * Encodes metrics as text that Prometheus and OpenTelemetry collectors scrape (OpenMetrics 1.0).
 */
import type { Family, Labels } from "./Metrics.ts"

export const CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

/** Renders families. Their names must differ, which `Metrics.merge` ensures. */
export const render = (families: ReadonlyArray<Family>): string => `${families.map(renderFamily).join("")}# EOF\n`

const renderFamily = (family: Family): string => {
  const { help, name, unit } = family
  const head = [
    `# TYPE ${name} ${family._tag.toLowerCase()}`,
    ...(unit === "" ? [] : [`# UNIT ${name} ${unit}`]),
    `# HELP ${name} ${escape(help)}`
  ]
  return [...head, ...samplesOf(family)].map((line) => `${line}\n`).join("")
}

const samplesOf = (family: Family): ReadonlyArray<string> => {
  const { name } = family
  switch (family._tag) {
    case "Counter":
      return family.points.map(({ labels, value }) => sample(`${name}_total`, labels, value))
    case "Gauge":
      return family.points.map(({ labels, value }) => sample(name, labels, value))
    case "Histogram":
      return family.points.flatMap(({ counts, labels, sum }) => {
        let below = 0
        const buckets = counts.map((count, bucket) => {
          below += count
          return sample(`${name}_bucket`, { ...labels, le: boundOf(family.bounds[bucket] ?? Infinity) }, below)
        })
        return [...buckets, sample(`${name}_count`, labels, below), sample(`${name}_sum`, labels, sum)]
      })
  }
}

const sample = (name: string, labels: Labels, value: number): string => {
  const pairs = Object.entries(labels).map(([label, text]) => `${label}="${escape(text)}"`)
  return `${name}${pairs.length === 0 ? "" : `{${pairs.join(",")}}`} ${numberOf(value)}`
}

/**
 * Renders a bucket bound, always as a float. The specification requires that, because a bound is a
 * label and needs one canonical text.
 */
const boundOf = (bound: number): string => Number.isInteger(bound) ? bound.toFixed(1) : numberOf(bound)

const numberOf = (value: number): string =>
  Number.isFinite(value) ? String(value) : Number.isNaN(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf"

const escape = (text: string): string => text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll("\"", "\\\"")
