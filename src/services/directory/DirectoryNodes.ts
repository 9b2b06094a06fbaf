/**
 * Nodes, and the tokens with which they enrol. These are functions on an open database; `Directory`
 * runs them in transactions.
 */
import type { SqlClient } from "@effect/sql"
import { Duration, Effect, Either, Encoding, Option, Redacted, Schema } from "effect"
import { Buffer } from "node:buffer"
import * as HostName from "../../protocol/bytes/HostName.ts"
import type { Membership, NodeRole } from "../../protocol/trust/Documents.ts"
import { ID_BYTES, SECRET_BYTES } from "../../protocol/trust/EnrolmentToken.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import * as Crypto from "../host/Crypto.ts"
import * as DirectoryAudit from "./DirectoryAudit.ts"
import * as DirectoryTimes from "./DirectoryTimes.ts"

/** An enrolled node. */
export interface NodeRecord {
  readonly key: NodeKey
  /** The name as it is compared and signed. */
  readonly name: string
  /** The name as the administrator wrote it. */
  readonly shown: string
  readonly role: NodeRole
  /** The network that a connector belongs to. `null` for a client. */
  readonly network: string | null
  /** When the node enrolled, in epoch seconds. */
  readonly createdAt: number
}

/** A token to create. */
export interface NewToken {
  readonly role: NodeRole
  /** The node's name as people write it. */
  readonly name: string
  readonly network: string | null
  readonly ttl: Duration.Duration
}

/** A created token. `secret` is not stored and cannot be read again. */
export interface CreatedToken {
  readonly id: string
  /** Secret part of the token. The database keeps only its hash. */
  readonly secret: Redacted.Redacted
  /** When the token expires, in epoch seconds. */
  readonly expiresAt: number
}

/** A node's request to enrol with a token. */
export interface EnrolRequest {
  readonly tokenId: string
  readonly secret: Redacted.Redacted
  /** The node's key. The caller has verified that the node holds the private key. */
  readonly nodeKey: NodeKey
  /**
   * The role that the requester claims. A token for another role is refused and stays usable.
   * `null` accepts the token's role.
   */
  readonly onlyAs: string | null
  /**
   * The name that the requester claims. A token for another name is refused and stays usable.
   * `null` accepts the token's name.
   */
  readonly onlyNamed?: string | null
}

/**
 * Error when no such token exists, or its secret differs. The two cases look the same to the
 * requester, on purpose.
 */
export class TokenUnknown extends Schema.TaggedError<TokenUnknown>()("TokenUnknown", { message: Schema.String }) {}
/** Error when the token has expired. */
export class TokenExpired extends Schema.TaggedError<TokenExpired>()("TokenExpired", { message: Schema.String }) {}
/**
 * Error when another key has used the token. If none of the operator's nodes did, the token was
 * stolen.
 */
export class TokenUsed extends Schema.TaggedError<TokenUsed>()("TokenUsed", { message: Schema.String }) {}
/** Error when another node has this name. */
export class NameTaken extends Schema.TaggedError<NameTaken>()("NameTaken", { message: Schema.String }) {}
/** Error when this key was removed. It stays refused permanently. */
export class NodeRemoved extends Schema.TaggedError<NodeRemoved>()("NodeRemoved", { message: Schema.String }) {}
/** Error when this key is enrolled already, under another name, role or network. */
export class AlreadyEnrolled extends Schema.TaggedError<AlreadyEnrolled>()("AlreadyEnrolled", {
  message: Schema.String
}) {}

/**
 * Error when the token is for another role or name than the requester claims. The token can still
 * be used.
 */
export class TokenForOther extends Schema.TaggedError<TokenForOther>()("TokenForOther", { message: Schema.String }) {}

/** All the reasons for which an enrolment is refused. */
export type EnrolError =
  | TokenUnknown
  | TokenExpired
  | TokenUsed
  | TokenForOther
  | NameTaken
  | NodeRemoved
  | AlreadyEnrolled

/** A node that was removed. */
export interface RemovedNode {
  readonly key: NodeKey
  readonly name: string
  /** When the node was removed, in epoch seconds. */
  readonly removedAt: number
}

/** Longest result of `removedSince`, in rows. */
const MAX_REMOVED = 10_000
/** Longest lifetime of a token, in seconds. It stands for "no end". */
const MAX_TTL_SECONDS = 10 * 365 * 86_400
/**
 * How long after its expiry a token is deleted, in seconds. Until then the node that used it may
 * repeat its request.
 */
const KEEP_EXPIRED_SECONDS = 30 * 86_400

/** Creates a token and deletes those that expired long ago. Fails if a node has this name. */
export const createToken = Effect.fnUntraced(function*(sql: SqlClient.SqlClient, token: NewToken) {
  const { name: written, network, role, ttl } = token
  const name = HostName.normalize(written) ?? written
  const holder = yield* findByName(sql, name)
  if (Option.isSome(holder)) return yield* nameTaken(holder.value.shown)
  const now = yield* DirectoryTimes.nowSeconds(sql)
  const id = Crypto.randomHex(ID_BYTES)
  const secret = Encoding.encodeBase64Url(Crypto.randomBytes(SECRET_BYTES))
  const expiresAt = now + Math.min(Math.max(1, Math.floor(Duration.toSeconds(ttl))), MAX_TTL_SECONDS)
  yield* sql`DELETE FROM tokens WHERE expires_at < ${now - KEEP_EXPIRED_SECONDS}`
  yield* sql`INSERT INTO tokens (id, secret_sha256, role, name, written, network, created_at, expires_at)
    VALUES (${id}, ${hashOf(secret)}, ${role}, ${name}, ${written}, ${network}, ${now}, ${expiresAt})`
  yield* DirectoryAudit.append(sql, {
    kind: "token_created",
    nodeName: name,
    nodeKey: null,
    detail: { token: id, role, network, expiresAt }
  })
  const created: CreatedToken = { id, secret: Redacted.make(secret), expiresAt }
  return created
})

/**
 * Enrols a node. A refusal is a value and not a failure, because the transaction that records it
 * must be committed.
 */
export const enrol = Effect.fnUntraced(function*(sql: SqlClient.SqlClient, request: EnrolRequest) {
  const { secret, tokenId } = request
  const token = yield* findToken(sql, tokenId, Redacted.value(secret))
  if (token === undefined) return Either.left<EnrolError>(unknownToken())
  const verdict: Either.Either<"new" | "again", EnrolError> = yield* judge(sql, token, request)
  if (Either.isLeft(verdict)) {
    yield* DirectoryAudit.append(sql, {
      kind: "enrol_refused",
      nodeName: token.name,
      nodeKey: request.nodeKey,
      detail: { token: token.id, reason: verdict.left._tag }
    })
  } else if (verdict.right === "new") {
    yield* register(sql, token, request.nodeKey)
  }
  const { name, network, role } = token
  return Either.map(verdict, (): Omit<Membership, "issuedAt"> => ({ nodeKey: request.nodeKey, name, role, network }))
})

/** Finds a node by its key. Removed nodes are not found. */
export const findByKey = (sql: SqlClient.SqlClient, key: NodeKey) =>
  Effect.map(
    sql<NodeRow>`SELECT * FROM nodes WHERE key = ${key} AND removed_at IS NULL`,
    ([row]) => Option.map(Option.fromNullable(row), fromRow)
  )

/** Lists all nodes by name, without removed ones. */
export const list = (sql: SqlClient.SqlClient) =>
  Effect.map(sql<NodeRow>`SELECT * FROM nodes WHERE removed_at IS NULL ORDER BY name`, (rows) => rows.map(fromRow))

/** Lists the nodes that were removed since `at` (epoch seconds), newest first. */
export const removedSince = (sql: SqlClient.SqlClient, at: number) =>
  Effect.map(
    sql<NodeRow & { removed_at: number }>`SELECT * FROM nodes
      WHERE removed_at >= ${at} ORDER BY removed_at DESC LIMIT ${MAX_REMOVED}`,
    (rows) => rows.map((row): RemovedNode => ({ key: row.key, name: row.name, removedAt: row.removed_at }))
  )

/**
 * Removes a node and returns it, or `None` if no node has this name. The row stays, so that its key
 * stays refused.
 */
export const remove = Effect.fnUntraced(function*(sql: SqlClient.SqlClient, written: string) {
  const name = HostName.normalize(written) ?? written
  const found = yield* findByName(sql, name)
  if (Option.isNone(found)) return found
  const { key, network, role } = found.value
  yield* sql`UPDATE nodes SET removed_at = ${yield* DirectoryTimes.nowSeconds(sql)} WHERE key = ${key}`
  yield* DirectoryAudit.append(sql, { kind: "node_removed", nodeName: name, nodeKey: key, detail: { role, network } })
  return found
})

interface NodeRow {
  readonly key: NodeKey
  readonly name: string
  readonly written: string | null
  readonly role: NodeRole
  readonly network: string | null
  readonly created_at: number
  readonly removed_at: number | null
}

interface TokenRow {
  readonly id: string
  readonly secret_sha256: string
  readonly role: NodeRole
  readonly name: string
  readonly written: string | null
  readonly network: string | null
  readonly expires_at: number
  readonly used_by: string | null
}

const fromRow = ({ created_at, key, name, network, role, written }: NodeRow): NodeRecord => ({
  key,
  name,
  shown: written ?? name,
  role,
  network,
  createdAt: created_at
})

const findByName = (sql: SqlClient.SqlClient, name: string) =>
  Effect.map(
    sql<NodeRow>`SELECT * FROM nodes WHERE name = ${name} AND removed_at IS NULL`,
    ([row]) => Option.map(Option.fromNullable(row), fromRow)
  )

const findToken = (sql: SqlClient.SqlClient, id: string, secret: string) =>
  Effect.map(
    sql<TokenRow>`SELECT * FROM tokens WHERE id = ${id}`,
    (rows) =>
      rows.find((row) => Crypto.equal(Buffer.from(row.secret_sha256, "hex"), Buffer.from(hashOf(secret), "hex")))
  )

/**
 * Decides about an enrolment. `again`: this key has already enrolled with this token, and the
 * answer was lost.
 */
const judge = Effect.fnUntraced(function*(sql: SqlClient.SqlClient, token: TokenRow, request: EnrolRequest) {
  const { nodeKey, onlyAs, onlyNamed = null } = request
  const [known] = yield* sql<NodeRow>`SELECT * FROM nodes WHERE key = ${nodeKey}`
  if (token.used_by !== null && token.used_by !== nodeKey) return Either.left(usedToken())
  if (known !== undefined && known.removed_at !== null) return Either.left(removed(shownOf(known)))
  if (onlyAs !== null && token.role !== onlyAs) return Either.left(forOtherRole(token, onlyAs))
  if (onlyNamed !== null && !HostName.isSame(token.name, onlyNamed)) return Either.left(forOtherName(token, onlyNamed))
  if (token.used_by === nodeKey) return Either.right("again" as const)
  if (token.expires_at <= (yield* DirectoryTimes.nowSeconds(sql))) return Either.left(expiredToken(shownOf(token)))
  if (known !== undefined) {
    const same = known.name === token.name && known.role === token.role && known.network === token.network
    return (same ? Either.right("new" as const) : Either.left(already(shownOf(known))))
  }
  const holder = yield* findByName(sql, token.name)
  return (Option.isSome(holder) ? Either.left(nameTaken(holder.value.shown)) : Either.right("new" as const))
})

const register = Effect.fnUntraced(function*(sql: SqlClient.SqlClient, token: TokenRow, nodeKey: NodeKey) {
  const { id, name, network, role, written } = token
  yield* sql`UPDATE tokens SET used_by = ${nodeKey} WHERE id = ${id}`
  yield* sql`INSERT INTO nodes (key, name, written, role, network, created_at)
    VALUES (${nodeKey}, ${name}, ${written}, ${role}, ${network}, ${yield* DirectoryTimes.nowSeconds(
    sql
  )}) ON CONFLICT (key) DO NOTHING`
  yield* DirectoryAudit.append(sql, { kind: "enrolled", nodeName: name, nodeKey, detail: { token: id, role, network } })
})

const shownOf = ({ name, written }: { readonly name: string; readonly written: string | null }) => written ?? name

const hashOf = (secret: string): string => Buffer.from(Crypto.sha256(secret)).toString("hex")

const create = "create one at the relay with: sallyport token create"
const unknownToken = () =>
  new TokenUnknown({ message: `the relay does not know this token, or forgot it long after it expired; ${create}` })
const expiredToken = (name: string) =>
  new TokenExpired({ message: `the token for ${name} has expired; ${create} --name ${name}` })
const usedToken = () =>
  new TokenUsed({
    message: `another node has used this token; if none of yours did, remove that node at the relay; else ${create}`
  })
const forOtherRole = (token: TokenRow, wanted: string) =>
  new TokenForOther({
    message:
      `this token is for the ${token.role} ${shownOf(token)}, which can still use it, and not for a ${cut(wanted)}; ` +
      `${create} --role ${cut(wanted)}`
  })
const forOtherName = (token: TokenRow, wanted: string) =>
  new TokenForOther({
    message:
      `this token is for a ${token.role} named ${shownOf(token)}, which can still use it, and the configuration says ` +
      `name: ${cut(wanted)}; write name: ${shownOf(token)}, or ${create} --name ${cut(wanted)}`
  })
/** A stranger's text, shortened and cleaned for a message. */
const cut = (text: string) => text.replaceAll(/[^\w.-]/g, "?").slice(0, 253)
const nameTaken = (name: string) =>
  new NameTaken({
    message:
      `there is a node named ${name}; choose another name, or remove it at the relay with: sallyport node remove ${name}`
  })
const removed = (name: string) =>
  new NodeRemoved({
    message:
      `this node was removed from the relay as ${name}; to let it in again, delete node.key and enrolment.json from its stateDir and use a new token`
  })
const already = (name: string) =>
  new AlreadyEnrolled({
    message: `this node has enrolled as ${name}; give each node a stateDir of its own, or remove ${name} at the relay`
  })
