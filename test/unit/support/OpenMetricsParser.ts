/** A strict reader of OpenMetrics 1.0, as far as this program uses it; throws at the first thing that is not right. */

export interface Sample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

const NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*"
const TYPE = new RegExp(`^# TYPE (${NAME}) (counter|gauge|histogram)$`)
const UNIT = new RegExp(`^# UNIT (${NAME}) ([a-z]+)$`)
const HELP = new RegExp(`^# HELP (${NAME}) ((?:[^\\\\"\\n]|\\\\[\\\\"n])*)$`)
const LABEL = "[a-zA-Z_][a-zA-Z0-9_]*=\"(?:[^\\\\\"\\n]|\\\\[\\\\\"n])*\""
const SAMPLE = new RegExp(
  `^(${NAME})(?:\\{(${LABEL}(?:,${LABEL})*)\\})? ([+-]Inf|NaN|-?\\d+(?:\\.\\d+)?(?:e[+-]?\\d+)?)$`
)
const SUFFIXES = { counter: ["_total"], gauge: [""], histogram: ["_bucket", "_count", "_sum"] } as const

type Family = { readonly name: string; readonly type: keyof typeof SUFFIXES; readonly samples: Array<Sample> }

export const parse = (text: string): ReadonlyArray<Sample> => {
  const lines = text.split("\n")
  if (lines.pop() !== "" || lines.pop() !== "# EOF") throw new Error("it does not end with # EOF and a line feed")
  const families = new Map<string, Family>()
  let family: Family | undefined
  for (const line of lines) {
    const [, typed, type] = TYPE.exec(line) ?? []
    if (typed !== undefined) {
      if (families.has(typed)) throw new Error(`${typed} comes twice`)
      family = { name: typed, type: type as Family["type"], samples: [] }
      families.set(typed, family)
      continue
    }
    if (family === undefined) throw new Error(`nothing says what this is: ${line}`)
    if (line.startsWith("# ")) checkMeta(line, family)
    else family.samples.push(sampleOf(line, family))
  }
  for (const found of families.values()) checkFamily(found)
  return [...families.values()].flatMap(({ samples }) => samples)
}

const checkMeta = (line: string, { name, samples }: Family): void => {
  const [, united, unit = ""] = UNIT.exec(line) ?? []
  const [, helped] = HELP.exec(line) ?? []
  if (samples.length > 0 || (united ?? helped) !== name) throw new Error(`out of place: ${line}`)
  if (united !== undefined && !name.endsWith(`_${unit}`)) throw new Error(`the unit is not in the name: ${line}`)
}

const sampleOf = (line: string, family: Family): Sample => {
  const [, name, labels = "", value = ""] = SAMPLE.exec(line) ?? []
  if (name === undefined) throw new Error(`no sample: ${line}`)
  if (!SUFFIXES[family.type].some((suffix) => name === family.name + suffix)) {
    throw new Error(`not of ${family.type} ${family.name}: ${line}`)
  }
  const pairs = Array.from(
    labels.matchAll(/([a-zA-Z_]\w*)="((?:[^\\"]|\\.)*)"/g),
    ([, label = "", text = ""]) =>
      [label, text.replaceAll(/\\(.)/g, (_, escaped) => (escaped === "n" ? "\n" : escaped))] as const
  )
  if (new Set(pairs.map(([label]) => label)).size !== pairs.length) throw new Error(`a label comes twice: ${line}`)
  return { name, labels: Object.fromEntries(pairs), value: Number(value.replace("Inf", "Infinity")) }
}

const checkFamily = ({ name, samples, type }: Family): void => {
  const keys = samples.map((sample) => `${sample.name} ${sample.labels["le"] ?? ""} ${keyOf(sample.labels)}`)
  if (new Set(keys).size !== keys.length) throw new Error(`${name} has one sample twice`)
  if (type !== "gauge" && samples.some(({ value }) => !(value >= 0))) throw new Error(`${name} is below 0`)
  if (type !== "histogram") return
  for (const count of samples.filter((sample) => sample.name === `${name}_count`)) {
    const own = samples.filter(({ labels, name: full }) =>
      full === `${name}_bucket` && keyOf(labels) === keyOf(count.labels)
    )
    const bounds = own.map(({ labels }) => Number(labels["le"]?.replace("Inf", "Infinity")))
    const rises = (numbers: ReadonlyArray<number>) => numbers.every((one, at) => at === 0 || one >= numbers[at - 1]!)
    if (!rises(bounds) || !rises(own.map(({ value }) => value))) throw new Error(`${name} has buckets that fall`)
    if (bounds.at(-1) !== Infinity || own.at(-1)?.value !== count.value) throw new Error(`${name} does not add up`)
  }
}

/** Of all labels but the bound. */
const keyOf = (labels: Sample["labels"]): string =>
  Object.keys(labels).filter((label) => label !== "le").toSorted().map((label) => `${label}=${labels[label]}`).join()

/** Of the samples with this name, and these labels among theirs. */
export const sum = (samples: ReadonlyArray<Sample>, name: string, labels: Sample["labels"] = {}): number =>
  samples
    .filter((sample) => sample.name === name)
    .filter((sample) => Object.entries(labels).every(([label, text]) => sample.labels[label] === text))
    .reduce((total, { value }) => total + value, 0)
