/**
 * Whether a peer still wants packets at an address (RFC 7675): it says so by every sealed message that comes from there, which
 * nobody else can make and which counts once. Where it has said nothing for half a minute, nothing but the questions leaves.
 *
 * That a message bears an address does not show that its sender is there. Until a question that was sent there is answered, no more
 * goes there than a few times what came (RFC 9000, section 8.1), so that no peer can turn a flow on somebody else. The question is
 * of these lines: a peer could guess the numbers of the prober's.
 */
import { randomBytes } from "node:crypto"
import { TX_ID_BYTES } from "../../protocol/PathMessage.ts"
import { SLOTS } from "../quic/QuicEngine.ts"

/** RFC 7675, section 5.1. Longer than the longest keepalive, `PathMachine.KEEPALIVE_MS`. */
export const CONSENT_MS = 30_000
const UNPROVED_FACTOR = 3

export class Consent {
  readonly #givenAt = new Float64Array(SLOTS).fill(-Infinity)
  /** Bytes that may still leave; Infinity: the peer has shown that it is there. */
  readonly #credit = new Float64Array(SLOTS)
  readonly #questions = new Map<number, string>()

  /** Another address lies under the slot. */
  forget(slot: number): void {
    this.#givenAt[slot] = -Infinity
    this.#credit[slot] = 0
    this.#questions.delete(slot)
  }

  /** The address under slot `from` (-1: under none) lies under `to` from now on. */
  move(from: number, to: number): void {
    if (from === to) return
    this.forget(to)
    if (from < 0) return
    this.#givenAt[to] = this.#givenAt[from]!
    this.#credit[to] = this.#credit[from]!
    this.forget(from)
  }

  /** True: it had lapsed. `now`: ms, monotonic. */
  renew(slot: number, now: number): boolean {
    const lapsed = now - this.#givenAt[slot]! > CONSENT_MS
    if (lapsed) this.forget(slot)
    this.#givenAt[slot] = now
    return lapsed
  }

  onReceived(slot: number, bytes: number): void {
    this.#credit[slot]! += UNPROVED_FACTOR * bytes
  }

  /** A ping's number, hex, to be sent to the slot's address; null: the peer has shown that it is there. */
  question(slot: number): string | null {
    if (this.#credit[slot] === Infinity) return null
    const question = this.#questions.get(slot) ?? randomBytes(TX_ID_BYTES).toString("hex")
    this.#questions.set(slot, question)
    return question
  }

  /** A pong came from the slot's address. True: it is the answer. */
  onPong(slot: number, txId: string): boolean {
    if (this.#questions.get(slot) !== txId) return false
    this.#questions.delete(slot)
    this.#credit[slot] = Infinity
    return true
  }

  /** Whether so many bytes may leave. */
  take(slot: number, bytes: number, now: number): boolean {
    if (now - this.#givenAt[slot]! > CONSENT_MS || this.#credit[slot]! < bytes) return false
    this.#credit[slot]! -= bytes
    return true
  }
}
