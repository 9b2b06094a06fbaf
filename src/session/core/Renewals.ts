/**
 * Keeps a page's session permitted while the session is used, and ends it when it is not used any
 * more or nothing permits it. `actors/mux/SessionUpkeep` does the same for the sessions of nodes.
 */
import type { Grant } from "../../protocol/trust/Documents.ts"
import { LIFETIMES } from "../../protocol/trust/Lifetimes.ts"
import type * as Signed from "../../protocol/trust/Signed.ts"
import type { FlowCount } from "./FlowCount.ts"

/** Remaining life of a grant, in seconds, at which it is renewed. */
const RENEW_BEFORE_SECONDS = 150
/**
 * Age at which a ticket is renewed although the grant is fresh, in milliseconds. Each change of
 * rules brings a new grant but no ticket, so where rules change often the grant alone would never
 * cause a renewal. The relay forgets a session whose ticket has expired.
 */
export const RENEW_TICKET_AFTER_MS = LIFETIMES.ticket * 500
/** Time without flows after which a session ends, in milliseconds. */
const IDLE_MS = 300_000
/** How often a session checks its documents and whether it is still used, in milliseconds. */
const LOOK_MS = 5_000

/** A renewed grant, decoded and as it was signed. */
export interface Renewed {
  readonly grant: Grant
  readonly signed: Signed.Signed
}

/** Options of {@link Renewals}. */
export interface Options {
  /** Count of the session's flows, by `performance.now`. */
  readonly flows: Pick<FlowCount, "flows" | "lastAt">
  /** Seconds until the grant expires. */
  readonly leftSeconds: () => number
  /**
   * Fetches a new grant and ticket. Rejects if the permission has ended, or if the relay cannot be
   * reached now.
   */
  readonly renew: () => Promise<Renewed>
  /** Called with each renewed grant. */
  readonly onRenewed: (renewed: Renewed) => void
  /** Ends the session. It must call `stop`. */
  readonly end: (why: string) => void
}

/** The periodic check of one session. It runs from the start until `stop`. */
export class Renewals {
  readonly #options: Options
  readonly #timer: ReturnType<typeof setInterval>
  #ticketAt = performance.now()
  #isRenewing = false

  constructor(options: Options) {
    this.#options = options
    this.#timer = setInterval(() => this.#look(), LOOK_MS)
  }

  /** Stops the check for good. */
  stop(): void {
    clearInterval(this.#timer)
  }

  #look(): void {
    const now = performance.now()
    const left = this.#options.leftSeconds()
    const { end, flows } = this.#options
    if (flows.flows === 0 && now - flows.lastAt > IDLE_MS) return end("not used any more")
    if (left <= 0) return end("the grant has expired and could not be renewed")
    const isDue = left <= RENEW_BEFORE_SECONDS || now - this.#ticketAt >= RENEW_TICKET_AFTER_MS
    if (!isDue || this.#isRenewing) return
    this.#isRenewing = true
    this.#options.renew().then(
      (renewed) => this.#onRenewed(renewed),
      () => undefined // tried again at the next look, until the grant ends
    ).finally(() => {
      this.#isRenewing = false
    })
  }

  #onRenewed(renewed: Renewed): void {
    this.#ticketAt = performance.now()
    this.#options.onRenewed(renewed)
  }
}
