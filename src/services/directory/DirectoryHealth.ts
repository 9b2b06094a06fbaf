/**
 * Whether the directory can be written, and how fast. The relay stores its time there every few
 * seconds, and each of these writes is one test of the disk.
 */
import { Duration, Effect } from "effect"

/** A write of a few pages that takes longer is the disk's fault. Each new session waits for one. */
const SLOW_WRITE_MS = 2000

/** Health of the directory, as the last write has shown it. */
export interface Health {
  /** Why the directory cannot be written. `null` if it can. */
  readonly problem: string | null
  /** How long a slow write took, in ms. `null` if the last one was not slow. */
  readonly slowWriteMs: number | null
}

/**
 * Makes the check around `write`. A change for the worse is logged once, and so is the end of a
 * failure.
 */
export const make = (write: Effect.Effect<unknown, { readonly message: string }>) => {
  let problem: string | null = null
  let slowWriteMs: number | null = null

  const noteTime = (tookMs: number) => {
    const wasSlow = slowWriteMs !== null
    slowWriteMs = tookMs > SLOW_WRITE_MS ? tookMs : null
    return wasSlow || slowWriteMs === null
      ? Effect.void
      : Effect.logWarning(`the directory's disk is slow: one write took ${(tookMs / 1000).toFixed(1)} s`)
  }
  return {
    get now(): Health {
      return { problem, slowWriteMs }
    },
    /** Writes once, and notes what came of it. Never fails. */
    write: write.pipe(
      Effect.timed,
      Effect.flatMap(([took]) => noteTime(Duration.toMillis(took))),
      Effect.matchEffect({
        onFailure: ({ message }) => {
          if (message === problem) return Effect.void
          problem = message
          return Effect.logWarning(`the directory cannot be written: ${message}`)
        },
        onSuccess: () => {
          if (problem === null) return Effect.void
          problem = null
          return Effect.logInfo("the directory can be written again")
        }
      })
    )
  } as const
}
