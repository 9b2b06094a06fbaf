/**
 * Keeps a second process, or a second role in the same process, from using a state directory, even
 * if the admin API listens on a TCP port instead of a socket in that directory. Two nodes with one
 * identity would permanently take the relay's link from each other.
 */
import { Effect, type Scope } from "effect"
import { createServer } from "node:http"
import { join } from "node:path"
import { type AdminListenError, listenUnix } from "../admin/AdminSocket.ts"

/** Name of the lock's socket in a state directory. */
export const LOCK_FILE = "running.sock"

/**
 * Locks the state directory until the scope closes. If the process dies, the system releases the
 * lock. Fails only if another process, or another role in this one, has it.
 *
 * Where no socket can be created (some network file systems, long paths), the directory is used
 * without a lock.
 */
export const hold = (stateDir: string): Effect.Effect<void, AdminListenError, Scope.Scope> =>
  Effect.gen(function*() {
    const server = yield* Effect.acquireRelease(
      Effect.sync(() => createServer((_, response) => void response.writeHead(404, { connection: "close" }).end())),
      (server) => Effect.sync(() => server.close().closeAllConnections())
    )
    yield* Effect.catchIf(
      listenUnix(server, join(stateDir, LOCK_FILE)),
      ({ reason }) => reason !== "InUse",
      ({ message }) => Effect.logDebug("the state directory is used without a lock", message)
    )
    server.on("error", () => undefined)
    server.unref()
  })
