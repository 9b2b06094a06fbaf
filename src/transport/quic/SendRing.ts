/**
 * Buffers in which packets are built, shared by all sessions of a thread. A train belongs to the
 * socket until it is sent.
 */
import { Buffer } from "node:buffer"

/**
 * Number of buffers in the ring. Sockets send at once unless their buffer is full. If this many
 * trains wait in sockets, the oldest is overwritten, which loses that train.
 */
export const RING_BUFFERS = 64
const BUFFER_BYTES = 64 * 1024
/**
 * Most packets in a train. UDP_SEGMENT takes at most 64 segments and 65,507 bytes; 44 packets of
 * 1,448 bytes are the most that fit at the usual size.
 */
export const MAX_TRAIN = 44
const MAX_TRAIN_BYTES = 65_000

/**
 * Layout of one train in its buffer: packets `segment` bytes apart, each preceded by `head` free
 * bytes.
 */
export interface Train {
  readonly buffer: Buffer
  /** One view per packet, which holds at most `segment - head` bytes. */
  readonly packets: ReadonlyArray<Buffer>
}

/**
 * Ring of send buffers. Views are created once for each layout, because creating one per packet
 * costs as much as encrypting it.
 */
export class SendRing {
  readonly #buffers = Array.from({ length: RING_BUFFERS }, () => ({
    buffer: Buffer.allocUnsafeSlow(BUFFER_BYTES),
    trains: new Map<number, Train>()
  }))
  #next = 0

  /** Returns the next train to fill. It is valid until `RING_BUFFERS` further calls. */
  take(head: number, segment: number): Train {
    const slot = this.#buffers[this.#next]
    if (slot === undefined) throw new RangeError("ring out of range")
    this.#next = (this.#next + 1) % RING_BUFFERS
    const key = segment * 16 + head
    let train = slot.trains.get(key)
    if (train === undefined) {
      const { buffer } = slot
      const count = Math.max(1, Math.min(MAX_TRAIN, Math.floor(MAX_TRAIN_BYTES / segment)))
      const packets = Array.from({ length: count }, (_, at) => buffer.subarray(at * segment + head, (at + 1) * segment))
      train = { buffer, packets }
      if (slot.trains.size >= MAX_LAYOUTS) slot.trains.clear()
      slot.trains.set(key, train)
    }
    return train
  }
}

/**
 * Most layouts kept per buffer. Path MTUs differ little; beyond this number the buffer's views are
 * created again.
 */
const MAX_LAYOUTS = 8
