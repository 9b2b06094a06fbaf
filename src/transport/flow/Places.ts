/**
 * The places of one node's flows: a connection at a listener, or a dial to a resource, takes one for as long as it has its
 * socket. When there are as many as allowed, or the process is short of descriptors, the one that has been idle the longest is
 * cut. If none is idle, the new one is refused.
 */
import * as Descriptors from "../../services/Descriptors.ts"
import * as Limits from "../../services/telemetry/Limits.ts"

/** Flows of one node at once, unless the configuration says otherwise. */
export const DEFAULT_FLOWS = 4096
/** A flow that moved nothing for this long may be cut to make room: what many NATs do to idle TCP connections, too. */
export const IDLE_MS = 5 * 60_000
/** A connection that has not said where it wants to go may be cut after this long. Programs say it within milliseconds. */
export const MUTE_MS = 2_000
/** How long no search for an idle one is made after one that found none. */
const SEARCH_AGAIN_MS = 1_000
/** How often it is seen which flows have moved bytes. */
const SAMPLE_MS = 5_000

/** Who has a place. */
export interface Occupant {
  /** Bytes moved in both directions so far. */
  readonly moved: () => number
  /** Closes the socket at once. The occupant calls `leave` itself, then or later. */
  readonly cut: () => void
}

export interface Place {
  /** The socket is there: from now on it is among the descriptors in use. */
  readonly opened: () => void
  /** The connection has said where it wants to go: from then on it is a flow, and may be idle for `IDLE_MS`. */
  readonly settle: () => void
  readonly leave: () => void
}

interface Held {
  readonly occupant: Occupant
  isSettled: boolean
  hasSocket: boolean
  /** When it was last seen to have moved bytes, or came. */
  movedAt: number
  moved: number
}

export interface Options {
  readonly flows?: number
  readonly hasRoom?: (descriptors: number) => boolean
  /** Milliseconds, monotonic. */
  readonly now?: () => number
  readonly met?: (limit: Limits.Limit) => void
}

export class Places {
  readonly #flows: number
  readonly #hasRoom: (descriptors: number) => boolean
  readonly #now: () => number
  readonly #met: (limit: Limits.Limit) => void
  readonly #held = new Set<Held>()
  /** Those whose sockets are still to be opened: a name may have to be looked up first. */
  #unopened = 0
  /** Searching again before that would find nothing either. */
  #searchAt = -Infinity
  #sampledAt = -Infinity

  constructor(options: Options = {}) {
    this.#flows = options.flows ?? DEFAULT_FLOWS
    this.#hasRoom = options.hasRoom ?? Descriptors.hasRoom
    this.#now = options.now ?? (() => performance.now())
    this.#met = options.met ?? Limits.met
  }

  get size(): number {
    return this.#held.size
  }

  /**
   * `null` if there is no room. `isSettled`: whether it is known where the connection wants to go. `hasSocket`: whether its socket
   * is open already, as that of an accepted connection is.
   */
  take(occupant: Occupant, { hasSocket, isSettled }: { hasSocket: boolean; isSettled: boolean }): Place | null {
    if (!this.#makeRoom()) return null
    const held: Held = { occupant, isSettled, hasSocket, movedAt: this.#now(), moved: occupant.moved() }
    this.#held.add(held)
    if (!hasSocket) this.#unopened += 1
    const opened = () => {
      if (!held.hasSocket) this.#unopened -= 1
      held.hasSocket = true
    }
    return {
      opened,
      settle: () => {
        held.isSettled = true
        held.movedAt = this.#now()
      },
      leave: () => {
        opened()
        this.#held.delete(held)
      }
    }
  }

  /** Sees which flows have moved bytes. To be called about once a second. */
  tick(): void {
    const now = this.#now()
    if (now - this.#sampledAt < SAMPLE_MS) return
    this.#sampledAt = now
    for (const held of this.#held) {
      const moved = held.occupant.moved()
      if (moved === held.moved) continue
      held.moved = moved
      held.movedAt = now
    }
  }

  #makeRoom(): boolean {
    const isFull = this.#held.size >= this.#flows
    if (!isFull && this.#hasRoom(this.#unopened + 1)) return true
    this.#met(isFull ? "flows" : "descriptors")
    return this.#cutIdlest()
  }

  /** `false` if nobody is idle. The descriptor of who was cut is free at once. */
  #cutIdlest(): boolean {
    const now = this.#now()
    if (now < this.#searchAt) return false
    let mute: Held | null = null
    let idle: Held | null = null
    for (const held of this.#held) {
      if (held.isSettled) idle = idle === null || held.movedAt < idle.movedAt ? held : idle
      else mute = mute === null || held.movedAt < mute.movedAt ? held : mute
    }
    const isMute = mute !== null && now - mute.movedAt >= MUTE_MS
    // A flow may have moved bytes since it was last seen.
    const isIdle = idle !== null && now - idle.movedAt >= IDLE_MS && idle.occupant.moved() === idle.moved
    const chosen = isMute ? mute : isIdle ? idle : null
    if (chosen === null) {
      this.#searchAt = now + SEARCH_AGAIN_MS
      return false
    }
    this.#held.delete(chosen)
    chosen.occupant.cut()
    return true
  }
}
