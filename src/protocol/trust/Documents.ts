/**
 * Documents that the authority signs, and how they are read: first the signature is checked, then
 * the text, then the times. All times are epoch seconds. A field that this version does not know is
 * refused, because it could be a restriction. New fields need another version in
 * `Signed.signedBytes`.
 */
import { DateTime, Either, Schema } from "effect"
import * as HostName from "../bytes/HostName.ts"
import { LIFETIMES } from "./Lifetimes.ts"
import { NodeKey } from "./NodeKey.ts"
import { MAX_PAYLOAD_BYTES, type Signed, signedBytes } from "./Signed.ts"

/**
 * How long before its beginning and after its end a document is still accepted, in seconds. A
 * node's estimate of the directory's time may be wrong by this much.
 */
export const LEEWAY_SECONDS = 10
/**
 * Longest life of a grant, in seconds. A connector that is cut off from the relay cannot miss a
 * revocation for longer.
 */
export const MAX_GRANT_SECONDS = LIFETIMES.grant
/** Longest life of an outage permit, in seconds. */
export const MAX_OUTAGE_SECONDS = LIFETIMES.outage
/** Longest life of a relay credential, in seconds. */
export const MAX_CREDENTIAL_SECONDS = LIFETIMES.credential
/** Longest life of a ticket, in seconds. */
export const MAX_TICKET_SECONDS = LIFETIMES.ticket

/** Name of a node, a network or a resource, as `HostName.normalize` gives it. */
export const Name = Schema.String.pipe(
  Schema.filter((text) =>
    HostName.isNormal(text) || "expected a name such as office-1, db_1 or web.corp, in lower case"
  )
)
/** Last moment that JavaScript's `Date` can show. */
const LATEST_DATE_SECONDS = 8.64e12
const Seconds = Schema.Int.pipe(Schema.between(0, LATEST_DATE_SECONDS))
const Port = Schema.Int.pipe(Schema.between(1, 65_535))
const hex = (digits: number) => Schema.String.pipe(Schema.pattern(new RegExp(`^[0-9a-f]{${digits}}$`)))

/** A range of ports. Both ends are included. */
export const PortRange = Schema.Struct({ from: Port, to: Port }).pipe(
  Schema.filter(({ from, to }) => from <= to || "the first port is above the last")
)
export type PortRange = typeof PortRange.Type

/** A named private target. */
export const Resource = Schema.Struct({
  name: Name,
  /** Network whose connectors reach the resource. */
  network: Name,
  /**
   * A host name or IP address, which the connector resolves; or a pattern such as `*.example.com`;
   * or a CIDR block such as `10.1.0.0/16`.
   */
  address: Schema.NonEmptyString.pipe(Schema.maxLength(255)),
  /** Permitted TCP ports. */
  tcp: Schema.Array(PortRange),
  /** Permitted UDP ports. */
  udp: Schema.Array(PortRange),
  /** Whether the address may resolve to the connector's own loopback addresses. */
  allowLoopback: Schema.Boolean
})
export type Resource = typeof Resource.Type

/**
 * Role of a node. A relay is a node only if it has joined another relay, which holds the directory.
 */
export const NodeRole = Schema.Literal("client", "connector", "relay")
export type NodeRole = typeof NodeRole.Type

/**
 * States the name, role and network of a node key. It does not expire, because the directory is
 * asked again at every connection.
 */
export const Membership = Schema.Struct({
  nodeKey: NodeKey,
  name: Name,
  role: NodeRole,
  /** Network of a connector. `null` for the other roles, which belong to none. */
  network: Schema.NullOr(Name),
  issuedAt: Seconds
})
export type Membership = typeof Membership.Type

/** Permits this client to reach these resources through this connector. */
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

/**
 * Outage permit: a grant counts until `expiresAt` for a node that reaches no directory. It is a
 * document of its own because earlier versions refuse a grant with an unknown field.
 */
export const Outage = Schema.Struct({
  /** The id of the grant. */
  grant: Grant.from.fields.id,
  expiresAt: Seconds
})
export type Outage = typeof Outage.Type

/** Permits this node to bind at a relay's UDP port. */
export const Credential = Schema.Struct({ nodeKey: NodeKey, expiresAt: Seconds })
export type Credential = typeof Credential.Type

/** Permits these two nodes to exchange frames at a relay. Each sends with its own tag. */
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

/** Documents by their kind. */
export interface Documents {
  readonly membership: Membership
  readonly grant: Grant
  readonly outage: Outage
  readonly credential: Credential
  readonly ticket: Ticket
}
/** Kind of a document, as its signature covers it. */
export type Kind = keyof Documents

/** Reason why a document is not accepted. `forged`: it is not signed by the pinned authority. */
export interface Rejected {
  readonly _tag: "Rejected"
  readonly kind: Kind
  readonly reason: "forged" | "malformed" | "expired" | "not_yet_valid" | "too_long_lived"
  /** Text for people. It contains nothing of the document. */
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
  outage: codec(Outage),
  credential: codec(Credential),
  ticket: codec(Ticket)
}

/**
 * Encodes the payload to sign. Throws a `ParseError` for a document that breaks its own rules,
 * which is the issuer's mistake.
 */
export const encode = <K extends Kind>(kind: K, document: Documents[K]): Uint8Array =>
  new TextEncoder().encode(JSON.stringify(codecs[kind].encode(document)))

/** Decodes a payload whose signature has been verified. `open` does both. */
export const decode = <K extends Kind>(kind: K, payload: Uint8Array): Either.Either<Documents[K], Rejected> => {
  if (payload.length > MAX_PAYLOAD_BYTES) return reject(kind, "malformed", "is too long")
  const json = parseJson(payload)
  if (json === undefined) return reject(kind, "malformed", "is not JSON in UTF-8")
  const document = codecs[kind].decode(json)
  return Either.isRight(document)
    ? Either.right(document.right)
    : reject(kind, "malformed", "has missing, unknown or wrong fields; its maker has another version")
}

/**
 * Verifies a document, decodes it, and checks its times. `verify` returns whether the authority
 * signed these bytes. A document that has expired is accepted for `graceSeconds` longer.
 */
export const open = <K extends Kind>(
  kind: K,
  signed: Signed,
  verify: (message: Uint8Array, signature: Uint8Array) => boolean,
  nowSeconds: number,
  graceSeconds = 0
): Either.Either<Documents[K], Rejected> => {
  if (signed.payload.length > MAX_PAYLOAD_BYTES) return reject(kind, "malformed", "is too long")
  if (!verify(signedBytes(kind, signed.payload), signed.signature)) {
    return reject(kind, "forged", "is not signed by this network's authority")
  }
  return Either.flatMap(decode(kind, signed.payload), (document) => {
    const found = kind === "membership" ? null : timing(document, MAX_SECONDS[kind], nowSeconds)
    const isInGrace = found === "expired" &&
      timing(document, MAX_SECONDS[kind], nowSeconds - graceSeconds) !== "expired"
    const untimely = isInGrace ? null : found
    return untimely === null
      ? Either.right(document)
      : reject(kind, untimely, untimelyText(untimely, document, nowSeconds))
  })
}

const MAX_SECONDS: { readonly [K in Kind]: number } = {
  membership: Infinity, // its time is for people only
  grant: MAX_GRANT_SECONDS,
  outage: MAX_OUTAGE_SECONDS,
  credential: MAX_CREDENTIAL_SECONDS,
  ticket: MAX_TICKET_SECONDS
}
const TIMING = {
  expired: "has expired",
  not_yet_valid: "is from the future",
  too_long_lived: "would last longer than is allowed"
}
interface Times {
  readonly issuedAt?: number
  readonly expiresAt?: number
}

/**
 * Text about a document's times. It contains both times, so that a reader sees how far apart they
 * are.
 */
const untimelyText = (untimely: keyof typeof TIMING, { expiresAt, issuedAt }: Times, nowSeconds: number): string => {
  const at = (seconds: number) => DateTime.formatIso(DateTime.unsafeMake(seconds * 1000)).replace(".000", "")
  // Other numbers are not dates, and neither is NaN.
  const inRange = (seconds: number) => Math.abs(seconds) <= LATEST_DATE_SECONDS
  if (!inRange(nowSeconds)) return "cannot be checked: the directory's time is not known yet"
  const span = [
    issuedAt === undefined ? "" : ` from ${at(issuedAt)}`,
    expiresAt === undefined ? "" : ` until ${at(expiresAt)}`
  ]
  return `${TIMING[untimely]}: it is valid${span.join("")}, and the directory's time is ${at(nowSeconds)}`
}

/**
 * Returns what is wrong with a document's times, or `null` if the document is valid now, within the
 * leeway.
 */
export const timing = (
  document: Times,
  maxSeconds: number,
  nowSeconds: number
): keyof typeof TIMING | null => {
  const { expiresAt, issuedAt } = document
  // Written so that a time that is not a number passes no check.
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
