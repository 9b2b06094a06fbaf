/** The key that everybody in a network trusts: signs memberships, grants, credentials and tickets, and how a node verifies them. */
import { Context, Effect, type Either, Layer } from "effect"
import { join } from "node:path"
import * as Documents from "../protocol/Documents.ts"
import { type NodeKey, toBytes } from "../protocol/NodeKey.ts"
import { MAX_PAYLOAD_BYTES, type Signed, signedBytes } from "../protocol/Signed.ts"
import * as Crypto from "./Crypto.ts"
import * as DirectoryClock from "./DirectoryClock.ts"
import * as Keys from "./Keys.ts"

export const AUTHORITY_KEY_FILE = "authority.key"

type GrantFields = Omit<Documents.Grant, "id" | "issuedAt" | "expiresAt">

export class Authority extends Context.Tag("sallyport/services/Authority")<Authority, {
  /** What nodes pin. */
  readonly key: NodeKey
  readonly membership: (fields: Omit<Documents.Membership, "issuedAt">) => Effect.Effect<Signed>
  /**
   * Lasts `MAX_GRANT_SECONDS`. Resources that no longer fit are left out from the end, so the one that was asked for goes
   * first. Gives the id for logs and the expiry for renewal, too.
   */
  readonly grant: (
    fields: GrantFields
  ) => Effect.Effect<{ readonly signed: Signed; readonly id: string; readonly expiresAt: number }>
  /** Lasts `MAX_CREDENTIAL_SECONDS`. */
  readonly credential: (nodeKey: NodeKey) => Effect.Effect<Signed>
  /** Lasts `MAX_TICKET_SECONDS`. */
  readonly ticket: (fields: Omit<Documents.Ticket, "expiresAt">) => Effect.Effect<Signed>
}>() {}

/** A grant's id begins with its time in as many hex digits, so that of two grants the later one has the greater id. */
const ID_TIME_DIGITS = 12

export const make = (key: Keys.SigningKey): typeof Authority.Service => {
  let lastGrantAt = 0 // epoch ms; moved on by one where two grants fall into one millisecond
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

/** The key must be there: `RelayKeys` makes it, once. */
export const layer = (options: { readonly stateDir: string }): Layer.Layer<Authority, Keys.KeyFileError> =>
  Layer.effect(Authority, Effect.map(Keys.load(join(options.stateDir, AUTHORITY_KEY_FILE)), make))

/** Whether the authority signed this document, and for now. `now`: epoch seconds, by the relay's clock where it is known. */
export const verify = <K extends Documents.Kind>(
  kind: K,
  signed: Signed,
  authorityKey: NodeKey,
  now: number
): Either.Either<Documents.Documents[K], Documents.Rejected> => {
  const raw = toBytes(authorityKey)
  return Documents.open(kind, signed, (message, signature) => Crypto.verify(raw, message, signature), now)
}

/** Names for a new session: public, unique, and tags that nobody can guess. */
export const newSession: Effect.Effect<Pick<Documents.Ticket, "session" | "clientTag" | "connectorTag">> = Effect.sync(
  () => {
    const clientTag = newTag("")
    return { session: Crypto.randomHex(16), clientTag, connectorTag: newTag(clientTag) }
  }
)

const newTag = (other: string): string => {
  const tag = Crypto.randomHex(6)
  return tag === other || /^0*$/.test(tag) ? newTag(other) : tag
}

const fitting = (grant: Documents.Grant): Documents.Grant => {
  let resources = grant.resources
  while (resources.length > 1 && Documents.encode("grant", { ...grant, resources }).length > MAX_PAYLOAD_BYTES) {
    resources = resources.slice(0, Math.floor(resources.length * 0.9))
  }
  return { ...grant, resources }
}
