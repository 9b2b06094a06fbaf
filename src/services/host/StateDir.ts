/**
 * Whether the state directory can be written. This is judged without writing, so that looking often
 * does not wear a disk or wake it up.
 */
import { Duration, Effect } from "effect"
import { constants } from "node:fs"
import { access, stat, statfs } from "node:fs/promises"

/** Kind of fault of the state directory or its disk. */
export type Code = "full" | "read_only" | "forbidden" | "missing" | "replaced" | "slow" | "broken"

export interface Trouble {
  readonly code: Code
  /** Text of the fault and its remedy, without the directory's path. */
  readonly message: string
}

/** Least free space. SQLite needs 32 KiB for the index of its write-ahead log alone. */
const MIN_FREE_BYTES = 64 * 1024
/** Longest wait for an answer that needs no disk. A network file system that hangs takes longer. */
const PATIENCE = Duration.seconds(5)
/** How often a running process looks. The kernel answers from memory. */
const LOOK_EVERY = Duration.seconds(5)

const TEXT: Readonly<Record<Code, string>> = {
  full: "its disk is full; free some space",
  read_only: "its disk is read-only; see why (dmesg, mount) and make it writable",
  forbidden: "this user may not write there; correct the owner or the mode",
  missing: "it is not there any more; mount it or put it back, then restart sallyport",
  replaced: "another directory is in its place; mount the right one, then restart sallyport",
  slow: "its disk does not answer; see whether a network file system hangs",
  broken: "its disk reports errors; see dmesg"
}

const trouble = (code: Code): Trouble => ({ code, message: TEXT[code] })

/** Device and inode. Another directory that is mounted in its place has another identity. */
export type Identity = string

/**
 * Returns what prevents writing to the directory now, or `null` if nothing does. With `known`, a
 * result of `identify`, it also notices that another directory is mounted at the same path.
 */
export const look = (dir: string, known: Identity | null = null): Effect.Effect<Trouble | null> =>
  Effect.tryPromise(() => ask(dir, known)).pipe(
    Effect.catchAll(({ error }) => Effect.succeed(trouble(BY_ERRNO[codeOf(error)] ?? "broken"))),
    Effect.timeoutTo({ duration: PATIENCE, onSuccess: (found) => found, onTimeout: () => trouble("slow") })
  )

/**
 * Returns the identity of the directory for a later `look`. `null` if the directory cannot be read.
 */
export const identify = (dir: string): Effect.Effect<Identity | null> =>
  Effect.tryPromise(() => identityOf(dir)).pipe(
    Effect.timeout(PATIENCE),
    Effect.orElseSucceed(() => null)
  )

/**
 * Checks the directory again and again until the fiber ends. `onChange` is called whenever the
 * trouble has changed. There is none at first.
 */
export const watch = (
  dir: string,
  known: Identity | null,
  onChange: (now: Trouble | null) => Effect.Effect<void>
): Effect.Effect<never> =>
  Effect.gen(function*() {
    let before: Code | null = null
    return yield* Effect.forever(Effect.gen(function*() {
      const now = yield* look(dir, known)
      if ((now?.code ?? null) !== before) yield* onChange(now)
      before = now?.code ?? null
      yield* Effect.sleep(LOOK_EVERY)
    }))
  })

/**
 * Runs the effect, and repeats it every few seconds while it fails because the disk is full,
 * read-only or does not answer. It logs the first failure. Failures with another cause are not
 * repeated, nor are those that `isOfFiles` does not count as failures to read or write files.
 */
export const patiently = <A, E extends { readonly message: string }, R>(
  dir: string,
  isOfFiles: (error: E) => boolean,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    let told = ""
    return Effect.retry(effect, {
      while: (error) =>
        Effect.gen(function*() {
          const found = isOfFiles(error) ? yield* look(dir) : null
          if (found === null || !PASSING.has(found.code)) return false
          if (told !== found.code) {
            yield* Effect.logWarning(`waiting for the state directory: ${found.message}`).pipe(
              Effect.annotateLogs({ stateDir: dir, error: error.message })
            )
          }
          told = found.code
          yield* Effect.sleep(LOOK_EVERY)
          return true
        })
    })
  })

const PASSING: ReadonlySet<Code> = new Set<Code>(["full", "read_only", "slow"])

const ask = async (dir: string, known: Identity | null): Promise<Trouble | null> => {
  if (known !== null && known !== await identityOf(dir)) return trouble("replaced")
  await access(dir, constants.W_OK)
  const { bavail, bfree, bsize, ffree, files } = await statfs(dir)
  // What is reserved is for root alone. A file system without a limit on files says 0.
  const free = (process.getuid?.() === 0 ? bfree : bavail) * bsize
  return free < MIN_FREE_BYTES || (files > 0 && ffree === 0) ? trouble("full") : null
}

const identityOf = async (dir: string): Promise<Identity> => {
  const { dev, ino } = await stat(dir)
  return `${dev}:${ino}`
}

const BY_ERRNO: Readonly<Record<string, Code>> = {
  EROFS: "read_only",
  EACCES: "forbidden",
  EPERM: "forbidden",
  ENOENT: "missing",
  ENOTDIR: "missing"
}

const codeOf = (error: unknown): string =>
  typeof error === "object" && error !== null && "code" in error ? String(error.code) : ""
