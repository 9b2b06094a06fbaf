/**
 * Annotations on a key's schema that say what the key expects and how to correct it. Error messages
 * use them.
 */
import { Option, Schema, type SchemaAST } from "effect"

/** The expected value of a key, and how to correct a wrong one. */
export type Hint = {
  /** Text that follows the word "expected" in a message. */
  readonly expected: string
  /** An instruction to the operator that fits both a wrong and a missing value. */
  readonly remedy: string
  /** Whether the value must never appear in a message. */
  readonly secret: boolean
}

const HintId = Symbol.for("sallyport/config/Hint")

/** Makes an annotation for a schema: `schema.annotations(Hint.make("a port", "write 443"))`. */
export const make = (expected: string, remedy: string, options?: { readonly secret: boolean }) => ({
  [HintId]: { expected, remedy, secret: options?.secret ?? false } satisfies Hint
})

/** Reads the hint of a schema, or `undefined` if it has none. */
export const of = (ast: SchemaAST.Annotated): Hint | undefined => {
  const hint = ast.annotations[HintId]
  return Option.getOrUndefined(Schema.decodeUnknownOption(HintSchema)(hint))
}

const HintSchema = Schema.Struct({ expected: Schema.String, remedy: Schema.String, secret: Schema.Boolean })
