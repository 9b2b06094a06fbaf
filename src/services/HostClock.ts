/**
 * Time since this machine started, in milliseconds: a clock that nobody can set, that goes on while the machine sleeps
 * (CLOCK_BOOTTIME), and that all threads and processes of the machine share, within some milliseconds on Linux and a second
 * on macOS. `performance.now()` counts from another moment in each thread, and stands still in a sleep on Linux.
 */
import { Context } from "effect"
import { uptime } from "node:os"

/** How long one reading of the system's uptime serves; reading it is a system call. */
const REREAD_MS = 100
/** A sleep is recognised from this length on: macOS tells its uptime in whole seconds. */
const SHORTEST_SLEEP_MS = 2_000

export interface Sources {
  /** Runs on in a sleep, may be coarse. `null`: the system does not tell. */
  readonly uptimeMs: () => number | null
  /** Fine; may stand still in a sleep. */
  readonly steadyMs: () => number
}

/** A clock over these sources. It never goes back. */
export const make = ({ steadyMs, uptimeMs }: Sources): () => number => {
  let readAt = steadyMs()
  const first = uptimeMs()
  let ahead = first === null ? 0 : first - readAt // the uptime minus the steady clock
  return () => {
    const steady = steadyMs()
    if (steady - readAt >= REREAD_MS) {
      readAt = steady
      const up = first === null ? null : uptimeMs()
      if (up !== null && up - (steady + ahead) >= SHORTEST_SLEEP_MS) ahead = up - steady
    }
    return steady + ahead
  }
}

const systemUptimeMs = (): number | null => {
  try {
    return uptime() * 1000
  } catch {
    return null // refused by a sandbox
  }
}

/** The clock of this thread; a test may provide another one. */
export class HostClock extends Context.Reference<HostClock>()("sallyport/services/HostClock", {
  defaultValue: (): { readonly now: () => number } => ({
    now: make({ uptimeMs: systemUptimeMs, steadyMs: () => Number(process.hrtime.bigint()) / 1e6 })
  })
}) {}
