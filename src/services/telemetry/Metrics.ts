/**
 * Metrics as data. Each thread reports families, and the main thread merges them.
 *
 * Code counts with plain objects (`Counts`, `Distribution`), because some of it runs for each
 * packet. They are read only at a scrape.
 *
 * Names and units follow OpenMetrics: base units (seconds, bytes), the unit at the end of the name,
 * and counters without their `_total` suffix.
 */
import { Schema } from "effect"

const Labels = Schema.Record({ key: Schema.String, value: Schema.String })
export type Labels = typeof Labels.Type

const about = {
  /**
   * Name of the family, such as `sallyport_path_bytes`. `render` adds a suffix that depends on the
   * kind.
   */
  name: Schema.String,
  /** The unit at the end of the name, or empty. */
  unit: Schema.String,
  help: Schema.String
}
const NumberPoints = Schema.Array(Schema.Struct({ labels: Labels, value: Schema.Number }))

/** A number that only grows while its source lives. */
const CounterFamily = Schema.TaggedStruct("Counter", { ...about, points: NumberPoints })
/** A current value. If several threads report the same labels, their values are added. */
const GaugeFamily = Schema.TaggedStruct("Gauge", { ...about, points: NumberPoints })
const HistogramFamily = Schema.TaggedStruct("Histogram", {
  ...about,
  /** Upper bounds of the buckets, ascending. Larger values go into one more bucket. */
  bounds: Schema.Array(Schema.Number),
  /**
   * One point for each set of labels. `counts` has one entry for each bucket and is not cumulative.
   */
  points: Schema.Array(Schema.Struct({ labels: Labels, sum: Schema.Number, counts: Schema.Array(Schema.Number) }))
})

/** One metric with all its points. */
export const Family = Schema.Union(CounterFamily, GaugeFamily, HistogramFamily)
export type Family = typeof Family.Type
type HistogramFamily = typeof HistogramFamily.Type

/** Reads metrics. It is called at each scrape, and once more when the part that counts ends. */
export type Source = () => ReadonlyArray<Family>

type About = { readonly name: string; readonly unit?: string; readonly help: string }
type Points = ReadonlyArray<{ readonly labels: Labels; readonly value: number }>

/** Makes a family of counters with these points. */
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

/**
 * Counters by the value of one label. The values must be few and fixed, or memory grows without
 * bound.
 */
export class Counts<Value extends string> {
  readonly #counts = new Map<Value, number>()

  /** Adds `by` to the counter of this value. */
  add(value: Value, by = 1): void {
    this.#counts.set(value, (this.#counts.get(value) ?? 0) + by)
  }

  points(label: string): Points {
    return Array.from(this.#counts, ([value, count]) => ({ labels: { [label]: value }, value: count }))
  }
}

/**
 * Makes a point for each entry of `counts`, with the entry's name in snake_case as the label's
 * value.
 */
export const each = (label: string, counts: Readonly<Record<string, number>>): Points =>
  Object.entries(counts).map(([name, value]) => ({ labels: { [label]: snakeCase(name) }, value }))

const snakeCase = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)

/**
 * Default bucket bounds in seconds, from the event loop delay of a fast machine to a flow that had
 * to wait for a dial.
 */
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

/** A histogram that counts values by bucket. */
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

/** Makes a histogram family. All parts must have the same bounds. */
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

/**
 * Merges lists of families into one family for each name. Points with the same labels are added up.
 * If two families of one name differ in kind or bounds, the first one counts.
 */
export const merge = (lists: ReadonlyArray<ReadonlyArray<Family>>): ReadonlyArray<Family> => {
  const merged = new Map<string, Family>()
  for (const family of lists.flat()) {
    const known = merged.get(family.name)
    merged.set(family.name, known === undefined ? join(family, family, []) : join(known, family, known.points))
  }
  return [...merged.values()]
}

/**
 * Selects what must be kept of a source that has ended: everything but gauges. Otherwise a
 * counter's sum over all sources would fall, which it must never do.
 */
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
