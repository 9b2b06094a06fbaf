/**
 * Tracks whether a peer still wants packets at an address (RFC 7675). The peer consents by every
 * sealed message from that address; nobody else can make one, and each counts once. If none has
 * come for 30 seconds, no QUIC packets are sent there; path messages still are.
 *
 * The source address of a message does not prove that its sender is there. Until the peer has
 * answered a ping that was sent to the address, QUIC may send there at most three times the bytes
 * that were received (RFC 9000, section 8.1), so that a peer cannot direct a flow at somebody else.
 * These pings have random numbers of their own, because a peer could guess those of the prober.
 */
import { randomBytes } from "node:crypto"
import { TX_ID_BYTES } from "../../protocol/path/PathMessage.ts"
import { SLOTS } from "../quic/engine/QuicEngine.ts"

/**
 * How long consent lasts, in milliseconds (RFC 7675, section 5.1). It is longer than the longest
 * keepalive interval, `PathMachine.KEEPALIVE_MS`.
 */
export const CONSENT_MS = 30_000
/** Bytes that may be sent for each byte received until the peer has proved its address. */
const UNPROVED_FACTOR = 3

/**
 * Consent of a session's peer to receive packets at the addresses of its slots (RFC 7675), and
 * proof that the peer is there.
 */
export class Consent {
  readonly #givenAt = new Float64Array(SLOTS).fill(-Infinity)
  /**
   * Bytes that may still be sent to each slot. `Infinity` if the peer has proved that it is there.
   */
  readonly #credit = new Float64Array(SLOTS)
  readonly #questions = new Map<number, string>()

  /** Discards the consent of a slot whose address has changed. */
  forget(slot: number): void {
    this.#givenAt[slot] = -Infinity
    this.#credit[slot] = 0
    this.#questions.delete(slot)
  }

  /** Moves the consent of an address from slot `from` (-1 if it had none) to slot `to`. */
  move(from: number, to: number): void {
    if (from === to) return
    this.forget(to)
    if (from < 0) return
    this.#givenAt[to] = this.#givenAt[from]!
    this.#credit[to] = this.#credit[from]!
    this.forget(from)
  }

  /** Renews consent. Returns `true` if it had lapsed. `now` is in milliseconds, monotonic. */
  renew(slot: number, now: number): boolean {
    const lapsed = now - this.#givenAt[slot]! > CONSENT_MS
    if (lapsed) this.forget(slot)
    this.#givenAt[slot] = now
    return lapsed
  }

  /**
   * Counts bytes received from an unproved address. They raise the number of bytes that may be sent
   * there.
   */
  onReceived(slot: number, bytes: number): void {
    this.#credit[slot]! += UNPROVED_FACTOR * bytes
  }

  /**
   * Id of a ping to send to the slot's address, in hex. `null` if the peer has already proved that
   * it is there.
   */
  question(slot: number): string | null {
    if (this.#credit[slot] === Infinity) return null
    const question = this.#questions.get(slot) ?? randomBytes(TX_ID_BYTES).toString("hex")
    this.#questions.set(slot, question)
    return question
  }

  /** Checks a pong from the slot's address. Returns `true` if it answers the ping of `question`. */
  onPong(slot: number, txId: string): boolean {
    if (this.#questions.get(slot) !== txId) return false
    this.#questions.delete(slot)
    this.#credit[slot] = Infinity
    return true
  }

  /** Whether `bytes` bytes may be sent now. If so they are deducted. */
  take(slot: number, bytes: number, now: number): boolean {
    if (now - this.#givenAt[slot]! > CONSENT_MS || this.#credit[slot]! < bytes) return false
    this.#credit[slot]! -= bytes
    return true
  }
}
