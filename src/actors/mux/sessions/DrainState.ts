/**
 * Whether a connector takes new sessions, and what it tells its peers about that. Nodes and
 * browsers are drained alike.
 */
import { DRAINING, type Draining } from "../StreamMuxRpcs.ts"

/** A session that can be drained. */
export interface Drained {
  /** Number of open flows. */
  readonly flows: number
  /** Asks the peer to open no new flows. */
  readonly goAway: (reason: string) => void
  /** Takes back `goAway` where the peer has not received it yet. */
  readonly stay?: () => void
}

/** The drain of one set of sessions. */
export class DrainState {
  #isOn: boolean

  constructor(isOn: boolean) {
    this.#isOn = isOn
  }

  /** Whether new sessions are declined. */
  get isOn(): boolean {
    return this.#isOn
  }

  /** Asks for no flows in a session that came up during the drain. */
  onUp(session: Drained): void {
    if (this.#isOn) session.goAway(DRAINING)
  }

  /**
   * Declines new sessions from now on and asks clients for no more flows in the open ones, or
   * takes new sessions again.
   */
  set(wanted: boolean, sessions: ReadonlyArray<Drained>): Draining {
    for (const session of sessions) {
      if (wanted && !this.#isOn) session.goAway(DRAINING)
      if (!wanted) session.stay?.()
    }
    this.#isOn = wanted
    return { sessions: sessions.length, flows: sessions.reduce((sum, { flows }) => sum + flows, 0) }
  }
}
