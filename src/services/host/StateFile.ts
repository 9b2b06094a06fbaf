/**
 * Small private files in a state directory. They have mode 0600 and are written as a whole or not
 * at all, even if two processes race or the power fails.
 */
import { Effect, Option, Schema } from "effect"
import { randomBytes } from "node:crypto"
import { type FileHandle, link, mkdir, open, rename, rm, stat } from "node:fs/promises"
import { dirname } from "node:path"

/** Error when a file cannot be read or written. `code` is the system's, such as EACCES. */
export class StateFileError extends Schema.TaggedError<StateFileError>()("StateFileError", {
  path: Schema.String,
  code: Schema.String,
  message: Schema.String
}) {}

/** The content of a file, and who else can access it. */
export interface Found {
  readonly text: string
  /**
   * Whether other users may read or change the file. Always `false` on Windows, which has no modes.
   */
  readonly exposed: boolean
  /** Permission bits in octal, for messages. */
  readonly mode: string
}

/** Longest file that is read, in bytes. It is far above the size of any file that we write. */
const MAX_FILE_BYTES = 1024 * 1024

const GROUP_BITS = 0o070
const OTHER_BITS = 0o007

/**
 * Reads a file. `None` if there is none.
 *
 * If only the owner and the group have access, the mode is set back to 0600. Kubernetes opens every
 * file of a volume to `fsGroup`, and nobody in the pod could change that by hand.
 */
export const read = (path: string): Effect.Effect<Option.Option<Found>, StateFileError> =>
  Effect.scoped(Effect.gen(function*() {
    // The mode is read from the open file, so that it belongs to the content that is read.
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

/**
 * Creates a file, and its folder (mode 0700) if needed. Returns `false` if the file exists; it
 * stays unchanged.
 */
export const create = (path: string, text: string | Uint8Array): Effect.Effect<boolean, StateFileError> =>
  viaTemporary(path, text, (temporary) => link(temporary, path)).pipe(
    Effect.as(true),
    Effect.catchIf(({ code }) => code === "EEXIST", () => Effect.succeed(false))
  )

/** Writes a file and replaces an existing one in one step. */
export const replace = (path: string, text: string): Effect.Effect<void, StateFileError> =>
  viaTemporary(path, text, (temporary) => rename(temporary, path))

/** Whether the file exists. */
export const exists = (path: string): Effect.Effect<boolean, StateFileError> =>
  Effect.as(attempt(path, () => stat(path)), true).pipe(
    Effect.catchIf(({ code }) => code === "ENOENT", () => Effect.succeed(false))
  )

/**
 * Takes the group's rights away and returns the new mode. Returns the old mode if nothing was to be
 * done, or if this user may not change it.
 */
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

/** Writes a synced temporary file, lets `settle` give it its real name, and syncs the folder. */
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

/**
 * Makes the new name survive a power failure. Windows cannot sync a folder, and does not need to.
 */
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
