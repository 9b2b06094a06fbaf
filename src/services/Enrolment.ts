/** What a node remembers of its enrolment: where its relay is, whom it trusts, and its own membership. File `enrolment.json`. */
import { Context, Effect, Either, Option, Schema } from "effect"
import { join } from "node:path"
import type { Membership } from "../protocol/Documents.ts"
import type { EnrolmentToken, RelayTrust } from "../protocol/EnrolmentToken.ts"
import { NodeKey } from "../protocol/NodeKey.ts"
import { type Signed, SignedText } from "../protocol/Signed.ts"
import * as Authority from "./Authority.ts"
import * as StateFile from "./StateFile.ts"

/** Where the relay is, and what this node trusts; a token says it before the first connection. */
export interface Relay {
  readonly host: string
  readonly httpsPort: number
  readonly tls: RelayTrust
  readonly authorityKey: NodeKey
}

export interface Enrolled {
  readonly relay: Relay
  readonly signed: Signed
  readonly membership: Membership
}

/** `damaged`: the file cannot be read as one. `foreign`: it is of another node key, or not signed by its own authority. */
export class EnrolmentError extends Schema.TaggedError<EnrolmentError>()("EnrolmentError", {
  path: Schema.String,
  reason: Schema.Literal("damaged", "foreign", "unusable"),
  message: Schema.String
}) {}

export class Enrolment extends Context.Tag("sallyport/services/Enrolment")<Enrolment, {
  /** None: this node has not enrolled yet. The membership is verified, and is that of `nodeKey`. */
  readonly load: (nodeKey: NodeKey) => Effect.Effect<Option.Option<Enrolled>, EnrolmentError>
  /** Verified likewise before it is written: what comes from the relay is not believed. */
  readonly save: (nodeKey: NodeKey, relay: Relay, signed: Signed) => Effect.Effect<Enrolled, EnrolmentError>
}>() {}

export const ENROLMENT_FILE = "enrolment.json"

export const relayOf = ({ authorityKey, host, httpsPort, tls }: EnrolmentToken): Relay => ({
  host,
  httpsPort,
  tls,
  authorityKey
})

const File = Schema.parseJson(Schema.Struct({
  version: Schema.Literal(1),
  host: Schema.NonEmptyString.pipe(Schema.maxLength(255)),
  httpsPort: Schema.Int.pipe(Schema.between(1, 65_535)),
  tls: Schema.Union(
    Schema.TaggedStruct("Pin", { key: NodeKey }),
    Schema.TaggedStruct("Ca", {}),
    Schema.TaggedStruct("Proxied", {})
  ),
  authorityKey: NodeKey,
  membership: SignedText
}))

export const make = (stateDir: string): typeof Enrolment.Service => {
  const path = join(stateDir, ENROLMENT_FILE)
  const fail = (reason: EnrolmentError["reason"], message: string) => new EnrolmentError({ path, reason, message })
  const damaged = () =>
    fail("damaged", `${path} is damaged; restore it from a backup, or remove it and enrol with a new token`)
  const unusable = ({ message }: StateFile.StateFileError) => fail("unusable", message)

  const verified = (nodeKey: NodeKey, relay: Relay, signed: Signed): Either.Either<Enrolled, EnrolmentError> => {
    const opened = Authority.verify("membership", signed, relay.authorityKey, 0)
    if (Either.isLeft(opened)) {
      return Either.left(fail(
        "foreign",
        `${opened.left.message}, the one of ${path} or of the token; enrol with a token from the right relay`
      ))
    }
    return opened.right.nodeKey === nodeKey
      ? Either.right({ relay, signed, membership: opened.right })
      : Either.left(fail(
        "foreign",
        `${path} belongs to another node key than node.key beside it; restore both from one backup, or remove both and enrol with a new token`
      ))
  }

  return {
    load: Effect.fnUntraced(function*(nodeKey: NodeKey) {
      const found = yield* Effect.mapError(StateFile.read(path), unusable)
      if (Option.isNone(found)) return Option.none()
      const { membership, version: _, ...relay } = yield* Either.mapLeft(
        Schema.decodeUnknownEither(File)(found.value.text),
        damaged
      )
      return Option.some(yield* verified(nodeKey, relay, membership))
    }),
    save: Effect.fnUntraced(function*(nodeKey: NodeKey, relay: Relay, signed: Signed) {
      const enrolled = yield* verified(nodeKey, relay, signed)
      const text = Schema.encodeSync(File)({ version: 1, ...relay, membership: signed })
      yield* Effect.mapError(StateFile.replace(path, `${text}\n`), unusable)
      return enrolled
    })
  }
}
