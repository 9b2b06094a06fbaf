/** Time limit of the process's stop. When it is over, the process ends at once. */
import { Duration, Effect, Fiber } from "effect"
import { EXIT_FAILURE } from "./CliError.ts"

/** Longest time of a stop that waits for no flows, in seconds. */
const DEFAULT_SECONDS = 20

let limit: Fiber.RuntimeFiber<void> | null = null

const start = (seconds: number): void => {
  if (limit !== null) Effect.runFork(Fiber.interrupt(limit))
  const end = Effect.sync(() => {
    process.stderr.write(`sallyport: could not stop within ${seconds} s; ended at once, open flows are cut\n`)
    process.exit(EXIT_FAILURE)
  })
  limit = Effect.runFork(Effect.delay(end, Duration.seconds(seconds)))
}

/** Starts the limit when a signal has asked the process to stop. */
export const begin = (): void => start(DEFAULT_SECONDS)

/** Starts the limit again with `seconds`. Does nothing unless a signal has asked for the stop. */
export const restart = (seconds: number): void => {
  if (limit !== null) start(seconds)
}
