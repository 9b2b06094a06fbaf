/** The buffers in which packets are built. Shared by all sessions of a thread; a train belongs to the socket until it is sent. */
import { Buffer } from "node:buffer"

/** Sockets send at once unless their buffer is full; this many trains may wait in them before one is overwritten (a lost train). */
export const RING_BUFFERS = 64
const BUFFER_BYTES = 64 * 1024
/** UDP_SEGMENT takes at most 64 segments and 65,507 bytes; 44 packets of 1,448 bytes are the most that fit at our usual size. */
export const MAX_TRAIN = 44
const MAX_TRAIN_BYTES = 65_000

/** How one train lies in its buffer: packets `segment` bytes apart, with `head` free bytes in front of each. */
export interface Train {
  readonly buffer: Buffer
  /** Where packet i is written: at most `segment - head` bytes. */
  readonly packets: ReadonlyArray<Buffer>
}

/** Views are made once for each layout: making one for each packet costs as much as encrypting it. */
export class SendRing {
  readonly #buffers = Array.from({ length: RING_BUFFERS }, () => ({
    buffer: Buffer.allocUnsafeSlow(BUFFER_BYTES),
    trains: new Map<number, Train>()
  }))
  #next = 0

  /** The next free train; valid until `RING_BUFFERS` further calls. */
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

/** Path MTUs differ little; past this many layouts the views of a buffer are made anew. */
const MAX_LAYOUTS = 8
