/**
 * The directory's time, by which everything that the authority signs is dated and judged. It is taken from this machine's clock
 * when the relay starts, and counts on by the machine's uptime: a clock that is set while the relay runs ends nothing and
 * revives nothing. The directory keeps the latest time that was seen, so a relay that starts with a clock set back goes on
 * from there.
 */
import { Clock, Context, Effect } from "effect"
import { HostClock } from "./HostClock.ts"

/** Where nothing else is provided, as in commands and tests, it is the clock of this machine. */
export class DirectoryClock extends Context.Reference<DirectoryClock>()("sallyport/services/DirectoryClock", {
  defaultValue: (): { readonly nowMs: Effect.Effect<number> } => ({ nowMs: Clock.currentTimeMillis })
}) {}

/** Epoch milliseconds. */
export const nowMs: Effect.Effect<number> = Effect.flatMap(DirectoryClock, (clock) => clock.nowMs)
/** Epoch seconds. */
export const nowSeconds: Effect.Effect<number> = Effect.map(nowMs, (ms) => Math.floor(ms / 1000))

export interface Running {
  /** How far this clock is ahead of `HostClock`, milliseconds. */
  readonly offsetMs: number
  readonly nowMs: Effect.Effect<number>
  /** How far this machine's own clock is ahead of this one, milliseconds. */
  readonly clockAheadMs: Effect.Effect<number>
}

/** `latestMs`: what the directory remembers; 0 if nothing. */
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
