/** Small private files in a state folder: mode 0600, written whole or not at all, also when two processes race or power fails. */
import { Effect, Option, Schema } from "effect"
import { randomBytes } from "node:crypto"
import { type FileHandle, link, mkdir, open, rename, rm, stat } from "node:fs/promises"
import { dirname } from "node:path"

/** `code` is the system's, such as EACCES. */
export class StateFileError extends Schema.TaggedError<StateFileError>()("StateFileError", {
  path: Schema.String,
  code: Schema.String,
  message: Schema.String
}) {}

export interface Found {
  readonly text: string
  /** Whether other users may read or change the file. Always `false` on Windows, which has no modes. */
  readonly exposed: boolean
  /** Permission bits, octal, for messages. */
  readonly mode: string
}

/** Longest file that is read, bytes: far above any of ours. */
const MAX_FILE_BYTES = 1024 * 1024

const GROUP_BITS = 0o070
const OTHER_BITS = 0o007

/**
 * The file's text, or `None` if there is no such file. A file that only its group may use besides its owner gets mode 0600
 * again: Kubernetes opens every file of a volume to `fsGroup`, and nobody in the pod could undo that by hand.
 */
export const read = (path: string): Effect.Effect<Option.Option<Found>, StateFileError> =>
  Effect.scoped(Effect.gen(function*() {
    // The mode is asked of the open file, so that it is the mode of what is read.
    const file = yield* Effect.acquireRelease(
      attempt(path, () => open(path, "r")),
      (file) => Effect.promise(() => file.close())
    )
    const { mode: found, size } = yield* attempt(path, () => file.stat())
    if (size > MAX_FILE_BYTES) return yield* failWith(path, "EFBIG")
    const mode = yield* withoutGroup(path, file, found)
    const text = yield* attempt(path, () => file.readFile("utf8"))
    return Option.some({
      text,
      exposed: process.platform !== "win32" && (mode & 0o077) !== 0,
      mode: (mode & 0o777).toString(8).padStart(4, "0")
    })
  })).pipe(Effect.catchIf(({ code }) => code === "ENOENT", () => Effect.succeed(Option.none())))

/** False: there is one already, which stays as it is. Makes the folder (mode 0700) where there is none. */
export const create = (path: string, text: string | Uint8Array): Effect.Effect<boolean, StateFileError> =>
  viaTemporary(path, text, (temporary) => link(temporary, path)).pipe(
    Effect.as(true),
    Effect.catchIf(({ code }) => code === "EEXIST", () => Effect.succeed(false))
  )

/** Puts it in the place of what was there. */
export const replace = (path: string, text: string): Effect.Effect<void, StateFileError> =>
  viaTemporary(path, text, (temporary) => rename(temporary, path))

export const exists = (path: string): Effect.Effect<boolean, StateFileError> =>
  Effect.as(attempt(path, () => stat(path)), true).pipe(
    Effect.catchIf(({ code }) => code === "ENOENT", () => Effect.succeed(false))
  )

/** The mode after the group's rights were taken away. The same mode if there is no need, or if this user may not do that. */
const withoutGroup = (path: string, file: FileHandle, mode: number): Effect.Effect<number> => {
  const isForGroupOnly = (mode & GROUP_BITS) !== 0 && (mode & OTHER_BITS) === 0
  if (process.platform === "win32" || !isForGroupOnly) return Effect.succeed(mode)
  const mended = mode & ~GROUP_BITS
  return Effect.tryPromise(() => file.chmod(mended & 0o777)).pipe(
    Effect.zipRight(Effect.logWarning("the file's group had access to it; its mode is 0600 again")),
    Effect.annotateLogs({ path }),
    Effect.match({ onFailure: () => mode, onSuccess: () => mended })
  )
}

const makeFolder = (path: string): Effect.Effect<void, StateFileError> =>
  Effect.asVoid(attempt(path, () => mkdir(path, { recursive: true, mode: 0o700 })))

const viaTemporary = (path: string, text: string | Uint8Array, settle: (temporary: string) => Promise<void>) => {
  const temporary = `${path}.${randomBytes(6).toString("hex")}.tmp`
  return makeFolder(dirname(path)).pipe(
    Effect.andThen(attempt(path, async () => {
      await writeSynced(temporary, text)
      await settle(temporary)
      await syncFolder(dirname(path))
    })),
    Effect.ensuring(Effect.promise(() => rm(temporary, { force: true })))
  )
}

const writeSynced = async (path: string, text: string | Uint8Array) => {
  const file = await open(path, "wx", 0o600)
  try {
    await file.writeFile(text)
    await file.sync()
  } finally {
    await file.close()
  }
}

/** Makes the new name outlast a power failure. Windows cannot, and does it by itself. */
const syncFolder = async (path: string) => {
  if (process.platform === "win32") return
  const folder = await open(path, "r")
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

const attempt = <A>(path: string, run: () => Promise<A>): Effect.Effect<A, StateFileError> =>
  Effect.tryPromise({ try: run, catch: (error) => failed(path, codeOf(error)) })

const failWith = (path: string, code: string) => Effect.fail(failed(path, code))

const failed = (path: string, code: string) =>
  new StateFileError({ path, code, message: `cannot use ${path} (${code}); ${REMEDIES[code] ?? "check the disk"}` })

const REMEDIES: { readonly [code: string]: string } = {
  EACCES: "run as the owner of this folder, or give stateDir another one",
  EPERM: "run as the owner of this folder, or give stateDir another one",
  EROFS: "the disk is read-only; give stateDir a folder that can be written",
  ENOSPC: "the disk is full",
  ENOTDIR: "part of this path is a file; give stateDir another folder",
  EISDIR: "this is a folder where a file should be; move it away",
  EFBIG: "it is far too large to be ours; move it away"
}

const codeOf = (error: unknown): string =>
  typeof error === "object" && error !== null && "code" in error ? String(error.code) : "unknown error"
