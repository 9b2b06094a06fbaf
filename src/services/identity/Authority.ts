/**
 * The key that everybody in a network trusts. It signs memberships, grants, outage permits,
 * credentials and tickets; nodes verify them with the functions here.
 */
import { Context, Effect, type Either, Layer } from "effect"
import { join } from "node:path"
import * as Documents from "../../protocol/trust/Documents.ts"
import { type NodeKey, toBytes } from "../../protocol/trust/NodeKey.ts"
import { MAX_PAYLOAD_BYTES, type Signed, signedBytes } from "../../protocol/trust/Signed.ts"
import * as Crypto from "../host/Crypto.ts"
import * as DirectoryClock from "./DirectoryClock.ts"
import * as Keys from "./Keys.ts"

/** Name of the authority's key file in a relay's state directory. */
export const AUTHORITY_KEY_FILE = "authority.key"

type GrantFields = Omit<Documents.Grant, "id" | "issuedAt" | "expiresAt">

/** Signs documents with the authority's key. */
export class Authority extends Context.Tag("sallyport/services/Authority")<Authority, {
  /** The public key that nodes pin. */
  readonly key: NodeKey
  readonly membership: (fields: Omit<Documents.Membership, "issuedAt">) => Effect.Effect<Signed>
  /**
   * Signs a grant for `MAX_GRANT_SECONDS`. Resources that do not fit into a document are dropped
   * from the end, so the requested one must be the first. Also returns the id, for logs, and the
   * expiry, for renewal.
   */
  readonly grant: (
    fields: GrantFields
  ) => Effect.Effect<{ readonly signed: Signed; readonly id: string; readonly expiresAt: number }>
  /** Signs an outage permit for the grant of this id, for `MAX_OUTAGE_SECONDS`. */
  readonly outage: (grant: string) => Effect.Effect<Signed>
  /** Signs a relay credential for `MAX_CREDENTIAL_SECONDS`. */
  readonly credential: (nodeKey: NodeKey) => Effect.Effect<Signed>
  /** Signs a ticket for `MAX_TICKET_SECONDS`. */
  readonly ticket: (fields: Omit<Documents.Ticket, "expiresAt">) => Effect.Effect<Signed>
}>() {}

/**
 * Number of hex digits of time at the start of a grant's id. The later of two grants therefore has
 * the greater id.
 */
const ID_TIME_DIGITS = 12

export const make = (key: Keys.SigningKey): typeof Authority.Service => {
  let lastGrantAt = 0 // epoch ms; counted up by one if two grants fall into the same millisecond
  const sign = <K extends Documents.Kind>(kind: K, document: Documents.Documents[K]): Signed => {
    const payload = Documents.encode(kind, document)
    return { payload, signature: Crypto.sign(key.privateKey, signedBytes(kind, payload)) }
  }
  return {
    key: key.publicKey,
    membership: (fields) =>
      Effect.map(DirectoryClock.nowSeconds, (issuedAt) => sign("membership", { ...fields, issuedAt })),
    grant: (fields) =>
      Effect.map(DirectoryClock.nowMs, (now) => {
        lastGrantAt = Math.max(now, lastGrantAt + 1)
        const issuedAt = Math.floor(now / 1000)
        const id = `${lastGrantAt.toString(16).padStart(ID_TIME_DIGITS, "0")}${Crypto.randomHex(10)}`
        const expiresAt = issuedAt + Documents.MAX_GRANT_SECONDS
        return { signed: sign("grant", fitting({ ...fields, id, issuedAt, expiresAt })), id, expiresAt }
      }),
    outage: (grant) =>
      Effect.map(
        DirectoryClock.nowSeconds,
        (now) => sign("outage", { grant, expiresAt: now + Documents.MAX_OUTAGE_SECONDS })
      ),
    credential: (nodeKey) =>
      Effect.map(
        DirectoryClock.nowSeconds,
        (now) => sign("credential", { nodeKey, expiresAt: now + Documents.MAX_CREDENTIAL_SECONDS })
      ),
    ticket: (fields) =>
      Effect.map(
        DirectoryClock.nowSeconds,
        (now) => sign("ticket", { ...fields, expiresAt: now + Documents.MAX_TICKET_SECONDS })
      )
  }
}

/**
 * Loads the authority's key, which `RelayKeys` has created. Fails with `missing` if there is none.
 */
export const layer = (options: { readonly stateDir: string }): Layer.Layer<Authority, Keys.KeyFileError> =>
  Layer.effect(Authority, Effect.map(Keys.load(join(options.stateDir, AUTHORITY_KEY_FILE)), make))

/**
 * Opens a document if the authority signed it and it is valid at `now`. `now` is in epoch seconds,
 * of the directory's time where that is known. A document that has expired is accepted for
 * `graceSeconds` longer.
 */
export const verify = <K extends Documents.Kind>(
  kind: K,
  signed: Signed,
  authorityKey: NodeKey,
  now: number,
  graceSeconds = 0
): Either.Either<Documents.Documents[K], Documents.Rejected> => {
  const raw = toBytes(authorityKey)
  return Documents.open(kind, signed, (message, signature) => Crypto.verify(raw, message, signature), now, graceSeconds)
}

/** Creates the names of a new session: a public, unique id and two tags that nobody can guess. */
export const newSession: Effect.Effect<Pick<Documents.Ticket, "session" | "clientTag" | "connectorTag">> = Effect.sync(
  () => {
    const clientTag = newTag("")
    return { session: Crypto.randomHex(16), clientTag, connectorTag: newTag(clientTag) }
  }
)

/**
 * A random 48-bit tag that is not 0, which is reserved for the relay, and that differs from
 * `other`.
 */
const newTag = (other: string): string => {
  const tag = Crypto.randomHex(6)
  return tag === other || /^0*$/.test(tag) ? newTag(other) : tag
}

/** Drops resources from the end until the grant fits into a document. */
const fitting = (grant: Documents.Grant): Documents.Grant => {
  let resources = grant.resources
  while (resources.length > 1 && Documents.encode("grant", { ...grant, resources }).length > MAX_PAYLOAD_BYTES) {
    resources = resources.slice(0, Math.floor(resources.length * 0.9))
  }
  return { ...grant, resources }
}
