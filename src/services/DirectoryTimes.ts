/** The latest time that the directory has seen, kept so that a clock which is set back does not take the directory back. */
import type { SqlClient } from "@effect/sql"
import { Effect } from "effect"
import * as DirectoryClock from "./DirectoryClock.ts"

/** Epoch milliseconds; 0 before the relay has run. */
export const latest = (sql: SqlClient.SqlClient) =>
  Effect.map(sql<{ latest_ms: number }>`SELECT latest_ms FROM clock`, ([row]) => row?.latest_ms ?? 0)

/** Inside a transaction of the caller's. */
export const keep = (sql: SqlClient.SqlClient, ms: number) =>
  Effect.asVoid(sql`INSERT INTO clock (id, latest_ms) VALUES (1, ${ms})
    ON CONFLICT (id) DO UPDATE SET latest_ms = max(latest_ms, excluded.latest_ms)`)

/** Epoch seconds. Commands have only the machine's own clock, which may have been set back since the relay started. */
export const nowSeconds = Effect.fnUntraced(function*(sql: SqlClient.SqlClient) {
  return Math.max(yield* DirectoryClock.nowSeconds, Math.floor((yield* latest(sql)) / 1000))
})
