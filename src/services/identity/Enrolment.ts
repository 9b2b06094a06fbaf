/**
 * The result of a node's enrolment, kept in `enrolment.json`: where its relay is, which keys it
 * trusts, and its own membership.
 */
import { Context, Effect, Either, Option, Schema } from "effect"
import { join } from "node:path"
import type { Membership } from "../../protocol/trust/Documents.ts"
import type { EnrolmentToken, RelayTrust } from "../../protocol/trust/EnrolmentToken.ts"
import { NodeKey } from "../../protocol/trust/NodeKey.ts"
import { type Signed, SignedText } from "../../protocol/trust/Signed.ts"
import * as StateFile from "../host/StateFile.ts"
import * as Authority from "./Authority.ts"

/**
 * A node's relay, and the keys that the node trusts. An enrolment token carries it, so the node
 * knows it before its first connection.
 */
export interface Relay {
  readonly host: string
  readonly httpsPort: number
  /** How the node authenticates the relay. */
  readonly tls: RelayTrust
  readonly authorityKey: NodeKey
}

/** A verified enrolment. */
export interface Enrolled {
  readonly relay: Relay
  readonly signed: Signed
  readonly membership: Membership
}

/**
 * Error when the stored enrolment cannot be used. `damaged`: the file is no valid enrolment.
 * `foreign`: it belongs to another node key, or its own authority did not sign it. `unusable`: the
 * system cannot read or write the file.
 */
export class EnrolmentError extends Schema.TaggedError<EnrolmentError>()("EnrolmentError", {
  path: Schema.String,
  reason: Schema.Literal("damaged", "foreign", "unusable"),
  message: Schema.String
}) {}

/** Loads and saves a node's enrolment. */
export class Enrolment extends Context.Tag("sallyport/services/Enrolment")<Enrolment, {
  /**
   * Returns the enrolment, or `None` if this node has not enrolled yet. The membership is verified
   * and belongs to `nodeKey`.
   */
  readonly load: (nodeKey: NodeKey) => Effect.Effect<Option.Option<Enrolled>, EnrolmentError>
  /**
   * Verifies the membership as `load` does, because the relay's answer is not trusted, and writes
   * the enrolment.
   */
  readonly save: (nodeKey: NodeKey, relay: Relay, signed: Signed) => Effect.Effect<Enrolled, EnrolmentError>
}>() {}

/** Name of the enrolment file in a node's state directory. */
export const ENROLMENT_FILE = "enrolment.json"

/** Returns the part of a token that describes the relay. */
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
