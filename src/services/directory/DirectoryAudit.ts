/**
 * The audit log: changes to nodes, tokens and rules, and every decision about a dial. Its length is
 * bounded, and ids only grow.
 */
import type { SqlClient } from "@effect/sql"
import { Effect } from "effect"
import * as DirectoryTimes from "./DirectoryTimes.ts"

/**
 * Events caused by administrators and enrolments. They are rare, and a running relay reads them to
 * notice changes.
 */
const CHANGES = [
  "token_created",
  "enrolled",
  "enrol_refused",
  "node_removed",
  "relay_placed",
  "policy_replaced"
] as const
/**
 * Events caused by clients. A hostile client can write many, so they are counted apart and cannot
 * push out the others.
 */
const DIALS = ["dial_allowed", "dial_denied"] as const

export type Kind = typeof CHANGES[number] | typeof DIALS[number]

/** One row of the audit log. */
export interface Entry {
  readonly id: number
  /** When it happened, in epoch seconds. */
  readonly at: number
  readonly kind: Kind
  readonly nodeName: string | null
  readonly nodeKey: string | null
  readonly detail: { readonly [field: string]: string | number | null }
}

/** A row before it is stored. */
export type NewEntry = Omit<Entry, "id" | "at">

/** Number of rows that are kept for each of the two groups. Older rows are deleted. */
const MAX_ROWS = 100_000
/** Number of rows between two prunings. */
const PRUNE_EVERY = 500
/** Longest result of `since`, in rows. */
const MAX_ANSWER = 1000

/** Adds a row. The caller must be inside a transaction. */
export const append = Effect.fnUntraced(function*(sql: SqlClient.SqlClient, entry: NewEntry) {
  const { detail, kind, nodeKey, nodeName } = entry
  const at = yield* DirectoryTimes.nowSeconds(sql)
  const [row] = yield* sql<{ id: number }>`INSERT INTO audit (at, kind, node_name, node_key, detail)
    VALUES (${at}, ${kind}, ${nodeName}, ${nodeKey}, ${JSON.stringify(detail)}) RETURNING id`
  if (row !== undefined && row.id % PRUNE_EVERY === 0) yield* prune(sql, MAX_ROWS)
})

/** Deletes all but the last `maxRows` rows of each group. */
export const prune = (sql: SqlClient.SqlClient, maxRows: number) =>
  Effect.forEach([CHANGES, DIALS], (kinds) =>
    sql`DELETE FROM audit WHERE kind IN ${sql.in(kinds)} AND id <= (
      SELECT id FROM audit WHERE kind IN ${sql.in(kinds)} ORDER BY id DESC LIMIT 1 OFFSET ${maxRows})`, {
    discard: true
  })

/**
 * Returns changes after this id, without dials, oldest first. A result holds at most 1,000; ask
 * again from its last id.
 */
export const since = (sql: SqlClient.SqlClient, id: number) =>
  Effect.map(
    sql<Row>`SELECT id, at, kind, node_name, node_key, detail FROM audit
      WHERE kind IN ${sql.in(CHANGES)} AND id > ${id} ORDER BY id LIMIT ${MAX_ANSWER}`,
    (rows) => rows.map(fromRow)
  )

/** Returns the last rows of both groups, newest first. */
export const latest = (sql: SqlClient.SqlClient, limit: number) =>
  Effect.map(
    sql<Row>`SELECT id, at, kind, node_name, node_key, detail FROM audit ORDER BY id DESC LIMIT ${limit}`,
    (rows) => rows.map(fromRow)
  )

/** Id of the last change, dials not counted. 0 if there is none. */
export const latestId = (sql: SqlClient.SqlClient) =>
  Effect.map(
    sql<{ id: number | null }>`SELECT max(id) AS id FROM audit WHERE kind IN ${sql.in(CHANGES)}`,
    ([row]) => row?.id ?? 0
  )

/** Id of the change that wrote the current policy. 0 if none is known. */
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
