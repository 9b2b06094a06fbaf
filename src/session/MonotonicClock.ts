/** Monotonic time, for intervals and deadlines. It is Effect's clock, so a test can move it. */
import { Clock, Effect } from "effect"

/** Reads the monotonic time in milliseconds, with a fraction. Its zero has no meaning. */
export const nowMs: Effect.Effect<number> = Effect.map(Clock.currentTimeNanos, (nanos) => Number(nanos) / 1e6)
