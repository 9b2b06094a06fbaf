/** How late and how busy the event loop of this thread is, and its heap. */
import { Effect, type Scope } from "effect"
import { monitorEventLoopDelay, performance } from "node:perf_hooks"
import type { Health } from "./ThreadContract.ts"

const RESOLUTION_MS = 20

/** Each reading is about the time since the one before. */
export const make: Effect.Effect<Effect.Effect<Omit<Health, "actors">>, never, Scope.Scope> = Effect.gen(function*() {
  const delay = yield* Effect.acquireRelease(
    Effect.sync(() => monitorEventLoopDelay({ resolution: RESOLUTION_MS })),
    (delay) => Effect.sync(() => delay.disable())
  )
  delay.enable()
  let utilization = performance.eventLoopUtilization()
  return Effect.sync(() => {
    const now = performance.eventLoopUtilization()
    const health = {
      loopDelayP99Ms: Math.max(0, delay.percentile(99) / 1e6 - RESOLUTION_MS),
      loopDelayMaxMs: Math.max(0, delay.max / 1e6 - RESOLUTION_MS),
      loopUtilization: performance.eventLoopUtilization(now, utilization).utilization,
      heapUsedBytes: process.memoryUsage().heapUsed
    }
    utilization = now
    delay.reset()
    return health
  })
})
