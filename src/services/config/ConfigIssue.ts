/** One mistake in a configuration, and the error that carries all of them. */
import { Schema } from "effect"

export const ConfigIssue = Schema.Struct({
  /** As the operator wrote it; null when the configuration is an object and not a file. */
  file: Schema.NullOr(Schema.String),
  /** From 1; null when there is no file, or when it cannot be read. */
  line: Schema.NullOr(Schema.Int),
  /** From 1, in UTF-16 units. */
  column: Schema.NullOr(Schema.Int),
  /** Such as `resources[0].tcp[1]`; empty for the file as a whole. */
  key: Schema.String,
  /** What was found, what was expected, what to do. Holds no secret. */
  message: Schema.String
})
export type ConfigIssue = typeof ConfigIssue.Type

/** The configuration cannot be used; nothing was started. `message` has one line for each mistake. */
export class ConfigError extends Schema.TaggedError<ConfigError>()("ConfigError", {
  issues: Schema.Array(ConfigIssue)
}) {
  override get message(): string {
    return this.issues.map(render).join("\n")
  }
}

/** `file:line:col key: message`, without the parts that are not known. */
const render = ({ column, file, key, line, message }: ConfigIssue): string => {
  const place = [file, line, column].filter((part) => part !== null).join(":")
  const head = [place, key].filter((part) => part !== "").join(" ")
  return head === "" ? message : `${head}: ${message}`
}

export type Path = ReadonlyArray<PropertyKey>

/** A mistake before it is known where in the file it stands. `at` says which part of the key is to blame. */
export type Finding = {
  readonly path: Path
  readonly at: "key" | "value" | "parent"
  readonly message: string
}

/** `["resources", 0, "name"]` as `resources[0].name`. */
export const renderPath = (path: Path): string =>
  path.reduce<string>((text, part) => {
    if (typeof part === "number") return `${text}[${part}]`
    return text === "" ? masked(String(part)) : `${text}.${masked(String(part))}`
  }, "")

/** What every message says, in one order. */
export const sentence = (found: string, expected: string, remedy: string): string =>
  `${found}; expected ${expected}; ${remedy}`

/** Longest piece of the operator's own text that a message repeats. */
const MAX_QUOTED = 60

/** Hides anything that looks like a token or a key, wherever it was written by mistake. */
export const masked = (text: string): string =>
  text
    .replaceAll(/[\w-]{20,}/g, (word) => /\d/.test(word) && /[a-z]/i.test(word) ? "***" : word)
    .replaceAll(/\/\/[^/@\s]*@/g, "//***@")

/** How a value is named in a message. A secret is named by its type only. */
export const describe = (value: unknown, secret: boolean): string => {
  if (value === null || value === undefined) return "nothing"
  if (Array.isArray(value)) return value.length === 0 ? "an empty list" : "a list"
  if (typeof value === "string") return secret ? "text (not shown)" : quoted(value)
  if (typeof value === "number" || typeof value === "bigint") {
    return secret
      ? "a number (not shown)"
      : `the number ${value}`
  }
  return typeof value === "boolean" ? String(value) : "a mapping"
}

const quoted = (text: string): string => {
  const shown = masked(text)
  return JSON.stringify(shown.length > MAX_QUOTED ? `${shown.slice(0, MAX_QUOTED)}…` : shown)
}

/** The closest of `known` to a mistyped `word`, or undefined when none is close. */
export const nearest = (word: string, known: ReadonlyArray<string>): string | undefined => {
  const limit = Math.max(1, Math.floor(word.length / 3))
  const ranked = known
    .map((name) => ({ name, distance: fold(name) === fold(word) ? 0 : editDistance(fold(name), fold(word)) }))
    .filter(({ distance }) => distance <= limit)
    .sort((left, right) => left.distance - right.distance)
  return ranked[0]?.name
}

const fold = (word: string): string => word.slice(0, 64).toLowerCase().replaceAll(/[-_\s]/g, "")

/** Levenshtein's distance, with a swap of two neighbours counted as one edit. */
const editDistance = (left: string, right: string): number => {
  let before: Array<number> = []
  let above = Array.from({ length: right.length + 1 }, (_, column) => column)
  for (let row = 1; row <= left.length; row++) {
    const current = [row]
    for (let column = 1; column <= right.length; column++) {
      const same = left[row - 1] === right[column - 1]
      const edits = [
        (above[column] ?? 0) + 1,
        (current[column - 1] ?? 0) + 1,
        (above[column - 1] ?? 0) + (same ? 0 : 1)
      ]
      if (row > 1 && column > 1 && left[row - 1] === right[column - 2] && left[row - 2] === right[column - 1]) {
        edits.push((before[column - 2] ?? 0) + 1)
      }
      current.push(Math.min(...edits))
    }
    before = above
    above = current
  }
  return above[right.length] ?? 0
}
