/**
 * Which path lies under which of a session's fixed QUIC slots. Slot 0 is the first relay's for good; other paths share the rest,
 * and the one that was used longest ago makes room for a new one.
 */
import { keyOf, type PathRef, RELAY } from "../../protocol/PathRef.ts"
import { SLOTS } from "../quic/QuicEngine.ts"

export const RELAY_SLOT = 0

/** As `PathRef.keyOf` for a direct path to this address. */
export const addressKey = (host: string, port: number): string => `${host}|${port}`

interface Use {
  path: PathRef
  key: string
  /** Counts up with every use; the smallest is the longest ago. */
  at: number
}

export class Slots {
  readonly #uses: Array<Use | null> = Array.from({ length: SLOTS }, () => null)
  readonly #byKey = new Map<string, number>()
  #clock = 0

  constructor() {
    this.#uses[RELAY_SLOT] = { path: RELAY, key: keyOf(RELAY), at: 0 }
    this.#byKey.set(keyOf(RELAY), RELAY_SLOT)
  }

  /** The path under a slot; null: none yet. */
  pathOf(slot: number): PathRef | null {
    return this.#uses[slot]?.path ?? null
  }

  /** -1: the path is under no slot. */
  slotOf(key: string): number {
    return this.#byKey.get(key) ?? -1
  }

  touch(slot: number): void {
    const use = this.#uses[slot]
    if (use) use.at = ++this.#clock
  }

  /** The path's slot, taken from the longest unused path (`evicted`) if it has none. Never `keep`'s, which is in use. */
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

  /** Puts a path under a slot that has another one, which is forgotten; so is a slot that the path had. Answers with the other one. */
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

  /** Those beside the first relay. */
  otherPaths(): Array<PathRef> {
    return this.#uses.flatMap((use, slot) => (use !== null && slot !== RELAY_SLOT ? [use.path] : []))
  }
}
