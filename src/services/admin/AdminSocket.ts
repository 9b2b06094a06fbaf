/**
 * The admin API's unix socket. It is created with mode 0600, and taken over if the process that
 * owned it died.
 */
import { Effect, Schema } from "effect"
import { chmodSync, lstatSync, mkdirSync, type Stats, unlinkSync } from "node:fs"
import type { Server } from "node:http"
import { createConnection } from "node:net"
import { dirname } from "node:path"
import * as ListenCheck from "../network/ListenCheck.ts"

/** Error when the admin API cannot listen. `message` says what is in the way and what to do. */
export class AdminListenError extends Schema.TaggedError<AdminListenError>()("AdminListenError", {
  reason: Schema.Literal("InUse", "Forbidden", "Unwritable", "Other"),
  message: Schema.String
}) {}

/** Listens on a unix socket. Succeeds when the server accepts connections. */
export const listenUnix = (server: Server, path: string): Effect.Effect<void, AdminListenError> =>
  Effect.gen(function*() {
    yield* clear(path)
    yield* Effect.async<void, AdminListenError>((resume) => {
      server.once("error", (cause: NodeJS.ErrnoException) => resume(Effect.fail(fromErrno(cause, path))))
      // The umask sets the mode, so others can never connect, not even before the `chmod` below.
      const restore = mask()
      try {
        server.listen(path, () => resume(Effect.void))
      } finally {
        restore()
      }
    })
    yield* Effect.try({ try: () => chmodSync(path, 0o600), catch: (cause) => fromErrno(errno(cause), path) })
  })

/** Listens on a TCP address. Succeeds when the server accepts connections. */
export const listenTcp = (server: Server, host: string, port: number): Effect.Effect<void, AdminListenError> =>
  Effect.async((resume) => {
    server.once("error", (cause: NodeJS.ErrnoException) => resume(Effect.fail(fromErrno(cause, `${host}:${port}`))))
    server.listen({ host, port }, () => resume(Effect.void))
  })

/**
 * Removes a socket that no process serves. Fails if a process serves it, and if the path is not a
 * socket.
 */
const clear = Effect.fnUntraced(function*(path: string) {
  const found = yield* Effect.try({
    try: () => {
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
      return lstatSync(path, { throwIfNoEntry: false })
    },
    catch: (cause) => fromErrno(errno(cause), path)
  })
  if (found === undefined) return
  if (!found.isSocket()) {
    return yield* other(
      `${path} is in the way of the admin socket and is no socket; move it away, or set another path with the key admin`
    )
  }
  const state = yield* probe(path)
  if (state === "live") return yield* inUse(path)
  if (state === "forbidden") return yield* forbidden(path)
  yield* Effect.try({ try: () => unlinkSame(path, found), catch: (cause) => fromErrno(errno(cause), path) })
})

/** Removes the socket unless another process has replaced it in the meantime. */
const unlinkSame = (path: string, seen: Stats): void => {
  if (lstatSync(path, { throwIfNoEntry: false })?.ino === seen.ino) unlinkSync(path)
}

const probe = (path: string): Effect.Effect<"live" | "stale" | "forbidden"> =>
  Effect.async((resume) => {
    const socket = createConnection(path)
    const done = (state: "live" | "stale" | "forbidden") => {
      socket.destroy()
      resume(Effect.succeed(state))
    }
    socket.once("connect", () => done("live"))
    socket.once("error", ({ code }: NodeJS.ErrnoException) =>
      // A full backlog (EAGAIN) means that a process is listening.
      done(code === "EACCES" || code === "EPERM" ? "forbidden" : code === "EAGAIN" ? "live" : "stale"))
    return Effect.sync(() => socket.destroy())
  })

/**
 * Sets the umask and returns a function that restores it. Only the main thread may do that; in
 * other threads nothing happens here, and the mode is set right after.
 */
const mask = (): () => void => {
  try {
    const before = process.umask(0o177)
    return () => void process.umask(before)
  } catch {
    return () => {}
  }
}

const inUse = (place: string) =>
  new AdminListenError({
    reason: "InUse",
    message:
      `another sallyport runs with this stateDir (it answers on ${place}); stop it first, or give this one a stateDir of its own`
  })

const forbidden = (place: string) =>
  new AdminListenError({
    reason: "Forbidden",
    message: `no permission to use ${place}; run as the owner of that folder, or set another path with the key admin`
  })

const other = (message: string) => new AdminListenError({ reason: "Other", message })

const fromErrno = ({ code }: NodeJS.ErrnoException, place: string): AdminListenError => {
  if (!place.startsWith("/")) {
    const port = Number(place.slice(place.lastIndexOf(":") + 1))
    return new AdminListenError({
      reason: code === "EADDRINUSE" ? "InUse" : code === "EACCES" || code === "EPERM" ? "Forbidden" : "Other",
      message: `admin cannot listen on ${place}: ${ListenCheck.remedy(code ?? "unknown error", port, "tcp")}`
    })
  }
  if (code === "EADDRINUSE") return inUse(place)
  if (code === "EACCES" || code === "EPERM") return forbidden(place)
  const why = UNWRITABLE[code ?? ""]
  if (why !== undefined) {
    return new AdminListenError({ reason: "Unwritable", message: `the admin socket ${place} cannot be made: ${why}` })
  }
  return other(
    `the admin API cannot listen on ${place} (${code ?? "unknown error"}); check the keys admin and stateDir`
  )
}

/** Faults that may pass while the process runs. */
const UNWRITABLE: Readonly<Record<string, string>> = {
  EROFS: "the disk is read-only",
  ENOSPC: "the disk is full",
  EDQUOT: "the disk quota is used up",
  EIO: "the disk reports an error"
}

const errno = (cause: unknown): NodeJS.ErrnoException => cause instanceof Error ? cause : new Error(String(cause))
