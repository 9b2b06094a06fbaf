/** Turns the errors of a schema into findings, one for each mistake, in words for an operator. */
import type { ParseResult, SchemaAST } from "effect"
import { describe, type Finding, masked, nearest, type Path, sentence } from "./ConfigIssue.ts"
import * as Hint from "./Hint.ts"

/** The knowledge gathered on the way down to a leaf of the error tree. */
type Context = {
  readonly path: Path
  readonly hint: Hint.Hint | undefined
  /** The keys of the mapping that contains the leaf. */
  readonly siblings: ReadonlyArray<string>
}

const NO_HINT: Hint.Hint = { expected: "another value", remedy: "see the commented examples in config/", secret: true }

/**
 * Explains an unknown top-level key that belongs to another role: what was expected, and the
 * remedy. `undefined` if no role has the key.
 */
type Elsewhere = (key: string) => readonly [expected: string, remedy: string] | undefined

/** Returns a finding for each mistake in a schema's error. */
export const explain = (
  issue: ParseResult.ParseIssue,
  elsewhere: Elsewhere
): ReadonlyArray<Finding> => walk(issue, { path: [], hint: undefined, siblings: [] }, elsewhere)

const walk = (
  issue: ParseResult.ParseIssue,
  context: Context,
  elsewhere: Elsewhere
): ReadonlyArray<Finding> => {
  switch (issue._tag) {
    case "Pointer": {
      const path = [...context.path, ...asList(issue.path)]
      return walk(issue.issue, { ...context, path, hint: undefined }, elsewhere)
    }
    case "Refinement":
    case "Transformation":
      return walk(issue.issue, { ...context, hint: Hint.of(issue.ast) ?? context.hint }, elsewhere)
    case "Composite":
      return walkComposite(issue, { ...context, hint: Hint.of(issue.ast) ?? context.hint }, elsewhere)
    case "Missing":
      return [missing(issue, context)]
    case "Unexpected":
      return [unexpected(context, elsewhere)]
    case "Type":
    case "Forbidden":
      return [wrong(issue.actual, issue.message, { ...context, hint: Hint.of(issue.ast) ?? context.hint })]
  }
}

const walkComposite = (
  issue: ParseResult.Composite,
  context: Context,
  elsewhere: Elsewhere
): ReadonlyArray<Finding> => {
  const issues = asList(issue.issues)
  if (issue.ast._tag !== "Union") {
    const siblings = keysOf(issue.ast)
    return issues.flatMap((inner) => walk(inner, { ...context, siblings, hint: undefined }, elsewhere))
  }
  // Only the union member of the right shape can say which part of the value is wrong.
  const inside = issues.filter((inner) => inner._tag === "Composite" && inner.ast._tag !== "Union")
  const [only] = inside
  return only !== undefined && inside.length === 1
    ? walk(only, context, elsewhere)
    : [wrong(issue.actual, undefined, context)]
}

const wrong = (actual: unknown, problem: string | undefined, context: Context): Finding => {
  const { expected, remedy, secret } = context.hint ?? NO_HINT
  const found = `found ${describe(actual, secret)}${problem === undefined ? "" : `, ${problem}`}`
  return { path: context.path, at: "value", message: sentence(found, expected, remedy) }
}

const missing = (issue: ParseResult.Missing, context: Context): Finding => {
  const { expected, remedy } = Hint.of(issue.ast.type) ?? NO_HINT
  return { path: context.path, at: "parent", message: sentence("the key is missing", expected, remedy) }
}

const unexpected = (context: Context, elsewhere: Elsewhere): Finding => {
  const key = String(context.path.at(-1))
  const close = nearest(key, context.siblings)
  const home = context.path.length === 1 ? elsewhere(key) : undefined
  const [expected, remedy] = home ??
    (close === undefined ? [`one of ${context.siblings.join(", ")}`, "remove it"] : [close, "correct the spelling"])
  return { path: context.path, at: "key", message: sentence(`unknown key ${masked(key)}`, expected, remedy) }
}

const keysOf = (ast: SchemaAST.AST): ReadonlyArray<string> => {
  if (ast._tag === "Transformation") return keysOf(ast.from)
  return ast._tag === "TypeLiteral" ? ast.propertySignatures.map(({ name }) => String(name)) : []
}

const asList = <A>(value: A | ReadonlyArray<A>): ReadonlyArray<A> =>
  Array.isArray(value) ? value as ReadonlyArray<A> : [value as A]
