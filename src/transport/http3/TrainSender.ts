/**
 * Sends the packets of a QUIC connection as trains: packets of one size and one path, side by side,
 * as one system call takes them. These packets seldom have the largest size, unlike those of
 * sessions (`quic/PacketSender`), so each is copied to the end of the one before.
 */
import type { QuicConnection } from "../quic/engine/QuicEngine.ts"
import { HandshakeFlight } from "../quic/HandshakeFlight.ts"
import { MAX_TRAIN, RING_BUFFERS } from "../quic/SendRing.ts"
import { MAX_PACKET } from "./QuicheHttp3.ts"

/** Most packets sent in one turn. The rest is sent in the next turn, after reading. */
export const MAX_PACKETS_PER_TURN = 8 * MAX_TRAIN

/**
 * Sends a train: one packet every `segment` bytes of `buffer`, the last one ending at `length`.
 * `buffer` is reused after `RING_BUFFERS` further trains.
 */
export type Transmit = (slot: number, buffer: Buffer, length: number, segment: number) => void

const scratch = Buffer.allocUnsafeSlow(MAX_PACKET)
/** Buffers shared by the connections of a thread. */
const ring = Array.from({ length: RING_BUFFERS }, () => Buffer.allocUnsafeSlow(MAX_TRAIN * MAX_PACKET))
let next = 0

/** Sends the packets of one connection. Call `flush` in each turn. */
export class TrainSender {
  readonly #quic: QuicConnection
  readonly #transmit: Transmit
  /**
   * Packets of the handshake that are sent again. `null` if they are not, or once the handshake is
   * over.
   */
  #flight: HandshakeFlight | null

  /** Set `repeats` to send a handshake's packets again while nobody answers. */
  constructor(quic: QuicConnection, repeats: boolean, transmit: Transmit) {
    this.#quic = quic
    this.#transmit = transmit
    this.#flight = repeats ? new HandshakeFlight() : null
  }

  onEstablished(): void {
    this.#flight = null
  }

  /** When `flush` must be called even if QUIC's own timer is not due. `Infinity` for never. */
  dueAt(): number {
    return this.#flight?.dueAt ?? Infinity
  }

  /** Sends the packets that are due. Returns `true` if there may be more, for another turn. */
  flush(now: number): boolean {
    for (const { packet, slot } of this.#flight?.due(now) ?? []) {
      this.#transmit(slot, packet, packet.length, packet.length)
    }
    let slot = -1
    let train = scratch
    let length = 0
    let segment = 0
    // Whether no further packet fits.
    let isWhole = true
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
