/**
 * Decides when a dead thread or actor is restarted, and when it is given up. This module is pure.
 */
import { Duration } from "effect"

/** When to restart, and when to give up. */
export interface Policy {
  /** Delay before the first restart in a row. Each later one is twice as long, up to `max`. */
  readonly first: Duration.DurationInput
  readonly max: Duration.DurationInput
  /** How long an incarnation must be up so that its death begins a new row. */
  readonly forgetAfter: Duration.DurationInput
  /** Number of restarts in a row after which the next death may be given up. */
  readonly limit: number
  /**
   * How long a row must last before it is given up, so that an outside cause, such as a lack of
   * file descriptors, has time to pass. It does not apply to something that has never been up: a
   * mistake at the start is reported at once.
   */
  readonly patience: Duration.DurationInput
}

/** Default policy. It allows about 17 restarts in its two minutes of patience. */
export const DEFAULT: Policy = {
  first: "25 millis",
  max: "15 seconds",
  forgetAfter: "1 minute",
  limit: 5,
  patience: "2 minutes"
}

/**
 * Restarts that follow one another too fast, because each incarnation died within `forgetAfter`.
 */
export interface Row {
  readonly restarts: number
  /** When the first death of the row happened, in ms (monotonic). */
  readonly sinceMs: number
}
/** Row of something that has not died yet. */
export const NO_ROW: Row = { restarts: 0, sinceMs: 0 }

/** Decision after a death: restart after `delayMs`, or give up. */
export type Next =
  | { readonly _tag: "Restart"; readonly row: Row; readonly delayMs: number }
  | { readonly _tag: "GiveUp" }

/** One death. */
export interface Died {
  /** When it happened, in ms (monotonic). */
  readonly nowMs: number
  /** How long the incarnation had been up, in ms. 0 if it never was. */
  readonly upMs: number
  /** Whether any incarnation has been up. */
  readonly wasUp: boolean
  /** Random number from 0 to 1. It makes the delay 80 to 120 % of what the policy says. */
  readonly jitter: number
}

/** Decides what follows a death. `before` is the row up to that death. */
export const next = (policy: Policy, before: Row, { jitter, nowMs, upMs, wasUp }: Died): Next => {
  const isNew = before.restarts === 0 || upMs >= Duration.toMillis(policy.forgetAfter)
  const row = isNew ? { restarts: 0, sinceMs: nowMs } : before
  const patienceMs = wasUp ? Duration.toMillis(policy.patience) : 0
  if (row.restarts >= policy.limit && nowMs - row.sinceMs >= patienceMs) return { _tag: "GiveUp" }
  const delayMs = Math.min(Duration.toMillis(policy.first) * 2 ** row.restarts, Duration.toMillis(policy.max))
  return { _tag: "Restart", row: { ...row, restarts: row.restarts + 1 }, delayMs: delayMs * (0.8 + 0.4 * jitter) }
}
