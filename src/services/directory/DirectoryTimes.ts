/**
 * The latest time that the directory has seen. It is kept so that the directory's time never goes
 * back, even if the clock is set back.
 */
import type { SqlClient } from "@effect/sql"
import { Effect } from "effect"
import * as DirectoryClock from "../identity/DirectoryClock.ts"

/** Reads the latest time, in epoch milliseconds. 0 if the relay has never run. */
export const latest = (sql: SqlClient.SqlClient) =>
  Effect.map(sql<{ latest_ms: number }>`SELECT latest_ms FROM clock`, ([row]) => row?.latest_ms ?? 0)

/** Stores `ms` unless a later time is stored. The caller must be inside a transaction. */
export const keep = (sql: SqlClient.SqlClient, ms: number) =>
  Effect.asVoid(sql`INSERT INTO clock (id, latest_ms) VALUES (1, ${ms})
    ON CONFLICT (id) DO UPDATE SET latest_ms = max(latest_ms, excluded.latest_ms)`)

/**
 * Returns the directory's time, in epoch seconds. Commands have only the machine's own clock, which
 * may have been set back since the relay started.
 */
export const nowSeconds = Effect.fnUntraced(function*(sql: SqlClient.SqlClient) {
  return Math.max(yield* DirectoryClock.nowSeconds, Math.floor((yield* latest(sql)) / 1000))
})
