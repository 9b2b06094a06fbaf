/**
 * Copies of the last packets that left by a slot. QUIC keeps what is in flight for each path apart, and this version gives up
 * what a dead path swallowed only when something sent later on that path is acknowledged, which a dead path never brings. So
 * when a session moves, these packets go once more by the new path: one acknowledgement of them, and all before is sent anew.
 */
import { Buffer } from "node:buffer"

/** A path is left after some time of silence, so these are probes that ask for an acknowledgement; two may be lost again. */
const PACKETS = 4

export class SlotTail {
  readonly #packets: Array<Buffer> = []
  readonly #lengths: Array<number> = []
  #next = 0

  keep(packet: Uint8Array): void {
    const at = this.#next
    this.#next = (at + 1) % PACKETS
    const known = this.#packets[at]
    const room = known !== undefined && known.length >= packet.length ? known : Buffer.allocUnsafeSlow(packet.length)
    room.set(packet)
    this.#packets[at] = room
    this.#lengths[at] = packet.length
  }

  /** In the order in which they were sent. Good until the next `keep`. */
  packets(): Array<Buffer> {
    const oldestFirst = [...this.#packets.keys()].map((index) => (this.#next + index) % this.#packets.length)
    return oldestFirst.map((at) => this.#packets[at]!.subarray(0, this.#lengths[at]))
  }
}
