/**
 * Metrics as data: what a thread answers when it is asked, and what main makes of several threads' answers. Counting is done
 * by plain objects (`Counts`, `Distribution`), since some of it happens for each packet; they are read when somebody asks.
 *
 * Names and units follow OpenMetrics: base units (seconds, bytes), the unit last in the name, counters without their `_total`.
 */
import { Schema } from "effect"

const Labels = Schema.Record({ key: Schema.String, value: Schema.String })
export type Labels = typeof Labels.Type

const about = {
  /** `sallyport_path_bytes`; what `render` puts behind it depends on the kind. */
  name: Schema.String,
  /** Empty, or what the name ends with. */
  unit: Schema.String,
  help: Schema.String
}
const NumberPoints = Schema.Array(Schema.Struct({ labels: Labels, value: Schema.Number }))

/** Only ever grows, while its source lives. */
const CounterFamily = Schema.TaggedStruct("Counter", { ...about, points: NumberPoints })
/** What is so now. Where several threads have the same labels, the sum. */
const GaugeFamily = Schema.TaggedStruct("Gauge", { ...about, points: NumberPoints })
const HistogramFamily = Schema.TaggedStruct("Histogram", {
  ...about,
  /** Upper bounds, rising; whatever is larger goes to one more bucket. */
  bounds: Schema.Array(Schema.Number),
  /** `counts`: one for each bucket, not cumulative. */
  points: Schema.Array(Schema.Struct({ labels: Labels, sum: Schema.Number, counts: Schema.Array(Schema.Number) }))
})

export const Family = Schema.Union(CounterFamily, GaugeFamily, HistogramFamily)
export type Family = typeof Family.Type
type HistogramFamily = typeof HistogramFamily.Type

/** Read at each scrape, and once more when whoever counts ends. */
export type Source = () => ReadonlyArray<Family>

type About = { readonly name: string; readonly unit?: string; readonly help: string }
type Points = ReadonlyArray<{ readonly labels: Labels; readonly value: number }>

export const counter = ({ help, name, unit = "" }: About, points: Points): Family => ({
  _tag: "Counter",
  name,
  unit,
  help,
  points
})
export const gauge = ({ help, name, unit = "" }: About, points: Points): Family => ({
  _tag: "Gauge",
  name,
  unit,
  help,
  points
})

/** One number for each value of one label. The values must be few and known, or memory grows without end. */
export class Counts<Value extends string> {
  readonly #counts = new Map<Value, number>()

  add(value: Value, by = 1): void {
    this.#counts.set(value, (this.#counts.get(value) ?? 0) + by)
  }

  points(label: string): Points {
    return Array.from(this.#counts, ([value, count]) => ({ labels: { [label]: value }, value: count }))
  }
}

/** A point for each of some counts, under its name in snake_case. */
export const each = (label: string, counts: Readonly<Record<string, number>>): Points =>
  Object.entries(counts).map(([name, value]) => ({ labels: { [label]: snakeCase(name) }, value }))

const snakeCase = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)

/** From a fast machine's own loop to a flow that had to wait for a dial: seconds. */
export const SECONDS: ReadonlyArray<number> = [
  0.0005,
  0.001,
  0.0025,
  0.005,
  0.01,
  0.025,
  0.05,
  0.1,
  0.25,
  0.5,
  1,
  2.5,
  5,
  10
]

export class Distribution {
  readonly bounds: ReadonlyArray<number>
  readonly #counts: Array<number>
  #sum = 0

  constructor(bounds: ReadonlyArray<number> = SECONDS) {
    this.bounds = bounds
    this.#counts = bounds.map(() => 0).concat(0)
  }

  observe(value: number): void {
    let bucket = 0
    while (bucket < this.bounds.length && value > this.bounds[bucket]!) bucket++
    this.#counts[bucket]!++
    this.#sum += value
  }

  point(labels: Labels): HistogramFamily["points"][number] {
    return { labels, sum: this.#sum, counts: [...this.#counts] }
  }
}

/** All of them have the same bounds. */
export const histogram = (
  { help, name, unit = "" }: About,
  parts: ReadonlyArray<{ readonly labels: Labels; readonly of: Distribution }>
): Family => ({
  _tag: "Histogram",
  name,
  unit,
  help,
  bounds: parts[0]?.of.bounds ?? SECONDS,
  points: parts.map(({ labels, of }) => of.point(labels))
})

/** One family for each name, one point for each set of labels: the sum of all. Of families that disagree, the first counts. */
export const merge = (lists: ReadonlyArray<ReadonlyArray<Family>>): ReadonlyArray<Family> => {
  const merged = new Map<string, Family>()
  for (const family of lists.flat()) {
    const known = merged.get(family.name)
    merged.set(family.name, known === undefined ? join(family, family, []) : join(known, family, known.points))
  }
  return [...merged.values()]
}

/** What a source that has ended leaves behind: without it, a sum over sources would fall, and counters must not. */
export const lasting = (families: ReadonlyArray<Family>): ReadonlyArray<Family> =>
  families.filter(({ _tag }) => _tag !== "Gauge")

const keyOf = (labels: Labels): string =>
  JSON.stringify(Object.entries(labels).sort(([left], [right]) => (left < right ? -1 : 1)))

const join = (into: Family, from: Family, points: Family["points"]): Family => {
  if (into._tag === "Histogram") {
    if (from._tag !== "Histogram" || from.bounds.join() !== into.bounds.join()) return into
    const sums = sumBy([...(points as typeof from.points), ...from.points], (left, right) => ({
      labels: left.labels,
      sum: left.sum + right.sum,
      counts: left.counts.map((count, bucket) => count + (right.counts[bucket] ?? 0))
    }))
    return { ...into, points: sums }
  }
  if (from._tag !== into._tag) return into
  const sums = sumBy([...(points as Points), ...from.points], (left, right) => ({
    labels: left.labels,
    value: left.value + right.value
  }))
  return { ...into, points: sums }
}

const sumBy = <A extends { readonly labels: Labels }>(
  points: ReadonlyArray<A>,
  add: (left: A, right: A) => A
): ReadonlyArray<A> => {
  const sums = new Map<string, A>()
  for (const point of points) {
    const key = keyOf(point.labels)
    const known = sums.get(key)
    sums.set(key, known === undefined ? point : add(known, point))
  }
  return [...sums.values()]
}
