/**
 * Whether a peer still wants packets at an address (RFC 7675): it says so by every sealed message that comes from there, which
 * nobody else can make and which counts once. Where it has said nothing for half a minute, nothing but the questions leaves.
 */
import { SLOTS } from "../quic/QuicEngine.ts"

/** RFC 7675, section 5.1. Longer than the longest keepalive, `PathMachine.KEEPALIVE_MS`. */
export const CONSENT_MS = 30_000

export class Consent {
  readonly #givenAt = new Float64Array(SLOTS).fill(-Infinity)

  /** True: it had lapsed. `now`: ms, monotonic. */
  renew(slot: number, now: number): boolean {
    const lapsed = !this.isGiven(slot, now)
    this.#givenAt[slot] = now
    return lapsed
  }

  isGiven(slot: number, now: number): boolean {
    return now - this.#givenAt[slot]! <= CONSENT_MS
  }
}
