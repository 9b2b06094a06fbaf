/** Decides when a thread or an actor that died is started again, and when it is given up. Pure. */
import { Duration } from "effect"

export interface Policy {
  /** Delay before the first restart in a row; each later one doubles, up to `max`. */
  readonly first: Duration.DurationInput
  readonly max: Duration.DurationInput
  /** An incarnation that was up this long ends the row. */
  readonly forgetAfter: Duration.DurationInput
  /** Restarts in a row after which the next death may be given up. */
  readonly limit: number
  /**
   * How long a row has to last before it is given up. A cause outside, such as a lack of file descriptors, gets this long to
   * pass. It does not count for what was never up: a mistake at the start is told at once.
   */
  readonly patience: Duration.DurationInput
}

/** About 17 restarts in the two minutes of patience. */
export const DEFAULT: Policy = {
  first: "25 millis",
  max: "15 seconds",
  forgetAfter: "1 minute",
  limit: 5,
  patience: "2 minutes"
}

/** Restarts that follow one another too fast: each died again within `forgetAfter`. */
export interface Row {
  readonly restarts: number
  /** When the first death of the row happened, ms. */
  readonly sinceMs: number
}
export const NO_ROW: Row = { restarts: 0, sinceMs: 0 }

export type Next =
  | { readonly _tag: "Restart"; readonly row: Row; readonly delayMs: number }
  | { readonly _tag: "GiveUp" }

export interface Died {
  /** Monotonic ms. */
  readonly nowMs: number
  /** How long the incarnation had been up; 0 if it never was. */
  readonly upMs: number
  /** Whether any incarnation has been up. */
  readonly wasUp: boolean
  /** 0 to 1: makes 80 to 120 % of the delay. */
  readonly jitter: number
}

export const next = (policy: Policy, before: Row, { jitter, nowMs, upMs, wasUp }: Died): Next => {
  const isNew = before.restarts === 0 || upMs >= Duration.toMillis(policy.forgetAfter)
  const row = isNew ? { restarts: 0, sinceMs: nowMs } : before
  const patienceMs = wasUp ? Duration.toMillis(policy.patience) : 0
  if (row.restarts >= policy.limit && nowMs - row.sinceMs >= patienceMs) return { _tag: "GiveUp" }
  const delayMs = Math.min(Duration.toMillis(policy.first) * 2 ** row.restarts, Duration.toMillis(policy.max))
  return { _tag: "Restart", row: { ...row, restarts: row.restarts + 1 }, delayMs: delayMs * (0.8 + 0.4 * jitter) }
}
