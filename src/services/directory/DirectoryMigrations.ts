/**
 * The tables of the directory, as migrations that each database runs once. A released migration is
 * never changed.
 */
import { SqlClient } from "@effect/sql"
import { LibsqlMigrator } from "@effect/sql-libsql"
import { Effect } from "effect"

/**
 * First tables. Times are epoch seconds, keys are base64url, and ports and audit details are JSON.
 */
const tables = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE nodes (
    key TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, network TEXT,
    created_at INTEGER NOT NULL, removed_at INTEGER
  ) STRICT`
  // A removed node keeps its row, so that its key stays refused. Its name is free again.
  yield* sql`CREATE UNIQUE INDEX nodes_by_name ON nodes (name) WHERE removed_at IS NULL`
  yield* sql`CREATE TABLE tokens (
    id TEXT PRIMARY KEY, secret_sha256 TEXT NOT NULL, role TEXT NOT NULL, name TEXT NOT NULL, network TEXT,
    created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, used_by TEXT
  ) STRICT`
  yield* sql`CREATE TABLE resources (
    position INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, network TEXT NOT NULL, address TEXT NOT NULL,
    tcp TEXT NOT NULL, udp TEXT NOT NULL, allow_loopback INTEGER NOT NULL
  ) STRICT`
  yield* sql`CREATE TABLE access (client TEXT NOT NULL, resource TEXT NOT NULL, PRIMARY KEY (client, resource)) STRICT`
  // With AUTOINCREMENT an id is never used twice, even after pruning.
  yield* sql`CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, kind TEXT NOT NULL,
    node_name TEXT, node_key TEXT, detail TEXT NOT NULL
  ) STRICT`
  yield* sql`CREATE INDEX audit_by_kind ON audit (kind, id)`
})

/** Addresses of the relays that have joined, as JSON. Their names and roles are in `nodes`. */
const relays = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql`CREATE TABLE relays (key TEXT PRIMARY KEY, addresses TEXT NOT NULL, port INTEGER NOT NULL) STRICT`
)

/** One row: the latest time that the directory has seen, in epoch milliseconds. */
const clock = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql`CREATE TABLE clock (id INTEGER PRIMARY KEY CHECK (id = 1), latest_ms INTEGER NOT NULL) STRICT`
)

/**
 * How people wrote the names of nodes and resources. `name` is the form in which they are compared.
 * Rows of an older version have none.
 */
const writtenNames = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`ALTER TABLE nodes ADD COLUMN written TEXT`
  yield* sql`ALTER TABLE tokens ADD COLUMN written TEXT`
  yield* sql`ALTER TABLE resources ADD COLUMN written TEXT`
})

/**
 * Runs the missing migrations. If two processes do so at once, the second one waits and finds
 * nothing to do.
 */
export const run = LibsqlMigrator.run({
  loader: LibsqlMigrator.fromRecord({
    "1_tables": tables,
    "2_relays": relays,
    "3_clock": clock,
    "4_written_names": writtenNames
  }),
  table: "migrations"
})
