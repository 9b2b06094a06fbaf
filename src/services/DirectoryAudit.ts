/** The audit log: what happened to nodes, tokens and rules, and who was let through. Bounded; ids only ever grow. */
import type { SqlClient } from "@effect/sql"
import { Effect } from "effect"
import * as DirectoryTimes from "./DirectoryTimes.ts"

/** What administrators do and what enrols; rare, and told to a running relay. */
const CHANGES = [
  "token_created",
  "enrolled",
  "enrol_refused",
  "node_removed",
  "relay_placed",
  "policy_replaced"
] as const
/** What clients ask for; a hostile one can write many of these, which must not push out the others. */
const DIALS = ["dial_allowed", "dial_denied"] as const

export type Kind = typeof CHANGES[number] | typeof DIALS[number]

export interface Entry {
  readonly id: number
  /** Epoch seconds. */
  readonly at: number
  readonly kind: Kind
  readonly nodeName: string | null
  readonly nodeKey: string | null
  readonly detail: { readonly [field: string]: string | number | null }
}

/** Kept of each of the two groups, rows. */
const MAX_ROWS = 100_000
const PRUNE_EVERY = 500
/** Longest answer of `since`, rows. */
const MAX_ANSWER = 1000

/** Inside a transaction of the caller's. */
export const append = Effect.fnUntraced(function*(sql: SqlClient.SqlClient, entry: Omit<Entry, "id" | "at">) {
  const { detail, kind, nodeKey, nodeName } = entry
  const at = yield* DirectoryTimes.nowSeconds(sql)
  const [row] = yield* sql<{ id: number }>`INSERT INTO audit (at, kind, node_name, node_key, detail)
    VALUES (${at}, ${kind}, ${nodeName}, ${nodeKey}, ${JSON.stringify(detail)}) RETURNING id`
  if (row !== undefined && row.id % PRUNE_EVERY === 0) yield* prune(sql, MAX_ROWS)
})

/** Keeps the last `maxRows` of each group. */
export const prune = (sql: SqlClient.SqlClient, maxRows: number) =>
  Effect.forEach([CHANGES, DIALS], (kinds) =>
    sql`DELETE FROM audit WHERE kind IN ${sql.in(kinds)} AND id <= (
      SELECT id FROM audit WHERE kind IN ${sql.in(kinds)} ORDER BY id DESC LIMIT 1 OFFSET ${maxRows})`, {
    discard: true
  })

/** Changes only, oldest first, at most 1,000: ask again from the last id. */
export const since = (sql: SqlClient.SqlClient, id: number) =>
  Effect.map(
    sql<Row>`SELECT id, at, kind, node_name, node_key, detail FROM audit
      WHERE kind IN ${sql.in(CHANGES)} AND id > ${id} ORDER BY id LIMIT ${MAX_ANSWER}`,
    (rows) => rows.map(fromRow)
  )

/** Everything, newest first. */
export const latest = (sql: SqlClient.SqlClient, limit: number) =>
  Effect.map(
    sql<Row>`SELECT id, at, kind, node_name, node_key, detail FROM audit ORDER BY id DESC LIMIT ${limit}`,
    (rows) => rows.map(fromRow)
  )

/** Of the last change; 0 before the first. */
export const latestId = (sql: SqlClient.SqlClient) =>
  Effect.map(
    sql<{ id: number | null }>`SELECT max(id) AS id FROM audit WHERE kind IN ${sql.in(CHANGES)}`,
    ([row]) => row?.id ?? 0
  )

/** Of the change that wrote the present policy; 0 when none is known. */
export const policyId = (sql: SqlClient.SqlClient) =>
  Effect.map(
    sql<{ id: number | null }>`SELECT max(id) AS id FROM audit WHERE kind = 'policy_replaced'`,
    ([row]) => row?.id ?? 0
  )

interface Row {
  readonly id: number
  readonly at: number
  readonly kind: Kind
  readonly node_name: string | null
  readonly node_key: string | null
  readonly detail: string
}

const fromRow = ({ at, detail, id, kind, node_key, node_name }: Row): Entry => ({
  id,
  at,
  kind,
  nodeName: node_name,
  nodeKey: node_key,
  detail: JSON.parse(detail) as Entry["detail"]
})
