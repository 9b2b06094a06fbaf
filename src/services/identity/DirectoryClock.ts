/**
 * The directory's time. Everything that the authority signs is dated and judged by it.
 *
 * The relay takes it from the machine's clock when it starts, and then advances it by the machine's
 * uptime. Setting the clock while the relay runs therefore neither expires nor revives anything.
 * The directory stores the latest time, so a relay that starts with a clock that was set back
 * continues from there.
 */
import { Clock, Context, Effect } from "effect"
import { HostClock } from "../host/HostClock.ts"

/**
 * Source of the directory's time. The default, which commands and tests use, is the clock of this
 * machine.
 */
export class DirectoryClock extends Context.Reference<DirectoryClock>()("sallyport/services/DirectoryClock", {
  defaultValue: (): { readonly nowMs: Effect.Effect<number> } => ({ nowMs: Clock.currentTimeMillis })
}) {}

/** The directory's time in epoch milliseconds. */
export const nowMs: Effect.Effect<number> = Effect.flatMap(DirectoryClock, (clock) => clock.nowMs)
/** The directory's time in epoch seconds. */
export const nowSeconds: Effect.Effect<number> = Effect.map(nowMs, (ms) => Math.floor(ms / 1000))

/** A running directory clock. */
export interface Running {
  /** How far this clock is ahead of `HostClock`, in milliseconds. */
  readonly offsetMs: number
  readonly nowMs: Effect.Effect<number>
  /** How far the wall clock of this machine is ahead of the directory's time, in milliseconds. */
  readonly clockAheadMs: Effect.Effect<number>
}

/**
 * Starts the clock. `latestMs` is the latest time that the directory has stored, or 0 if there is
 * none.
 */
export const start = Effect.fnUntraced(function*(latestMs: number) {
  const host = yield* HostClock
  const offsetMs = Math.max(yield* Clock.currentTimeMillis, latestMs) - host.now()
  const nowMs = Effect.sync(() => Math.floor(host.now() + offsetMs))
  const running: Running = {
    offsetMs,
    nowMs,
    clockAheadMs: Effect.zipWith(Clock.currentTimeMillis, nowMs, (wall, now) => wall - now)
  }
  return running
})
