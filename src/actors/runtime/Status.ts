/** What the supervisor tells of its threads and actors. */
import * as Restart from "./Restart.ts"
import type { Health } from "./ThreadContract.ts"

export type State = "waiting" | "starting" | "up" | "restarting" | "gave_up" | "stopped"

export interface ActorStatus {
  readonly name: string
  readonly state: State
  readonly incarnation: number
  readonly restarts: number
  /** When it came into this state, ms since the epoch. */
  readonly since: number
  readonly lastError: string | null
  /** As of the last health report, at most `HEALTH_INTERVAL` old. */
  readonly queues: Health["actors"][number]["queues"]
}

export interface ThreadStatus extends Omit<ActorStatus, "queues"> {
  readonly health: Omit<Health, "actors"> | null
  readonly actors: ReadonlyArray<ActorStatus>
}

/** A change of one thread's or actor's state; `message` is the error when it died or gave up. */
export interface Event {
  readonly at: number
  readonly kind: "thread" | "actor"
  readonly name: string
  readonly state: State
  readonly incarnation: number
  readonly message: string | null
}

/** Changed only by `mark` and by the loop of its thread or actor. */
export type Entry = {
  readonly kind: "thread" | "actor"
  readonly name: string
  state: State
  incarnation: number
  row: Restart.Row
  restarts: number
  since: number
  sinceMonotonicMs: number
  /** When it was last up, or was made; `null` while it is up, and once it is stopped. Monotonic ms. */
  downSinceMs: number | null
  lastError: string | null
  isOptional: boolean
}

export const newEntry = (kind: Entry["kind"], name: string, nowMs: number): Entry => ({
  kind,
  name,
  state: "waiting",
  incarnation: 0,
  row: Restart.NO_ROW,
  restarts: 0,
  since: 0,
  sinceMonotonicMs: 0,
  downSinceMs: nowMs,
  lastError: null,
  isOptional: false
})

/** What threads and actors have in common in the status. */
export const ofEntry = ({ incarnation, lastError, name, restarts, since, state }: Entry) => ({
  name,
  state,
  incarnation,
  restarts,
  since,
  lastError
})
