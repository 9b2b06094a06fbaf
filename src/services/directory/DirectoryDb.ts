/**
 * A libSQL connection to `directory.db`. Other processes may use the file too, such as the command
 * line beside a running relay. Readers never wait, and writers wait for each other.
 *
 * Transactions are plain statements here, not the client's own. After each of its transactions the
 * client goes on with a new connection, so it loses the pragmas and leaks the old connection. It
 * also stays locked permanently if BEGIN fails, and dies if COMMIT fails.
 *
 * A connection is closed after SQLite was busy, because the binding never resets the failed
 * statement, and no later transaction could be committed.
 */
import { Reactivity } from "@effect/experimental"
import { SqlClient, SqlError } from "@effect/sql"
import { LibsqlClient } from "@effect/sql-libsql"
import { Effect, Exit, Schedule, Scope } from "effect"
import { randomBytes } from "node:crypto"
import { chmod, open as openFile, readFile, rm } from "node:fs/promises"
import { pathToFileURL } from "node:url"
import * as StateFile from "../host/StateFile.ts"
import * as DirectoryMigrations from "./DirectoryMigrations.ts"
import { DirectoryError } from "./DirectoryStore.ts"

/** Access to the database. One caller at a time runs its `body`; the others wait. */
export interface DirectoryDb {
  /** Runs `body`. It may run more than once, if another process had locked the database. */
  readonly read: <A, E>(body: Body<A, E>) => Effect.Effect<A, Failed<E>>
  /**
   * Runs `body` in a transaction, which a failure rolls back. It may run more than once, if another
   * process had locked the database.
   */
  readonly write: <A, E>(body: Body<A, E>) => Effect.Effect<A, Failed<E>>
  /** Reads the whole file and fails with `damaged` if a part is missing or overwritten. */
  readonly check: Effect.Effect<void, DirectoryError>
}
type Body<A, E> = (sql: SqlClient.SqlClient) => Effect.Effect<A, E | SqlError.SqlError>
type Failed<E> = Exclude<E, SqlError.SqlError> | DirectoryError

/**
 * How long SQLite waits for another process, in milliseconds. It blocks the thread meanwhile,
 * usually for only a few.
 */
const BLOCK_MS = 1000
/**
 * Delay before a busy database is tried again on a new connection. Meanwhile other callers in this
 * thread get their turn.
 */
const RETRY_AFTER = "25 millis"
/** Most retries before the caller gets `busy`. */
const MAX_RETRIES = 4

/**
 * Lock for all connections of this thread. Without it, SQLite would block the thread while it waits
 * for a transaction that only this thread can end.
 */
const turn = Effect.unsafeMakeSemaphore(1)

/** Opens the database until the scope closes, and creates it if there is none. */
export const make = Effect.fnUntraced(function*(path: string) {
  yield* turn.withPermits(1)(createFile(path))
  let connection: Connection | null = null // only the holder of `turn` touches it
  const giveUp = Effect.suspend(() => {
    const old = connection
    connection = null
    return old === null ? Effect.void : Scope.close(old.scope, Exit.void)
  })
  // Moves the write-ahead log into the database, so that a copy of this file is complete. SQLite
  // does this itself, but not while a statement is open. The binding leaves statements open until
  // they are collected as garbage.
  const emptyLog = Effect.suspend(() =>
    connection === null ? Effect.void : Effect.ignore(connection.sql.unsafe("PRAGMA wal_checkpoint(TRUNCATE)"))
  )
  yield* Effect.addFinalizer(() => turn.withPermits(1)(Effect.zipRight(emptyLog, giveUp)))
  const use = <A, E>(body: Body<A, E>): Effect.Effect<A, Failed<E>> =>
    Effect.suspend(() => connection === null ? connect(path) : Effect.succeed(connection)).pipe(
      Effect.tap((open) => Effect.sync(() => connection = open)),
      Effect.flatMap(({ sql }) => body(sql)),
      Effect.tapError((error) => isBusy(error) ? giveUp : Effect.void),
      turn.withPermits(1),
      whenFree,
      Effect.mapError((error) => (isSqlError(error) ? classify(path, error) : error) as Failed<E>)
    )
  yield* use((sql) => Effect.asVoid(sql`SELECT 1`))
  const db: DirectoryDb = {
    read: use,
    write: (body) => use((sql) => sql.withTransaction(body(sql))),
    check: Effect.filterOrFail(
      use((sql) => sql.unsafe<{ readonly quick_check: string }>("PRAGMA quick_check(1)")),
      ([first]) => first?.quick_check === "ok",
      () => failed(path, "damaged")
    )
  }
  return db
})

interface Connection {
  readonly sql: SqlClient.SqlClient
  readonly scope: Scope.CloseableScope
}

const connect = (path: string): Effect.Effect<Connection, SqlError.SqlError> =>
  Effect.uninterruptible(Effect.gen(function*() {
    const scope = yield* Scope.make()
    const opening = Effect.gen(function*() {
      const sql = yield* open(path)
      // in WAL mode a power failure may undo the last writes but damages nothing
      yield* sql.unsafe("PRAGMA synchronous = NORMAL")
      yield* migrate(sql)
      return { sql, scope }
    })
    return yield* Effect.onError(Scope.extend(opening, scope), () => Scope.close(scope, Exit.void))
  }))

/** Opens a client whose transactions stay on its one connection. */
const open = Effect.fnUntraced(function*(path: string) {
  const client = yield* LibsqlClient.make({ url: pathToFileURL(path).href }).pipe(
    // The constructor opens the file and throws if that fails.
    Effect.catchAllDefect((cause) => new SqlError.SqlError({ cause, message: "cannot open the database" })),
    Effect.provide(Reactivity.layer)
  )
  const sql: SqlClient.SqlClient = Object.assign(client, { withTransaction: transactionOn(client) })
  yield* sql.unsafe(`PRAGMA busy_timeout = ${BLOCK_MS}`)
  return sql
})

const transactionOn = (sql: SqlClient.SqlClient) => <R, E, A>(body: Effect.Effect<A, E, R>) =>
  Effect.uninterruptible(Effect.gen(function*() {
    yield* sql.unsafe("BEGIN IMMEDIATE")
    const exit = yield* Effect.exit(Effect.zipLeft(body, sql.unsafe("COMMIT")))
    // fails if SQLite has rolled back by itself
    if (Exit.isFailure(exit)) yield* Effect.ignore(sql.unsafe("ROLLBACK"))
    return yield* exit
  }))

const migrate = (sql: SqlClient.SqlClient) =>
  DirectoryMigrations.run.pipe(
    Effect.provideService(SqlClient.SqlClient, sql),
    Effect.catchTag("MigrationError", Effect.die) // the migrations are our own code
  )

/**
 * Creates the database in a temporary file, and copies it into place complete, in WAL mode and with
 * mode 0600.
 *
 * SQLite cannot switch the journal mode while others open the file, and it gives its other files
 * (`-wal`, `-shm`) the mode of this one. The file is copied, not renamed, because SQLite identifies
 * files by their inode.
 */
const createFile = Effect.fnUntraced(function*(path: string) {
  const unusable = Effect.mapError(({ code }: StateFile.StateFileError) => failed(path, "unusable", code))
  if (yield* unusable(StateFile.exists(path))) {
    yield* checkHead(path)
    return yield* closeToOthers(path)
  }
  const draft = `${path}.${randomBytes(6).toString("hex")}.tmp`
  yield* unusable(StateFile.create(draft, ""))
  const bytes = Effect.scoped(Effect.gen(function*() {
    const sql = yield* open(draft)
    yield* sql.unsafe("PRAGMA journal_mode = WAL")
    yield* migrate(sql)
    yield* sql.unsafe("PRAGMA wal_checkpoint(TRUNCATE)")
    return yield* Effect.promise(() => readFile(draft))
  }))
  const remove = Effect.promise(() => Promise.all(["", "-wal", "-shm"].map((end) => rm(draft + end, { force: true }))))
  const made = yield* Effect.ensuring(Effect.mapError(bytes, (error) => classify(path, error)), remove)
  yield* unusable(StateFile.create(path, made))
})

/** The first bytes of each database (https://sqlite.org/fileformat.html, section 1.3). */
const MAGIC = "SQLite format 3\0"

/**
 * Refuses a file that is empty or begins otherwise. SQLite takes an empty file for a new database,
 * and a relay would go on without any of its nodes.
 */
const checkHead = (path: string) =>
  Effect.tryPromise(async () => {
    const file = await openFile(path, "r")
    try {
      const head = Buffer.alloc(MAGIC.length)
      await file.read(head, 0, head.length, 0)
      return head.toString("latin1") === MAGIC
    } finally {
      await file.close()
    }
  }).pipe(
    Effect.mapError(({ error }) => failed(path, "unusable", codeOf(error))),
    Effect.filterOrFail((isDatabase) => isDatabase, () => failed(path, "damaged"))
  )

/**
 * Removes the rights that a volume's `fsGroup` or a restored backup gave to others. Does nothing if
 * this user may not set modes.
 */
const closeToOthers = (path: string) =>
  Effect.forEach(["", "-wal", "-shm"], (end) => Effect.ignore(Effect.tryPromise(() => chmod(path + end, 0o600))), {
    discard: true
  })

const whenFree = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.retry(effect, {
    while: isBusy,
    schedule: Schedule.intersect(Schedule.spaced(RETRY_AFTER), Schedule.recurs(MAX_RETRIES))
  })

const isBusy = (error: unknown): boolean => codeOf(error).startsWith("SQLITE_BUSY")

const isSqlError = (error: unknown): error is SqlError.SqlError => error instanceof SqlError.SqlError

const codeOf = (error: unknown): string => {
  const cause = isSqlError(error) ? error.cause : error
  return typeof cause === "object" && cause !== null && "code" in cause ? String(cause.code) : ""
}

const classify = (path: string, error: unknown): DirectoryError => {
  const code = codeOf(error)
  if (code.startsWith("SQLITE_BUSY") || code.startsWith("SQLITE_LOCKED")) return failed(path, "busy")
  if (code.startsWith("SQLITE_FULL")) return failed(path, "full")
  if (code.startsWith("SQLITE_NOTADB") || code.startsWith("SQLITE_CORRUPT")) return failed(path, "damaged")
  return failed(path, "unusable", code)
}

const failed = (path: string, reason: DirectoryError["reason"], code = "") =>
  new DirectoryError({ reason, message: MESSAGES[reason](path) + (code === "" ? "" : ` (${code})`) })

const MESSAGES = {
  busy: (path: string) => `another process has locked ${path} for some seconds; try again, and look for one that hangs`,
  full: () => "the disk is full; free some space",
  damaged: (path: string) => `${path} is damaged; stop the relay and restore it from a backup`,
  unusable: (path: string) => `cannot use ${path}; check that this user may write to its folder`
}
