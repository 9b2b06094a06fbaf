/**
 * Copies of the last packets sent on a slot.
 *
 * QUIC tracks the packets in flight for each path separately. This version declares the packets of
 * a path lost only when a later packet of that path is acknowledged, which never happens on a dead
 * path. Therefore these packets are sent once more on the new path when a session moves. As soon as
 * one of them is acknowledged, QUIC retransmits everything before it.
 */
import { Buffer } from "node:buffer"

/**
 * Number of packets kept. A path is left after some silence, so the last packets are probes that
 * ask for an acknowledgement. Some of them may be lost again.
 */
const PACKETS = 4

/** The last packets of one slot. */
export class SlotTail {
  readonly #packets: Array<Buffer> = []
  readonly #lengths: Array<number> = []
  #next = 0

  /** Copies a packet into the buffer. If the buffer is full, it replaces the oldest packet. */
  keep(packet: Uint8Array): void {
    const at = this.#next
    this.#next = (at + 1) % PACKETS
    const known = this.#packets[at]
    const room = known !== undefined && known.length >= packet.length ? known : Buffer.allocUnsafeSlow(packet.length)
    room.set(packet)
    this.#packets[at] = room
    this.#lengths[at] = packet.length
  }

  /**
   * Returns the packets in the order in which they were sent. They are valid until the next `keep`.
   */
  packets(): Array<Buffer> {
    const oldestFirst = [...this.#packets.keys()].map((index) => (this.#next + index) % this.#packets.length)
    return oldestFirst.map((at) => this.#packets[at]!.subarray(0, this.#lengths[at]))
  }
}
