/**
 * The flight recorder. It keeps the last path decisions with their inputs, and the last state
 * changes of actors and threads.
 *
 * It is always on, bounded, and in the main thread, so that it outlives the parts that it records.
 * It holds no address and no key. A path is shown as a word that is always the same for one address
 * in this process, and that means nothing elsewhere.
 */
import { Schema } from "effect"
import { createHash, randomBytes } from "node:crypto"
import { type Decision, isWebRtc, keyOf, type PathRef, PathState, Reason } from "../../protocol/path/PathRef.ts"

/** A path as it was when the decision was made. */
const Tried = Schema.Struct({
  /** `relay`, `webrtc`, or `direct4-` or `direct6-` with a word for the address. */
  path: Schema.String,
  state: PathState,
  rttMs: Schema.NullOr(Schema.Number),
  loss: Schema.Number,
  costMs: Schema.NullOr(Schema.Number)
})

/** A decision about a session's path. */
export const PathEntry = Schema.TaggedStruct("Path", {
  /** Epoch milliseconds. */
  at: Schema.Number,
  peer: Schema.String,
  session: Schema.String,
  path: Schema.String,
  reason: Reason,
  /**
   * Whether the session moved to another path. If `false`, only the reason for its path changed.
   */
  moved: Schema.Boolean,
  tried: Schema.Array(Tried)
})
export type PathEntry = typeof PathEntry.Type

/** A change of an actor's or a thread's state. */
export const StateEntry = Schema.TaggedStruct("State", {
  /** Epoch milliseconds. */
  at: Schema.Number,
  kind: Schema.Literal("thread", "actor"),
  name: Schema.String,
  state: Schema.String,
  incarnation: Schema.Int,
  /** First line of the error if something broke down, otherwise `null`. */
  message: Schema.NullOr(Schema.String)
})
export type StateEntry = typeof StateEntry.Type

/** A recorded path decision, or a recorded change of state. */
export const Entry = Schema.Union(PathEntry, StateEntry)
export type Entry = typeof Entry.Type

/**
 * Most entries of each kind. The oldest is dropped. The kinds are separate so that a flapping path
 * does not push out an actor's last error. This covers hours of a quiet node and takes at most half
 * a MiB.
 */
const CAPACITY = 512
/** Longest error message that is kept, in characters. */
const MAX_MESSAGE_CHARS = 200

/** A path decision and the session that it is about. */
export interface Decided {
  readonly session: string
  readonly peer: string
  /** The decision. Its `atMs` is epoch milliseconds. */
  readonly decision: Decision
}

/** Keeps the last path decisions and changes of state of this process. */
export class Recorder {
  readonly #paths: Array<PathEntry> = []
  readonly #states: Array<StateEntry> = []
  readonly #listeners = new Set<(entry: Entry) => void>()
  readonly #salt = randomBytes(16)

  onDecision({ decision, peer, session }: Decided): void {
    const { atMs: at, chosen, moved, paths, reason } = decision
    const tried = paths.map(({ costMs, loss, path, rttMs, state }) => ({
      path: this.#word(path),
      state,
      rttMs,
      loss,
      costMs
    }))
    this.#keep(this.#paths, { _tag: "Path", at, peer, session, path: this.#word(chosen), reason, moved, tried })
  }

  onState({ at, incarnation, kind, message, name, state }: Omit<StateEntry, "_tag">): void {
    const [line = ""] = (message ?? "").split("\n")
    const short = message === null ? null : line.slice(0, MAX_MESSAGE_CHARS)
    this.#keep(this.#states, { _tag: "State", at, kind, name, state, incarnation, message: short })
  }

  /** Returns all kept entries, oldest first. */
  entries(): ReadonlyArray<Entry> {
    return [...this.#paths, ...this.#states].toSorted((left, right) => left.at - right.at)
  }

  /**
   * Calls `onEntry` for all kept entries, oldest first, and then for each new one. Returns a
   * function that stops this.
   */
  listen(onEntry: (entry: Entry) => void): () => void {
    for (const entry of this.entries()) onEntry(entry)
    this.#listeners.add(onEntry)
    return () => void this.#listeners.delete(onEntry)
  }

  #keep<A extends Entry>(ring: Array<A>, entry: A): void {
    ring.push(entry)
    if (ring.length > CAPACITY) ring.shift()
    for (const onEntry of this.#listeners) onEntry(entry)
  }

  #word(path: PathRef): string {
    if (path.kind === "relay") return isWebRtc(path) ? "webrtc" : "relay"
    const hash = createHash("sha256").update(this.#salt).update(keyOf(path)).digest("hex")
    return `direct${path.family}-${hash.slice(0, 4)}`
  }
}
