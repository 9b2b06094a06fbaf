/** Nodes and the tokens by which they come in. Functions on an open database; `Directory` runs them in transactions. */
import type { SqlClient } from "@effect/sql"
import { Duration, Effect, Either, Encoding, Option, Redacted, Schema } from "effect"
import { Buffer } from "node:buffer"
import type { Membership, NodeRole } from "../protocol/Documents.ts"
import { ID_BYTES, SECRET_BYTES } from "../protocol/EnrolmentToken.ts"
import type { NodeKey } from "../protocol/NodeKey.ts"
import * as Crypto from "./Crypto.ts"
import * as DirectoryAudit from "./DirectoryAudit.ts"
import * as DirectoryTimes from "./DirectoryTimes.ts"

export interface NodeRecord {
  readonly key: NodeKey
  readonly name: string
  readonly role: NodeRole
  /** Null for a client. */
  readonly network: string | null
  /** Epoch seconds. */
  readonly createdAt: number
}

export interface NewToken {
  readonly role: NodeRole
  readonly name: string
  readonly network: string | null
  readonly ttl: Duration.Duration
}

export interface CreatedToken {
  readonly id: string
  readonly secret: Redacted.Redacted
  /** Epoch seconds. */
  readonly expiresAt: number
}

export interface EnrolRequest {
  readonly tokenId: string
  readonly secret: Redacted.Redacted
  /** The caller has seen proof that the node holds it. */
  readonly nodeKey: NodeKey
  /** The role of whoever asks. A token for another role is refused and stays usable. `null` takes what the token says. */
  readonly onlyAs: string | null
  /** The name of whoever asks. A token for another name is refused and stays usable. `null` takes what the token says. */
  readonly onlyNamed?: string | null
}

/** There is no such token, or its secret is another: not told apart. */
export class TokenUnknown extends Schema.TaggedError<TokenUnknown>()("TokenUnknown", { message: Schema.String }) {}
export class TokenExpired extends Schema.TaggedError<TokenExpired>()("TokenExpired", { message: Schema.String }) {}
/** By another key. If nobody here did it, the token was stolen. */
export class TokenUsed extends Schema.TaggedError<TokenUsed>()("TokenUsed", { message: Schema.String }) {}
/** A node has this name already. */
export class NameTaken extends Schema.TaggedError<NameTaken>()("NameTaken", { message: Schema.String }) {}
/** This key was removed; it stays refused for good. */
export class NodeRemoved extends Schema.TaggedError<NodeRemoved>()("NodeRemoved", { message: Schema.String }) {}
/** This key is a node already, under another name, role or network. */
export class AlreadyEnrolled extends Schema.TaggedError<AlreadyEnrolled>()("AlreadyEnrolled", {
  message: Schema.String
}) {}

/** The token is for another role or another name than that of whoever asks. It can still be used. */
export class TokenForOther extends Schema.TaggedError<TokenForOther>()("TokenForOther", { message: Schema.String }) {}

export type EnrolError =
  | TokenUnknown
  | TokenExpired
  | TokenUsed
  | TokenForOther
  | NameTaken
  | NodeRemoved
  | AlreadyEnrolled

export interface RemovedNode {
  readonly key: NodeKey
  readonly name: string
  /** Epoch seconds. */
  readonly removedAt: number
}

/** Longest answer of `removedSince`, rows. */
const MAX_REMOVED = 10_000
/** Stands for "no end". */
const MAX_TTL_SECONDS = 10 * 365 * 86_400
/** Tokens are forgotten this long after they expired, seconds; until then the node that used one may ask again. */
const KEEP_EXPIRED_SECONDS = 30 * 86_400

export const createToken = Effect.fnUntraced(function*(sql: SqlClient.SqlClient, token: NewToken) {
  const { name, network, role, ttl } = token
  if (Option.isSome(yield* findByName(sql, name))) return yield* nameTaken(name)
  const now = yield* DirectoryTimes.nowSeconds(sql)
  const id = Crypto.randomHex(ID_BYTES)
  const secret = Encoding.encodeBase64Url(Crypto.randomBytes(SECRET_BYTES))
  const expiresAt = now + Math.min(Math.max(1, Math.floor(Duration.toSeconds(ttl))), MAX_TTL_SECONDS)
  yield* sql`DELETE FROM tokens WHERE expires_at < ${now - KEEP_EXPIRED_SECONDS}`
  yield* sql`INSERT INTO tokens (id, secret_sha256, role, name, network, created_at, expires_at)
    VALUES (${id}, ${hashOf(secret)}, ${role}, ${name}, ${network}, ${now}, ${expiresAt})`
  yield* DirectoryAudit.append(sql, {
    kind: "token_created",
    nodeName: name,
    nodeKey: null,
    detail: { token: id, role, network, expiresAt }
  })
  const created: CreatedToken = { id, secret: Redacted.make(secret), expiresAt }
  return created
})

/** A refusal comes as a value, since the transaction that records it must be kept. */
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

/** Finds nobody who was removed. */
export const findByKey = (sql: SqlClient.SqlClient, key: NodeKey) =>
  Effect.map(
    sql<NodeRow>`SELECT * FROM nodes WHERE key = ${key} AND removed_at IS NULL`,
    ([row]) => Option.map(Option.fromNullable(row), fromRow)
  )

export const list = (sql: SqlClient.SqlClient) =>
  Effect.map(sql<NodeRow>`SELECT * FROM nodes WHERE removed_at IS NULL ORDER BY name`, (rows) => rows.map(fromRow))

/** Since then, epoch seconds; the newest first. */
export const removedSince = (sql: SqlClient.SqlClient, at: number) =>
  Effect.map(
    sql<NodeRow & { removed_at: number }>`SELECT * FROM nodes
      WHERE removed_at >= ${at} ORDER BY removed_at DESC LIMIT ${MAX_REMOVED}`,
    (rows) => rows.map((row): RemovedNode => ({ key: row.key, name: row.name, removedAt: row.removed_at }))
  )

export const connectorsOf = (sql: SqlClient.SqlClient, network: string) =>
  Effect.map(
    sql<NodeRow>`SELECT * FROM nodes
      WHERE removed_at IS NULL AND role = 'connector' AND network = ${network} ORDER BY name`,
    (rows) => rows.map(fromRow)
  )

export const remove = Effect.fnUntraced(function*(sql: SqlClient.SqlClient, name: string) {
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
  readonly network: string | null
  readonly expires_at: number
  readonly used_by: string | null
}

const fromRow = ({ created_at, key, name, network, role }: NodeRow): NodeRecord => ({
  key,
  name,
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

/** `again`: the same key has enrolled with this token, and its answer was lost. */
const judge = Effect.fnUntraced(function*(sql: SqlClient.SqlClient, token: TokenRow, request: EnrolRequest) {
  const { nodeKey, onlyAs, onlyNamed = null } = request
  const [known] = yield* sql<NodeRow>`SELECT * FROM nodes WHERE key = ${nodeKey}`
  if (token.used_by !== null && token.used_by !== nodeKey) return Either.left(usedToken())
  if (known !== undefined && known.removed_at !== null) return Either.left(removed(known.name))
  if (onlyAs !== null && token.role !== onlyAs) return Either.left(forOtherRole(token, onlyAs))
  if (onlyNamed !== null && token.name !== onlyNamed) return Either.left(forOtherName(token, onlyNamed))
  if (token.used_by === nodeKey) return Either.right("again" as const)
  if (token.expires_at <= (yield* DirectoryTimes.nowSeconds(sql))) return Either.left(expiredToken(token.name))
  if (known !== undefined) {
    const same = known.name === token.name && known.role === token.role && known.network === token.network
    return (same ? Either.right("new" as const) : Either.left(already(known.name)))
  }
  const holder = yield* findByName(sql, token.name)
  return (Option.isSome(holder) ? Either.left(nameTaken(token.name)) : Either.right("new" as const))
})

const register = Effect.fnUntraced(function*(sql: SqlClient.SqlClient, token: TokenRow, nodeKey: NodeKey) {
  const { id, name, network, role } = token
  yield* sql`UPDATE tokens SET used_by = ${nodeKey} WHERE id = ${id}`
  yield* sql`INSERT INTO nodes (key, name, role, network, created_at)
    VALUES (${nodeKey}, ${name}, ${role}, ${network}, ${yield* DirectoryTimes.nowSeconds(
    sql
  )}) ON CONFLICT (key) DO NOTHING`
  yield* DirectoryAudit.append(sql, { kind: "enrolled", nodeName: name, nodeKey, detail: { token: id, role, network } })
})

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
const forOtherRole = ({ name, role }: TokenRow, wanted: string) =>
  new TokenForOther({
    message: `this token is for the ${role} ${name}, which can still use it, and not for a ${cut(wanted)}; ` +
      `${create} --role ${cut(wanted)}`
  })
const forOtherName = ({ name, role }: TokenRow, wanted: string) =>
  new TokenForOther({
    message: `this token is for a ${role} named ${name}, which can still use it, and the configuration says ` +
      `name: ${cut(wanted)}; write name: ${name}, or ${create} --name ${cut(wanted)}`
  })
/** A stranger's text as far as a message repeats it. */
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
