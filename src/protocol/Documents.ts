/**
 * What the authority signs, and how it is read back: signature first, then the text, then the times. All times are epoch
 * seconds. A field that this version does not know is refused, because it could be a restriction; other fields need another
 * version in `Signed.signedBytes`.
 */
import { DateTime, Either, Schema } from "effect"
import * as HostName from "./HostName.ts"
import { LIFETIMES } from "./Lifetimes.ts"
import { NodeKey } from "./NodeKey.ts"
import { MAX_PAYLOAD_BYTES, type Signed, signedBytes } from "./Signed.ts"

/** How far a judge's estimate of the directory's time may be off, seconds, before it refuses a document wrongly. */
export const LEEWAY_SECONDS = 10
/** The longest that a revocation can stay unnoticed by a connector that is cut off. */
export const MAX_GRANT_SECONDS = LIFETIMES.grant
export const MAX_CREDENTIAL_SECONDS = LIFETIMES.credential
export const MAX_TICKET_SECONDS = LIFETIMES.ticket

/** Name of a node, a network or a resource, as `HostName.normalize` gives it. */
export const Name = Schema.String.pipe(
  Schema.filter((text) =>
    HostName.isNormal(text) || "expected a name such as office-1, db_1 or web.corp, in lower case"
  )
)
/** The last moment that JavaScript's `Date` can show. */
const LATEST_DATE_SECONDS = 8.64e12
const Seconds = Schema.Int.pipe(Schema.between(0, LATEST_DATE_SECONDS))
const Port = Schema.Int.pipe(Schema.between(1, 65_535))
const hex = (digits: number) => Schema.String.pipe(Schema.pattern(new RegExp(`^[0-9a-f]{${digits}}$`)))

/** Both ends are included. */
export const PortRange = Schema.Struct({ from: Port, to: Port }).pipe(
  Schema.filter(({ from, to }) => from <= to || "the first port is above the last")
)
export type PortRange = typeof PortRange.Type

export const Resource = Schema.Struct({
  name: Name,
  /** The connectors of this network reach it. */
  network: Name,
  /** A host name or IP address, resolved at the connector; or `*.example.com`; or a CIDR such as `10.1.0.0/16`. */
  address: Schema.NonEmptyString.pipe(Schema.maxLength(255)),
  tcp: Schema.Array(PortRange),
  udp: Schema.Array(PortRange),
  /** Whether it may resolve to the connector's own loopback addresses. */
  allowLoopback: Schema.Boolean
})
export type Resource = typeof Resource.Type

/** A relay is one only where it has joined another, which holds the directory. */
export const NodeRole = Schema.Literal("client", "connector", "relay")
export type NodeRole = typeof NodeRole.Type

/** This key is that node. It does not expire: the directory is asked again at every connection. */
export const Membership = Schema.Struct({
  nodeKey: NodeKey,
  name: Name,
  role: NodeRole,
  /** Null but for a connector: others belong to none. */
  network: Schema.NullOr(Name),
  issuedAt: Seconds
})
export type Membership = typeof Membership.Type

/** This client may reach these resources through this connector. */
export const Grant = Schema.Struct({
  id: Schema.NonEmptyString.pipe(Schema.maxLength(64)),
  clientKey: NodeKey,
  clientName: Name,
  connectorKey: NodeKey,
  connectorName: Name,
  resources: Schema.Array(Resource),
  issuedAt: Seconds,
  expiresAt: Seconds
}).pipe(
  Schema.filter(({ expiresAt, issuedAt }) =>
    (expiresAt > issuedAt && expiresAt - issuedAt <= MAX_GRANT_SECONDS) ||
    `a grant lasts 1 to ${MAX_GRANT_SECONDS} s`
  )
)
export type Grant = typeof Grant.Type

/** This node may bind at a relay's UDP port. */
export const Credential = Schema.Struct({ nodeKey: NodeKey, expiresAt: Seconds })
export type Credential = typeof Credential.Type

/** These two nodes may exchange frames at a relay; each sends with its own tag. */
export const Ticket = Schema.Struct({
  session: hex(32),
  clientKey: NodeKey,
  connectorKey: NodeKey,
  clientTag: hex(12),
  connectorTag: hex(12),
  expiresAt: Seconds
}).pipe(
  Schema.filter(({ clientTag, connectorTag }) =>
    (clientTag !== connectorTag && !/^0*$/.test(clientTag) && !/^0*$/.test(connectorTag)) ||
    "tags differ and are not zero"
  )
)
export type Ticket = typeof Ticket.Type

export interface Documents {
  readonly membership: Membership
  readonly grant: Grant
  readonly credential: Credential
  readonly ticket: Ticket
}
export type Kind = keyof Documents

/** Why a document is worth nothing. `forged`: not signed by the authority that is pinned. */
export interface Rejected {
  readonly _tag: "Rejected"
  readonly kind: Kind
  readonly reason: "forged" | "malformed" | "expired" | "not_yet_valid" | "too_long_lived"
  /** For people; holds nothing of the document. */
  readonly message: string
}

interface Codec<A> {
  readonly decode: (json: unknown) => Either.Either<A, unknown>
  readonly encode: (document: A) => unknown
}
const codec = <A, I>(schema: Schema.Schema<A, I>): Codec<A> => ({
  decode: Schema.decodeUnknownEither(schema, { onExcessProperty: "error" }),
  encode: Schema.encodeSync(schema)
})
const codecs: { readonly [K in Kind]: Codec<Documents[K]> } = {
  membership: codec(Membership),
  grant: codec(Grant),
  credential: codec(Credential),
  ticket: codec(Ticket)
}

/** The payload to sign. Throws a ParseError for a document that breaks its own rules: the issuer's mistake. */
export const encode = <K extends Kind>(kind: K, document: Documents[K]): Uint8Array =>
  new TextEncoder().encode(JSON.stringify(codecs[kind].encode(document)))

/** Reads a payload whose signature is already verified; `open` does both. */
export const decode = <K extends Kind>(kind: K, payload: Uint8Array): Either.Either<Documents[K], Rejected> => {
  if (payload.length > MAX_PAYLOAD_BYTES) return reject(kind, "malformed", "is too long")
  const json = parseJson(payload)
  if (json === undefined) return reject(kind, "malformed", "is not JSON in UTF-8")
  const document = codecs[kind].decode(json)
  return Either.isRight(document)
    ? Either.right(document.right)
    : reject(kind, "malformed", "has missing, unknown or wrong fields; its maker has another version")
}

/** Verifies, reads, and checks the times. `verify` answers whether the authority signed these bytes. */
export const open = <K extends Kind>(
  kind: K,
  signed: Signed,
  verify: (message: Uint8Array, signature: Uint8Array) => boolean,
  nowSeconds: number
): Either.Either<Documents[K], Rejected> => {
  if (signed.payload.length > MAX_PAYLOAD_BYTES) return reject(kind, "malformed", "is too long")
  if (!verify(signedBytes(kind, signed.payload), signed.signature)) {
    return reject(kind, "forged", "is not signed by this network's authority")
  }
  return Either.flatMap(decode(kind, signed.payload), (document) => {
    const untimely = kind === "membership" ? null : timing(document, MAX_SECONDS[kind], nowSeconds)
    return untimely === null
      ? Either.right(document)
      : reject(kind, untimely, untimelyText(untimely, document, nowSeconds))
  })
}

const MAX_SECONDS: { readonly [K in Kind]: number } = {
  membership: Infinity, // its time is for people
  grant: MAX_GRANT_SECONDS,
  credential: MAX_CREDENTIAL_SECONDS,
  ticket: MAX_TICKET_SECONDS
}
const TIMING = {
  expired: "has expired",
  not_yet_valid: "is from the future",
  too_long_lived: "would last longer than its kind may"
}
interface Times {
  readonly issuedAt?: number
  readonly expiresAt?: number
}

/** With both times, so that a reader sees how far apart they are. */
const untimelyText = (untimely: keyof typeof TIMING, { expiresAt, issuedAt }: Times, nowSeconds: number): string => {
  const at = (seconds: number) => DateTime.formatIso(DateTime.unsafeMake(seconds * 1000)).replace(".000", "")
  const inRange = (seconds: number) => Math.abs(seconds) <= LATEST_DATE_SECONDS // others are no dates; NaN is not, either
  if (!inRange(nowSeconds)) return "cannot be judged: the directory's time is not known yet"
  const span = [
    issuedAt === undefined ? "" : ` from ${at(issuedAt)}`,
    expiresAt === undefined ? "" : ` until ${at(expiresAt)}`
  ]
  return `${TIMING[untimely]}: it is valid${span.join("")}, and the directory's time is ${at(nowSeconds)}`
}

/** Null: valid now, within the leeway. */
export const timing = (
  document: Times,
  maxSeconds: number,
  nowSeconds: number
): keyof typeof TIMING | null => {
  const { expiresAt, issuedAt } = document
  // Written so that a time which is no number passes nothing.
  if (expiresAt !== undefined && !(nowSeconds < expiresAt + LEEWAY_SECONDS)) return "expired"
  if (issuedAt !== undefined && !(issuedAt <= nowSeconds + LEEWAY_SECONDS)) return "not_yet_valid"
  if (expiresAt !== undefined && !(expiresAt <= nowSeconds + maxSeconds + LEEWAY_SECONDS)) return "too_long_lived"
  return null
}

const reject = (kind: Kind, reason: Rejected["reason"], problem: string) =>
  Either.left<Rejected>({ _tag: "Rejected", kind, reason, message: `this ${kind} ${problem}` })

const parseJson = (bytes: Uint8Array): unknown => {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes))
  } catch {
    return undefined
  }
}
