/**
 * Judges a peer that makes this side work without getting anywhere: after the handshake, packets that carry neither stream
 * bytes nor datagrams (floods of connection ids or path challenges) have no purpose beyond acknowledging and keeping alive.
 * A bucket of bytes: what is received drains it, progress and time fill it. Empty means abuse.
 */
export const BURST_BYTES = 2 * 1024 * 1024 // connection ids, probes, a lost flight sent again, and many a keepalive
export const IDLE_BYTES_PER_SECOND = 4096 // keepalives, acknowledgements and a path probe now and then
/** A byte read pays for itself and for a duplicate of it. */
const PER_BYTE_READ = 2
/** Bytes written come back as acknowledgements, at most one small packet for each of ours. */
const PER_BYTE_WRITTEN = 0.2
/** What is still on its way when a stream is given up comes within this, or never. */
const FORGIVEN_MS = 10_000
/** However small, a read or a write explains a packet or two. */
const PER_OPERATION = 256

export class FloodMeter {
  readonly #burst: number
  #level: number
  #unread = 0
  /** Left of what was forgiven, and until when: beside the level, which holds no more than a burst. */
  #forgiven = 0
  #forgivenUntil = 0
  /** Packets handed to QUIC; and at the last alarm, those and how many of them it had accepted. */
  #seen = 0
  #seenAtAlarm = 0
  #acceptedAtAlarm = 0
  #at: number

  constructor(now: number, burstBytes: number = BURST_BYTES) {
    this.#burst = burstBytes
    this.#level = burstBytes
    this.#at = now
  }

  /** One packet. */
  received(bytes: number): void {
    this.#seen += 1
    if (this.#forgiven >= bytes) this.#forgiven -= bytes
    else this.#level -= bytes
  }

  read(bytes: number): void {
    this.#level += bytes * PER_BYTE_READ + PER_OPERATION
  }

  wrote(bytes: number): void {
    this.#level += bytes * PER_BYTE_WRITTEN + PER_OPERATION
  }

  /** By how much more (or, negative, less) may be received unread: behind a lost packet, or while a reader pauses. */
  allow(bytes: number): void {
    this.#unread += bytes
  }

  /** Bytes that were received, which is seen as debt, or will be, and that nobody will read: a stream was given up on. */
  forgive(bytes: number): void {
    const debt = Math.min(bytes, Math.max(0, -this.#level))
    this.#level += debt
    this.#forgiven += bytes - debt
    this.#forgivenUntil = this.#at + FORGIVEN_MS
  }

  /** Call once a turn. True: the peer has spent its credit and more. */
  exhausted(now: number): boolean {
    this.#level += (now - this.#at) / 1000 * IDLE_BYTES_PER_SECOND
    this.#at = now
    if (now >= this.#forgivenUntil) this.#forgiven = 0
    if (this.#level > this.#burst) this.#level = this.#burst // yesterday's download does not pay for today's flood
    return this.#level < -this.#unread
  }

  /**
   * After `exhausted`, with the packets that QUIC has accepted so far. False: most could not be opened, so they came from
   * somebody who merely knows the addresses; the peer is pardoned.
   */
  convicts(accepted: number): boolean {
    const guilty = (accepted - this.#acceptedAtAlarm) * 2 >= this.#seen - this.#seenAtAlarm
    this.#acceptedAtAlarm = accepted
    this.#seenAtAlarm = this.#seen
    if (!guilty) this.#level = this.#burst
    return guilty
  }
}
