/**
 * Limits how many flows a node has at once. A connection at a listener, or a dial to a resource,
 * holds one place while it has its socket. When all places are taken, or the process is short of
 * descriptors, the flow that has been idle longest is cut. If none is idle, the new one is refused.
 */
import * as Descriptors from "../../services/host/Descriptors.ts"
import * as Limits from "../../services/telemetry/Limits.ts"

/** Most flows of one node at once, unless the configuration says otherwise. */
export const DEFAULT_FLOWS = 4096
/**
 * Idle time in milliseconds after which a flow may be cut to make room. Many NATs also drop TCP
 * connections that are idle this long.
 */
export const IDLE_MS = 5 * 60_000
/**
 * Time in milliseconds after which a connection that has not named its target may be cut to make
 * room. Programs name it within milliseconds.
 */
export const MUTE_MS = 2_000
/** Pause in milliseconds after a search that found no idle flow. A search visits every flow. */
const SEARCH_AGAIN_MS = 1_000
/** Interval in milliseconds at which the flows are checked for moved bytes. */
const SAMPLE_MS = 5_000

/** A flow or connection that has a place. */
export interface Occupant {
  /** Bytes moved so far, both directions together. */
  readonly moved: () => number
  /** Closes the socket at once. The occupant still calls `leave`, during this call or later. */
  readonly cut: () => void
}

/** A place that is taken. Its holder must call `leave` when its socket has closed. */
export interface Place {
  /** Reports that the socket is open. From now on it counts among the descriptors in use. */
  readonly opened: () => void
  /**
   * Reports that the connection has named its target. It is a flow from now on and may be idle for
   * {@link IDLE_MS}.
   */
  readonly settle: () => void
  /** Frees the place. */
  readonly leave: () => void
}

interface Held {
  readonly occupant: Occupant
  isSettled: boolean
  hasSocket: boolean
  /** When bytes were last seen to move, or when the place was taken. Milliseconds, monotonic. */
  movedAt: number
  moved: number
}

/** Options of {@link Places}. */
export interface Options {
  /** Most flows of the node at once. */
  readonly flows?: number
  /** Whether this many more descriptors may be used. */
  readonly hasRoom?: (descriptors: number) => boolean
  /** Returns the current time in milliseconds (monotonic). */
  readonly now?: () => number
  /** Called when a limit was reached. */
  readonly met?: (limit: Limits.Limit) => void
}

/**
 * Limit of the flows of one node. Each flow or connection takes a place. {@link Places.tick} must
 * be called regularly.
 */
export class Places {
  readonly #flows: number
  readonly #hasRoom: (descriptors: number) => boolean
  readonly #now: () => number
  readonly #met: (limit: Limits.Limit) => void
  readonly #held = new Set<Held>()
  /** Places whose sockets are not open yet, for example while a name is looked up. */
  #unopened = 0
  /** No search is made before this time, because it would find nothing. */
  #searchAt = -Infinity
  #sampledAt = -Infinity

  constructor(options: Options = {}) {
    this.#flows = options.flows ?? DEFAULT_FLOWS
    this.#hasRoom = options.hasRoom ?? Descriptors.hasRoom
    this.#now = options.now ?? (() => performance.now())
    this.#met = options.met ?? Limits.met
  }

  /** Number of places that are taken. */
  get size(): number {
    return this.#held.size
  }

  /**
   * Takes a place for a flow or connection. If there is no room, it cuts the one that has been idle
   * longest; if none is idle, it returns `null`. `isSettled`: whether the connection's target is
   * known. `hasSocket`: whether its socket is already open, as for an accepted connection.
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

  /** Checks which flows have moved bytes. Call it about once a second. */
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

  /**
   * Cuts the occupant that has been idle longest; its descriptor is free at once. Returns `false`
   * if none is idle.
   */
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
    // The flow may have moved bytes since the last check.
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
