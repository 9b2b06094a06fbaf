/**
 * Sends the packets of a handshake again while the peer does not answer. QUIC itself waits a second
 * for a lost first packet, because it knows no round-trip time yet. Repeating the same packets does
 * no harm.
 */
import { Buffer } from "node:buffer"

/** Delay before the first repetition. Each later delay is twice as long. */
const RESEND_MS = 200
const RESENDS = 4 // at 200, 600, 1400 and 3000 ms
/** Most packets that are kept. Further packets of the flight are not repeated. */
const FLIGHT = 12

/** A packet of the handshake that may have to be sent again, and its slot. */
export interface Kept {
  readonly slot: number
  /** The packet, preceded by the free bytes for its frame head. */
  readonly packet: Buffer
}

/** The packets sent during one handshake. */
export class HandshakeFlight {
  readonly #kept: Array<Kept> = []
  #resends = 0
  #dueAt = Infinity

  /** When `due` will next return packets. `Infinity` if it will not. */
  get dueAt(): number {
    return this.#dueAt
  }

  /** Copies a train of packets, `segment` bytes apart, to be repeated later. */
  keep(now: number, slot: number, buffer: Buffer, length: number, segment: number): void {
    for (let at = 0; at < length && this.#kept.length < FLIGHT; at += segment) {
      this.#kept.push({ slot, packet: Buffer.from(buffer.subarray(at, Math.min(at + segment, length))) })
    }
    if (this.#dueAt === Infinity && this.#resends === 0) this.#dueAt = now + RESEND_MS
  }

  /** Returns the packets to send again now. */
  due(now: number): ReadonlyArray<Kept> {
    if (now < this.#dueAt) return []
    this.#resends += 1
    this.#dueAt = this.#resends < RESENDS ? now + RESEND_MS * 2 ** this.#resends : Infinity
    return this.#kept
  }
}
