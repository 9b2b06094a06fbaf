/**
 * The flight recorder: the last decisions about paths with what they were made on, and the last changes of actors and threads.
 * Always on, bounded, in main, so that it outlives whatever it tells of. It holds no address and no key: a path is shown by
 * a word that is the same for the same address in this process, and says nothing elsewhere.
 */
import { Schema } from "effect"
import { createHash, randomBytes } from "node:crypto"
import { type Decision, isWebRtc, keyOf, type PathRef, PathState, Reason } from "../../protocol/PathRef.ts"

const Tried = Schema.Struct({
  /** `relay`, `webrtc`, or `direct4-` and `direct6-` with a word for the address. */
  path: Schema.String,
  state: PathState,
  rttMs: Schema.NullOr(Schema.Number),
  loss: Schema.Number,
  costMs: Schema.NullOr(Schema.Number)
})

export const PathEntry = Schema.TaggedStruct("Path", {
  /** Epoch ms. */
  at: Schema.Number,
  peer: Schema.String,
  session: Schema.String,
  path: Schema.String,
  reason: Reason,
  /** False: the path stayed, and only the reason for it changed. */
  moved: Schema.Boolean,
  tried: Schema.Array(Tried)
})
export type PathEntry = typeof PathEntry.Type

export const StateEntry = Schema.TaggedStruct("State", {
  at: Schema.Number,
  kind: Schema.Literal("thread", "actor"),
  name: Schema.String,
  state: Schema.String,
  incarnation: Schema.Int,
  /** Why, where something broke down: the first line. */
  message: Schema.NullOr(Schema.String)
})
export type StateEntry = typeof StateEntry.Type

export const Entry = Schema.Union(PathEntry, StateEntry)
export type Entry = typeof Entry.Type

/** Of each kind, so that a path that flaps does not push out what an actor died of: hours of a quiet node, half a MiB at most. */
const CAPACITY = 512
const MAX_MESSAGE_CHARS = 200

export interface Decided {
  readonly session: string
  readonly peer: string
  /** `atMs`: epoch. */
  readonly decision: Decision
}

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

  /** Oldest first. */
  entries(): ReadonlyArray<Entry> {
    return [...this.#paths, ...this.#states].toSorted((left, right) => left.at - right.at)
  }

  /** All that is kept, oldest first, then each as it comes; answers with how to stop that. */
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
