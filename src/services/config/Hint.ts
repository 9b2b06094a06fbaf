/** What a key expects and how to put it right, kept on its schema for the messages. */
import { Option, Schema, type SchemaAST } from "effect"

export type Hint = {
  /** Follows "expected". */
  readonly expected: string
  /** An order to the operator that fits a wrong value and a missing one. */
  readonly remedy: string
  /** True when the value may never appear in a message. */
  readonly secret: boolean
}

const HintId = Symbol.for("sallyport/config/Hint")

/** An annotation: `schema.annotations(Hint.make("a port", "write 443"))`. */
export const make = (expected: string, remedy: string, options?: { readonly secret: boolean }) => ({
  [HintId]: { expected, remedy, secret: options?.secret ?? false } satisfies Hint
})

export const of = (ast: SchemaAST.Annotated): Hint | undefined => {
  const hint = ast.annotations[HintId]
  return Option.getOrUndefined(Schema.decodeUnknownOption(HintSchema)(hint))
}

const HintSchema = Schema.Struct({ expected: Schema.String, remedy: Schema.String, secret: Schema.Boolean })
