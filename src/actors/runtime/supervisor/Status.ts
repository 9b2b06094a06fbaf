/** State of the supervisor's threads and actors, as it reports it. */
import type { Health } from "../thread/ThreadContract.ts"
import * as Restart from "./Restart.ts"

/**
 * State of a thread or an actor. `waiting`: an actor waits for its thread. `restarting`: it died,
 * and the next incarnation follows after a delay. `gave_up`: it is not restarted any more.
 */
export type State = "waiting" | "starting" | "up" | "restarting" | "gave_up" | "stopped"

/** Status of one actor. */
export interface ActorStatus {
  readonly name: string
  readonly state: State
  /** Number of the current incarnation. */
  readonly incarnation: number
  /** Number of restarts since the process started. */
  readonly restarts: number
  /** When the actor or thread came into this state, in ms since the epoch. */
  readonly since: number
  /** Error of the last death. `null` if there was none. */
  readonly lastError: string | null
  /** Queues as of the last health report, which is at most `HEALTH_INTERVAL` old. */
  readonly queues: Health["actors"][number]["queues"]
}

/**
 * Status of one thread and of the actors on it. `health` is `null` until the thread has reported.
 */
export interface ThreadStatus extends Omit<ActorStatus, "queues"> {
  readonly health: Omit<Health, "actors"> | null
  readonly actors: ReadonlyArray<ActorStatus>
}

/**
 * A change of the state of one thread or actor. `message` is the error when it died or was given
 * up.
 */
export interface Event {
  readonly at: number
  readonly kind: "thread" | "actor"
  readonly name: string
  readonly state: State
  readonly incarnation: number
  readonly message: string | null
}

/**
 * State of a thread or an actor inside the supervisor. Only `mark` and the loop of that thread or
 * actor change it.
 */
export type Entry = {
  readonly kind: "thread" | "actor"
  readonly name: string
  state: State
  incarnation: number
  row: Restart.Row
  restarts: number
  since: number
  /** When the thread or actor came into its present state, in ms (monotonic). */
  sinceMonotonicMs: number
  /**
   * When the thread or actor was last up, in ms (monotonic). If it never was, when it was made.
   * `null` while it is up, and after it was stopped.
   */
  downSinceMs: number | null
  lastError: string | null
  isOptional: boolean
}

/** Returns the entry of a thread or an actor that has not been started. */
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

/** Returns the part of the status that threads and actors have in common. */
export const ofEntry = ({ incarnation, lastError, name, restarts, since, state }: Entry) => ({
  name,
  state,
  incarnation,
  restarts,
  since,
  lastError
})
