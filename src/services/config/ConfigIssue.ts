/** One mistake in a configuration, and the error that contains all of them. */
import { Schema } from "effect"

/** One mistake and its place. */
export const ConfigIssue = Schema.Struct({
  /**
   * The file's name as the operator wrote it. `null` if the configuration is an object instead of a
   * file.
   */
  file: Schema.NullOr(Schema.String),
  /** Starts at 1. `null` if there is no file, or if it cannot be read. */
  line: Schema.NullOr(Schema.Int),
  /** Starts at 1, in UTF-16 units. `null` under the same conditions as `line`. */
  column: Schema.NullOr(Schema.Int),
  /** The key, such as `resources[0].tcp[1]`. Empty for the file as a whole. */
  key: Schema.String,
  /** Says what was found, what was expected and what to do. Contains no secret. */
  message: Schema.String
})
export type ConfigIssue = typeof ConfigIssue.Type

/**
 * Error when the configuration cannot be used. Nothing was started. `message` has one line for each
 * mistake.
 */
export class ConfigError extends Schema.TaggedError<ConfigError>()("ConfigError", {
  issues: Schema.Array(ConfigIssue)
}) {
  override get message(): string {
    return this.issues.map(render).join("\n")
  }
}

/** Formats an issue as `file:line:col key: message`, without the parts that are not known. */
const render = ({ column, file, key, line, message }: ConfigIssue): string => {
  const place = [file, line, column].filter((part) => part !== null).join(":")
  const head = [place, key].filter((part) => part !== "").join(" ")
  return head === "" ? message : `${head}: ${message}`
}

/** Keys and list indexes from the top of a configuration to a value. */
export type Path = ReadonlyArray<PropertyKey>

/** A mistake whose place in the file is not known yet. `at` says which part of the key is wrong. */
export type Finding = {
  readonly path: Path
  readonly at: "key" | "value" | "parent"
  readonly message: string
}

/** Writes a path such as `["resources", 0, "name"]` as `resources[0].name`. */
export const renderPath = (path: Path): string =>
  path.reduce<string>((text, part) => {
    if (typeof part === "number") return `${text}[${part}]`
    return text === "" ? masked(String(part)) : `${text}.${masked(String(part))}`
  }, "")

/** Builds a message. Every message has the same parts in the same order. */
export const sentence = (found: string, expected: string, remedy: string): string =>
  `${found}; expected ${expected}; ${remedy}`

/** Longest piece of the operator's text that a message repeats, in characters. */
const MAX_QUOTED = 60

/**
 * Hides everything that looks like a token, a key or a login, in case it was written in the wrong
 * place.
 */
export const masked = (text: string): string =>
  text
    .replaceAll(/[\w-]{20,}/g, (word) => /\d/.test(word) && /[a-z]/i.test(word) ? "***" : word)
    .replaceAll(/\/\/[^/@\s]*@/g, "//***@")

/**
 * Describes a value in a message. If the value is a secret, the description names only its type.
 */
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

/**
 * Returns the name in `known` that is closest to a mistyped `word`, or `undefined` if none is
 * close.
 */
export const nearest = (word: string, known: ReadonlyArray<string>): string | undefined => {
  const limit = Math.max(1, Math.floor(word.length / 3))
  const ranked = known
    .map((name) => ({ name, distance: fold(name) === fold(word) ? 0 : editDistance(fold(name), fold(word)) }))
    .filter(({ distance }) => distance <= limit)
    .sort((left, right) => left.distance - right.distance)
  return ranked[0]?.name
}

const fold = (word: string): string => word.slice(0, 64).toLowerCase().replaceAll(/[-_\s]/g, "")

/** Levenshtein distance, with a swap of two neighbouring letters counted as one edit. */
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
