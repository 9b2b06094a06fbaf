/**
 * Sends the packets of a handshake again while nobody answers. QUIC itself waits a second for a lost first packet, as it knows
 * no round trip yet; sent again, the same packets do no harm.
 */
import { Buffer } from "node:buffer"

const RESEND_MS = 200
const RESENDS = 4 // at 200, 600, 1400 and 3000 ms
/** Packets kept. */
const FLIGHT = 12

export interface Kept {
  readonly slot: number
  /** With the room for its head in front. */
  readonly packet: Buffer
}

export class HandshakeFlight {
  readonly #kept: Array<Kept> = []
  #resends = 0
  #dueAt = Infinity

  /** When `due` will have something. */
  get dueAt(): number {
    return this.#dueAt
  }

  keep(now: number, slot: number, buffer: Buffer, length: number, segment: number): void {
    for (let at = 0; at < length && this.#kept.length < FLIGHT; at += segment) {
      this.#kept.push({ slot, packet: Buffer.from(buffer.subarray(at, Math.min(at + segment, length))) })
    }
    if (this.#dueAt === Infinity && this.#resends === 0) this.#dueAt = now + RESEND_MS
  }

  /** The packets to send again now. */
  due(now: number): ReadonlyArray<Kept> {
    if (now < this.#dueAt) return []
    this.#resends += 1
    this.#dueAt = this.#resends < RESENDS ? now + RESEND_MS * 2 ** this.#resends : Infinity
    return this.#kept
  }
}
