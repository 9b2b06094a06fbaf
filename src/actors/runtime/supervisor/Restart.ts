/**
 * Decides when a dead thread or actor is restarted, and when it is given up. This module is pure.
 */
import { Duration } from "effect"

/** Rules for when to restart something that died, and when to give it up. */
export interface Policy {
  /** Delay before the first restart in a row. Each later one is twice as long, up to `max`. */
  readonly first: Duration.DurationInput
  readonly max: Duration.DurationInput
  /** How long an incarnation must run so that its death counts as the first one again. */
  readonly forgetAfter: Duration.DurationInput
  /** Number of restarts in a row. The next death after them may end the restarts. */
  readonly limit: number
  /**
   * Shortest time that restarts in a row go on before they end, so that an outside cause, such as a
   * lack of file descriptors, has time to pass. It does not apply to something that has never run:
   * a mistake at the start is reported at once.
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

/** Restarts in a row. Each incarnation died before it had run for `forgetAfter`. */
export interface Row {
  readonly restarts: number
  /** When the first death of the row happened, in ms (monotonic). */
  readonly sinceMs: number
}
/** State of something that has not died yet. */
export const NO_ROW: Row = { restarts: 0, sinceMs: 0 }

/** Decision after a death: restart after `delayMs`, or stop restarting. */
export type Next =
  | { readonly _tag: "Restart"; readonly row: Row; readonly delayMs: number }
  | { readonly _tag: "GiveUp" }

/** Death of one incarnation of a thread or an actor. */
export interface Died {
  /** When it happened, in ms (monotonic). */
  readonly nowMs: number
  /** How long the incarnation had been up, in ms. 0 if it never was. */
  readonly upMs: number
  /** Whether any incarnation has been up. */
  readonly wasUp: boolean
  /**
   * Random number from 0 to 1. It varies the delay between 80 and 120 % of what the policy says.
   */
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
