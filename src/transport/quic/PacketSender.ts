/** Turns what QUIC has to send into trains of packets on the session's slots. */
import { type Buffer } from "node:buffer"
import { HandshakeFlight } from "./HandshakeFlight.ts"
import { type QuicConnection, SLOTS } from "./QuicEngine.ts"
import { SendRing } from "./SendRing.ts"
import { type SessionOptions, type SlotPath } from "./SessionOptions.ts"
import { SlotPacer } from "./SlotPacer.ts"
import { SlotTail } from "./SlotTail.ts"

/** Trains sent in one turn: 1 MiB, a quarter of a socket's buffer. What is left goes in the next turn, after reading. */
export const MAX_TRAINS_PER_TURN = 16
/** RFC 9000, section 14.1: no path below this is usable. */
const MIN_PACKET = 1200
export const LARGEST_PACKET = 16_384
/** Assumed for a re-pointed slot when the caller has not measured its path. */
const DEFAULT_RTT_MS = 100
/** A slot that was left longer ago holds nothing that QUIC's own timers have not sent anew. */
const LEFT_MS = 10_000
const sharedRing = new SendRing()

interface Slot {
  headBytes: number
  maxPacket: number
  readonly pacer: SlotPacer
  readonly tail: SlotTail
}

const clampPacket = (bytes: number) => Math.max(MIN_PACKET, Math.min(LARGEST_PACKET, bytes))

export class PacketSender {
  readonly #options: SessionOptions
  readonly #connection: QuicConnection
  readonly #ring: SendRing
  readonly #slots: Array<Slot | undefined> = Array.from({ length: SLOTS })
  /** Null once the handshake is over. */
  #flight: HandshakeFlight | null = new HandshakeFlight()
  /** Upper bound for packets of this flush, when some of them may leave by another slot than the active one. */
  #packetLimit = LARGEST_PACKET
  #active: number
  /** The slots that packets left by before, and until when: several moves in a row may each have swallowed something. */
  readonly #left = new Map<number, number>()

  constructor(options: SessionOptions, connection: QuicConnection) {
    this.#options = options
    this.#connection = connection
    this.#ring = options.ring ?? sharedRing
    this.#active = options.slot
    this.point(options.slot, options.path)
  }

  /** The slot by which packets leave. */
  get active(): number {
    return this.#active
  }

  /** QUIC uses `slot` from now on. */
  switchTo(slot: number): void {
    if (slot === this.#active) return
    this.#left.set(this.#active, this.#options.now())
    this.#left.delete(slot)
    this.#active = slot
    this.rescue()
  }

  /**
   * Makes QUIC send anew what the paths that were left have swallowed; see SlotTail. With `active`, also what the path in use
   * did while it was gone: its window may be so full of lost packets that nothing else can leave. Too often only costs packets.
   */
  rescue(active = false): void {
    const oldest = this.#options.now() - LEFT_MS
    for (const [slot, at] of this.#left) {
      if (at < oldest) this.#left.delete(slot)
      else this.#repeat(slot)
    }
    if (active) this.#repeat(this.#active)
  }

  #repeat(slot: number): void {
    const path = this.#slots[this.#active]
    const from = this.#slots[slot]
    if (path === undefined || from === undefined) return
    for (const packet of from.tail.packets()) {
      if (packet.length > path.maxPacket) continue
      const { buffer } = this.#ring.take(path.headBytes, path.maxPacket + path.headBytes)
      packet.copy(buffer, path.headBytes)
      const length = path.headBytes + packet.length
      this.#options.transmit(this.#active, buffer, length, length, 1)
    }
  }

  has(slot: number): boolean {
    return this.#slots[slot] !== undefined
  }

  /** Puts a path under a slot; in place of another one it is paced. */
  point(slot: number, path: SlotPath): void {
    if (!Number.isInteger(slot) || slot < 0 || slot >= SLOTS) {
      throw new RangeError(`slot ${slot} is not one of ${SLOTS}`)
    }
    const maxPacket = clampPacket(path.maxPacket)
    const known = this.#slots[slot]
    if (known === undefined) {
      this.#slots[slot] = { headBytes: path.headBytes, maxPacket, pacer: new SlotPacer(), tail: new SlotTail() }
      return
    }
    known.headBytes = path.headBytes
    known.maxPacket = maxPacket
    known.pacer.restart(this.#options.now(), maxPacket, path.rttMs ?? DEFAULT_RTT_MS)
  }

  adjust(slot: number, path: SlotPath): void {
    const known = this.#slots[slot]
    if (known === undefined) return this.point(slot, path)
    known.headBytes = path.headBytes
    known.maxPacket = clampPacket(path.maxPacket)
  }

  /** Something of this slot leaves with the next flush: no packet of it may be larger than the slot takes. */
  limitTo(slot: number): void {
    const path = this.#slots[slot]
    if (path !== undefined && path.maxPacket < this.#packetLimit) this.#packetLimit = path.maxPacket
  }

  onEstablished(): void {
    this.#flight = null
  }

  /** The trains sent; as many as allowed means that there may be more, for another turn. */
  flush(now: number, maxTrains = MAX_TRAINS_PER_TURN): number {
    this.#resend(now)
    let trains = 0
    while (trains < maxTrains && this.#sendTrain(now)) trains += 1
    this.#packetLimit = LARGEST_PACKET
    return trains
  }

  /** When a flush has something to do that QUIC's own timer does not know of. */
  dueAt(): number {
    return Math.min(this.#slots[this.#active]?.pacer.nextRoundAt() ?? Infinity, this.#flight?.dueAt ?? Infinity)
  }

  /** Full packets side by side; a shorter one ends the train. False: nothing to send, or the slot is being paced. */
  #sendTrain(now: number): boolean {
    const slot = this.#active
    const path = this.#slots[slot]
    if (path === undefined) return false
    const limit = Math.min(path.maxPacket, this.#packetLimit)
    const head = path.headBytes
    const segment = limit + head
    const room = path.pacer.room(now)
    const { buffer, packets } = this.#ring.take(head, segment)
    let count = 0
    let length = 0
    for (const packet of packets) {
      if (length >= room) break
      const size = this.#connection.send(packet)
      if (size === 0) break
      const by = this.#connection.sendSlot()
      if (by !== slot) {
        this.#transmit(now, slot, path, buffer, length, segment, count)
        this.#sendAlone(now, by, packet, size)
        return true
      }
      length = count * segment + head + size
      count += 1
      if (size < limit) break
    }
    this.#transmit(now, slot, path, buffer, length, segment, count)
    return count > 0
  }

  /** A packet that QUIC wants on another slot than expected: a probe, or the first one after a migration. */
  #sendAlone(now: number, slot: number, packet: Buffer, size: number): void {
    const path = this.#slots[slot]
    if (path === undefined) return
    const length = path.headBytes + size
    const { buffer } = this.#ring.take(path.headBytes, path.maxPacket + path.headBytes)
    packet.copy(buffer, path.headBytes, 0, size)
    this.#transmit(now, slot, path, buffer, length, length, 1)
  }

  #transmit(
    now: number,
    slot: number,
    path: Slot,
    buffer: Buffer,
    length: number,
    segment: number,
    count: number
  ): void {
    if (count === 0) return
    path.pacer.spend(length)
    path.tail.keep(buffer.subarray((count - 1) * segment + path.headBytes, length))
    this.#flight?.keep(now, slot, buffer, length, segment)
    this.#options.transmit(slot, buffer, length, segment, count)
  }

  #resend(now: number): void {
    if (this.#flight === null) return
    for (const { packet, slot } of this.#flight.due(now)) {
      const { buffer } = this.#ring.take(0, packet.length) // the head's room is in the copy
      packet.copy(buffer)
      this.#options.transmit(slot, buffer, packet.length, packet.length, 1)
    }
  }
}
