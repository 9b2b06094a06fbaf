/**
 * A clock of the time since this machine started, in milliseconds. Nobody can set it, and it
 * advances while the machine sleeps (CLOCK_BOOTTIME). All threads and processes of the machine
 * share it, within some milliseconds on Linux and a second on macOS.
 *
 * `performance.now()` would not do: it counts from a different moment in each thread, and stops
 * during a sleep on Linux.
 */
import { Context } from "effect"
import { uptime } from "node:os"

/**
 * How long one reading of the system's uptime is used, in milliseconds. A reading is a system call.
 */
const REREAD_MS = 100
/**
 * Shortest sleep that is recognised, in milliseconds. macOS reports its uptime in whole seconds.
 */
const SHORTEST_SLEEP_MS = 2_000

/** The two clocks that {@link make} combines. */
export interface Sources {
  /**
   * Uptime in milliseconds. Advances during a sleep and may be coarse. `null` if the system does
   * not report it.
   */
  readonly uptimeMs: () => number | null
  /** Monotonic time in milliseconds. Precise, but may stop during a sleep. */
  readonly steadyMs: () => number
}

/** Creates a clock from these sources. It never goes back. */
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

/** The clock of this thread. A test may provide another one. */
export class HostClock extends Context.Reference<HostClock>()("sallyport/services/HostClock", {
  defaultValue: (): { readonly now: () => number } => ({
    now: make({ uptimeMs: systemUptimeMs, steadyMs: () => Number(process.hrtime.bigint()) / 1e6 })
  })
}) {}
