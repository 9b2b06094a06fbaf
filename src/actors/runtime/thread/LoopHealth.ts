/** Measures how late and how busy this thread's event loop is, and how large its heap is. */
import { Effect, type Scope } from "effect"
import { monitorEventLoopDelay, performance } from "node:perf_hooks"
import type { Health } from "./ThreadContract.ts"

/**
 * Resolution of the delay measurement. It is also part of each measured delay, and is subtracted.
 * Each measurement wakes the thread, so a finer one would cost an idle node more.
 */
const RESOLUTION_MS = 50
/**
 * Number of readings after which the older of two delay histograms starts over. The percentile
 * therefore covers 10 to 20 readings, so a single late moment does not set it.
 */
const READINGS = 10

/** A histogram of how late timers of this thread's event loop fired, in nanoseconds. */
export interface DelayMonitor {
  /** Largest delay since the last reset. */
  readonly max: number
  readonly percentile: (percent: number) => number
  readonly reset: () => void
}

/**
 * Returns an effect that reads the load of an event loop. Run it once a second. The largest delay
 * and the utilization are those since the previous reading.
 */
export const makeWith = Effect.fnUntraced(
  function*(watch: Effect.Effect<DelayMonitor, never, Scope.Scope>) {
    const latest = yield* watch
    let [older, newer] = [yield* watch, yield* watch]
    let readings = 0
    let utilization = performance.eventLoopUtilization()
    return Effect.sync(() => {
      const now = performance.eventLoopUtilization()
      const health = {
        loopDelayP99Ms: lateness(older.percentile(99)),
        loopDelayMaxMs: lateness(latest.max),
        loopUtilization: performance.eventLoopUtilization(now, utilization).utilization,
        heapUsedBytes: process.memoryUsage().heapUsed
      }
      utilization = now
      latest.reset()
      readings++
      if (readings % READINGS === 0) {
        older.reset()
        ;[older, newer] = [newer, older]
      }
      return health
    })
  }
)

const watchLoop = Effect.acquireRelease(
  Effect.sync(() => {
    const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
    delay.enable()
    return delay
  }),
  (delay) => Effect.sync(() => delay.disable())
)

/** Same as `makeWith`, for the event loop of the calling thread. */
export const make: Effect.Effect<Effect.Effect<Omit<Health, "actors" | "limits">>, never, Scope.Scope> = makeWith(
  watchLoop
)

const lateness = (nanoseconds: number): number => Math.max(0, nanoseconds / 1e6 - RESOLUTION_MS)
