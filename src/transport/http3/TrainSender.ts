/**
 * Sends what QUIC has to say, packets of one size and one way side by side, as one call of the system takes them. Unlike those of sessions
 * (`quic/PacketSender`) these packets are seldom of the largest size, so each is copied to where the one before has ended.
 */
import { HandshakeFlight } from "../quic/HandshakeFlight.ts"
import type { QuicConnection } from "../quic/QuicEngine.ts"
import { MAX_TRAIN, RING_BUFFERS } from "../quic/SendRing.ts"
import { MAX_PACKET } from "./QuicheHttp3.ts"

/** Sent in one turn; what is left goes in the next, after reading. */
export const MAX_PACKETS_PER_TURN = 8 * MAX_TRAIN

/** One packet every `segment` bytes of `buffer`, the last one ending at `length`. `buffer` is good until so many trains later: `RING_BUFFERS`. */
export type Transmit = (slot: number, buffer: Buffer, length: number, segment: number) => void

const scratch = Buffer.allocUnsafeSlow(MAX_PACKET)
/** Shared by the connections of a thread. */
const ring = Array.from({ length: RING_BUFFERS }, () => Buffer.allocUnsafeSlow(MAX_TRAIN * MAX_PACKET))
let next = 0

export class TrainSender {
  readonly #quic: QuicConnection
  readonly #transmit: Transmit
  /** Null once the handshake is over. */
  #flight: HandshakeFlight | null

  /** `repeats`: a handshake's packets, while nobody answers. */
  constructor(quic: QuicConnection, repeats: boolean, transmit: Transmit) {
    this.#quic = quic
    this.#transmit = transmit
    this.#flight = repeats ? new HandshakeFlight() : null
  }

  onEstablished(): void {
    this.#flight = null
  }

  /** When a flush has something to do that QUIC's own timer does not know of. */
  dueAt(): number {
    return this.#flight?.dueAt ?? Infinity
  }

  /** True: there may be more, for another turn. */
  flush(now: number): boolean {
    for (const { packet, slot } of this.#flight?.due(now) ?? []) {
      this.#transmit(slot, packet, packet.length, packet.length)
    }
    let slot = -1
    let train = scratch
    let length = 0
    let segment = 0
    let isWhole = true // no further packet fits
    const send = () => {
      if (length === 0) return
      this.#flight?.keep(now, slot, train, length, segment)
      this.#transmit(slot, train, length, segment)
    }
    for (let packets = 0; packets < MAX_PACKETS_PER_TURN; packets++) {
      const size = this.#quic.send(scratch)
      if (size === 0) {
        send()
        return false
      }
      const by = this.#quic.sendSlot()
      if (isWhole || by !== slot || size > segment || length + size > train.length) {
        send()
        train = ring[next]!
        next = (next + 1) % RING_BUFFERS
        slot = by
        segment = size
        length = 0
      }
      scratch.copy(train, length, 0, size)
      length += size
      isWhole = size < segment || length >= MAX_TRAIN * segment
    }
    send()
    return true
  }
}
