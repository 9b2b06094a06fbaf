/**
 * Assigns a session's paths to its fixed QUIC slots. Slot 0 permanently belongs to the first relay.
 * Other paths share the rest, and a new path replaces the one that was used least recently.
 */
import { keyOf, type PathRef, RELAY } from "../../protocol/path/PathRef.ts"
import { SLOTS } from "../quic/engine/QuicEngine.ts"

/** Slot of the home relay. */
export const RELAY_SLOT = 0

/** Key of a direct path to this address, equal to `PathRef.keyOf`. */
export const addressKey = (host: string, port: number): string => `${host}|${port}`

interface Use {
  path: PathRef
  key: string
  /** Counter value at the last use. The smallest belongs to the least recently used path. */
  at: number
}

/** The paths in the QUIC slots of one session. */
export class Slots {
  readonly #uses: Array<Use | null> = Array.from({ length: SLOTS }, () => null)
  readonly #byKey = new Map<string, number>()
  #clock = 0

  constructor() {
    this.#uses[RELAY_SLOT] = { path: RELAY, key: keyOf(RELAY), at: 0 }
    this.#byKey.set(keyOf(RELAY), RELAY_SLOT)
  }

  /** The path of a slot. `null` if the slot is empty. */
  pathOf(slot: number): PathRef | null {
    return this.#uses[slot]?.path ?? null
  }

  /** The slot of a path. -1 if it has none. */
  slotOf(key: string): number {
    return this.#byKey.get(key) ?? -1
  }

  /** Notes that the slot was used just now. */
  touch(slot: number): void {
    const use = this.#uses[slot]
    if (use) use.at = ++this.#clock
  }

  /**
   * Returns the path's slot. A path without one replaces the least recently used path (`evicted`),
   * but never the one in slot `keep`, which is in use.
   */
  take(
    path: PathRef,
    keep: number
  ): { readonly slot: number; readonly fresh: boolean; readonly evicted: PathRef | null } {
    const key = keyOf(path)
    const known = this.slotOf(key)
    if (known >= 0) {
      this.touch(known)
      return { slot: known, fresh: false, evicted: null }
    }
    let slot = -1
    for (let i = RELAY_SLOT + 1; i < SLOTS; i++) {
      if (i === keep) continue
      if (this.#uses[i] === null) {
        slot = i
        break
      }
      if (slot < 0 || this.#uses[i]!.at < this.#uses[slot]!.at) slot = i
    }
    const evicted = this.#uses[slot]?.path ?? null
    if (evicted !== null) this.#byKey.delete(keyOf(evicted))
    this.#uses[slot] = { path, key, at: ++this.#clock }
    this.#byKey.set(key, slot)
    return { slot, fresh: true, evicted }
  }

  /**
   * Assigns another path to a slot and returns the slot's previous path. If `path` had another
   * slot, that slot becomes empty.
   */
  repoint(slot: number, path: PathRef): PathRef | null {
    const key = keyOf(path)
    const had = this.slotOf(key)
    if (had >= 0) this.#uses[had] = null
    const before = this.#uses[slot] ?? null
    if (before !== null) this.#byKey.delete(before.key)
    this.#uses[slot] = { path, key, at: ++this.#clock }
    this.#byKey.set(key, slot)
    return before?.path ?? null
  }

  /** All paths that have a slot, except the home relay. */
  otherPaths(): Array<PathRef> {
    return this.#uses.flatMap((use, slot) => (use !== null && slot !== RELAY_SLOT ? [use.path] : []))
  }
}
