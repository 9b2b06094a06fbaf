/** When a thread or an actor that died is started again, and when that is given up. Pure. */
import { Duration } from "effect"

export interface Policy {
  /** Delay before the first restart in a row; each later one doubles, up to `max`. */
  readonly first: Duration.DurationInput
  readonly max: Duration.DurationInput
  /** An incarnation that was up this long makes a new row. */
  readonly forgetAfter: Duration.DurationInput
  /** Restarts in a row; the next death is given up. */
  readonly limit: number
}

export const DEFAULT: Policy = { first: "25 millis", max: "2 seconds", forgetAfter: "10 seconds", limit: 5 }

/** Restarts that follow one another too fast: each died again within `forgetAfter`. */
export type Row = number

export type Next =
  | { readonly _tag: "Restart"; readonly row: Row; readonly delayMs: number }
  | { readonly _tag: "GiveUp" }

/** `upMs`: how long the incarnation that died had been up, 0 if it never was. `jitter`: 0 to 1, makes 80 to 120 % of the delay. */
export const next = (policy: Policy, row: Row, upMs: number, jitter: number): Next => {
  const before = upMs >= Duration.toMillis(policy.forgetAfter) ? 0 : row
  if (before >= policy.limit) return { _tag: "GiveUp" }
  const delayMs = Math.min(Duration.toMillis(policy.first) * 2 ** before, Duration.toMillis(policy.max))
  return { _tag: "Restart", row: before + 1, delayMs: delayMs * (0.8 + 0.4 * jitter) }
}
