/** Packs what QUIC has to send into trains of packets on the session's slots. */
import { type Buffer } from "node:buffer"
import { type QuicConnection, SLOTS } from "./engine/QuicEngine.ts"
import { HandshakeFlight } from "./HandshakeFlight.ts"
import { SendRing } from "./SendRing.ts"
import { type SessionOptions, type SlotPath } from "./SessionOptions.ts"
import { SlotPacer } from "./SlotPacer.ts"
import { SlotTail } from "./SlotTail.ts"

/**
 * Most trains sent in one turn: 1 MiB, a quarter of a socket's buffer. The rest is sent in the next
 * turn, after reading.
 */
export const MAX_TRAINS_PER_TURN = 16
/** Smallest packet size. A path that cannot carry it is not usable (RFC 9000, section 14.1). */
const MIN_PACKET = 1200
/** Largest packet on any slot, in bytes. */
export const LARGEST_PACKET = 16_384
/**
 * Round-trip time assumed for a slot whose path was replaced, if the caller has not measured the
 * new path.
 */
const DEFAULT_RTT_MS = 100
/**
 * How long after it was left a slot's packets are repeated. Later, QUIC's own timers have sent
 * everything again.
 */
const LEFT_MS = 10_000
/** Most packets of one call of `answer`. Several slots may have a path challenge or response. */
const ANSWER_PACKETS = 4
/** How soon `recheck` repeats the packets of a left slot. The time doubles with each call. */
const RECHECK_MS = 150
const sharedRing = new SendRing()

/** A slot that is not active, but on which data was sent. */
interface Left {
  /** When something was last sent on it. */
  readonly at: number
  /** When `recheck` repeats its packets next. */
  next: number
}

interface Slot {
  headBytes: number
  maxPacket: number
  readonly pacer: SlotPacer
  readonly tail: SlotTail
}

const clampPacket = (bytes: number) => Math.max(MIN_PACKET, Math.min(LARGEST_PACKET, bytes))

/** Sender of one session's packets. */
export class PacketSender {
  readonly #options: SessionOptions
  readonly #connection: QuicConnection
  readonly #ring: SendRing
  readonly #slots: Array<Slot | undefined> = Array.from({ length: SLOTS })
  /** `null` once the handshake is complete. */
  #flight: HandshakeFlight | null = new HandshakeFlight()
  /**
   * Largest packet size in the current flush. It is lowered if some packets may leave by a slot
   * other than the active one.
   */
  #packetLimit = LARGEST_PACKET
  #active: number
  /**
   * Slots other than the active one that may have lost packets. After several moves in a row, there
   * may be several.
   */
  readonly #left = new Map<number, Left>()

  constructor(options: SessionOptions, connection: QuicConnection) {
    this.#options = options
    this.#connection = connection
    this.#ring = options.ring ?? sharedRing
    this.#active = options.slot
    this.point(options.slot, options.path)
  }

  /** The slot that packets are sent on. */
  get active(): number {
    return this.#active
  }

  /** Sends on `slot` from now on, because QUIC uses it. */
  switchTo(slot: number): void {
    if (slot === this.#active) return
    this.#leave(this.#active, this.#options.now())
    this.#left.delete(slot)
    this.#active = slot
    this.rescue()
  }

  /**
   * Makes QUIC retransmit packets that were lost on earlier paths (see {@link SlotTail}). With
   * `active`, it does the same for packets that the current path lost during an outage: they may
   * fill the congestion window, so that nothing else can be sent. A call without need costs only a
   * few packets.
   */
  rescue(active = false): void {
    this.#forgetOld()
    for (const slot of this.#left.keys()) this.#repeat(slot)
    if (active) this.#repeat(this.#active)
  }

  /**
   * Repeats the packets of left slots, less and less often, because all that `rescue` sent may have
   * been lost.
   */
  recheck(): void {
    this.#forgetOld()
    const now = this.#options.now()
    for (const [slot, left] of this.#left) {
      if (now < left.next) continue
      left.next = now + Math.max(RECHECK_MS, now - left.at)
      this.#repeat(slot)
    }
  }

  #leave(slot: number, now: number): void {
    this.#left.set(slot, { at: now, next: now + RECHECK_MS })
  }

  #forgetOld(): void {
    const oldest = this.#options.now() - LEFT_MS
    for (const [slot, { at }] of this.#left) if (at < oldest) this.#left.delete(slot)
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

  /** Whether a path is assigned to this slot. */
  has(slot: number): boolean {
    return this.#slots[slot] !== undefined
  }

  /**
   * Assigns a path to this slot. If it replaces another path, sending on the slot is paced at
   * first.
   */
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

  /**
   * Updates the head length and packet size of a slot whose path stays the same, without pacing.
   */
  adjust(slot: number, path: SlotPath): void {
    const known = this.#slots[slot]
    if (known === undefined) return this.point(slot, path)
    known.headBytes = path.headBytes
    known.maxPacket = clampPacket(path.maxPacket)
  }

  /**
   * Limits the packets of the next flush to a size that fits `slot`, because one of them may leave
   * by it.
   */
  limitTo(slot: number): void {
    const path = this.#slots[slot]
    if (path !== undefined && path.maxPacket < this.#packetLimit) this.#packetLimit = path.maxPacket
  }

  /** Stops repeating handshake packets. */
  onEstablished(): void {
    this.#flight = null
  }

  /**
   * Sends the packets that QUIC has ready, and returns the number of trains sent. If that is
   * `maxTrains`, there may be more for another turn.
   */
  flush(now: number, maxTrains = MAX_TRAINS_PER_TURN): number {
    this.#resend(now)
    let trains = 0
    while (trains < maxTrains && this.#sendTrain(now)) trains += 1
    this.#packetLimit = LARGEST_PACKET
    return trains
  }

  /**
   * Sends the next packets that QUIC has ready, at most {@link ANSWER_PACKETS}, without waiting for
   * `flush` or the pacer. QUIC sends acknowledgements and path challenges first.
   */
  answer(now: number): void {
    const path = this.#slots[this.#active]
    if (path === undefined) return
    const segment = Math.min(path.maxPacket, this.#packetLimit) + path.headBytes
    const { packets } = this.#ring.take(path.headBytes, segment)
    for (const packet of packets.slice(0, ANSWER_PACKETS)) {
      const size = this.#connection.send(packet)
      if (size === 0) return
      this.#sendAlone(now, this.#connection.sendSlot(), packet, size)
    }
  }

  /** When to call `flush` even if QUIC's own timer is not due. `Infinity` for never. */
  dueAt(): number {
    return Math.min(this.#slots[this.#active]?.pacer.nextRoundAt() ?? Infinity, this.#flight?.dueAt ?? Infinity)
  }

  /**
   * Sends one train of full packets; a shorter packet ends the train. Returns `false` if there is
   * nothing to send or the slot is being paced.
   */
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

  /**
   * Sends one packet on a slot other than the active one: a path probe, or the first packet after a
   * migration.
   */
  #sendAlone(now: number, slot: number, packet: Buffer, size: number): void {
    const path = this.#slots[slot]
    if (path === undefined) return
    const length = path.headBytes + size
    const { buffer } = this.#ring.take(path.headBytes, path.maxPacket + path.headBytes)
    packet.copy(buffer, path.headBytes, 0, size)
    // a connector's data may be among it, if the client moved to this slot and on again
    if (this.#options.role === "connector" && slot !== this.#active) this.#leave(slot, now)
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
