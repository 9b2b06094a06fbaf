/**
 * Keeps a second process off a state directory, also if the admin API is at a TCP port and so not at a socket in that directory.
 * Two processes with one identity would take the relay's link from each other for ever.
 */
import { Effect, type Scope } from "effect"
import { createServer } from "node:http"
import { join } from "node:path"
import { type AdminListenError, listenUnix } from "./AdminSocket.ts"

export const LOCK_FILE = "running.sock"

/**
 * Holds the directory until the scope closes; the system ends the hold of a process that dies. Fails only if another process
 * holds it: where no socket can be made (some network file systems, long paths) the directory is used without a lock.
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
