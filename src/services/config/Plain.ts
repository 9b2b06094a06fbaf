/** Copies a value that an embedder passed, so that it is as plain as a value from a YAML file. */
import { Either, Redacted } from "effect"
import { type Finding, type Path, sentence } from "./ConfigIssue.ts"

/**
 * Deepest nesting that is accepted. A configuration has five levels, so anything deeper is a
 * mistake or refers to itself.
 */
const MAX_DEPTH = 16

/**
 * Copies lists and mappings, leaves out keys with `undefined`, and keeps redacted texts. Fails with
 * the findings if the value cannot be copied.
 */
export const plain = (value: unknown): Either.Either<unknown, ReadonlyArray<Finding>> =>
  Either.try({
    try: () => copy(value, []),
    catch: (cause) => [{
      path: cause instanceof TooDeep ? cause.path.slice(0, 4) : [],
      at: "value",
      message: sentence(
        cause instanceof TooDeep ? "found a value nested too deeply" : "found a value that cannot be read",
        "plain text, numbers, true or false, lists and mappings",
        "pass the keys of a configuration file as a plain object"
      )
    }]
  })

class TooDeep extends Error {
  readonly path: Path
  constructor(path: Path) {
    super("too deep")
    this.path = path
  }
}

const copy = (value: unknown, path: Path): unknown => {
  if (typeof value !== "object" || value === null || Redacted.isRedacted(value)) return value
  if (path.length >= MAX_DEPTH) throw new TooDeep(path)
  if (Array.isArray(value)) return value.map((item, index) => copy(item, [...path, index]))
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, inner]) => inner === undefined ? [] : [[key, copy(inner, [...path, key])]])
  )
}
