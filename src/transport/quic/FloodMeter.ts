/**
 * Detects a peer that causes work without making progress.
 *
 * After the handshake, packets without stream bytes or datagrams serve only to acknowledge and to
 * keep the connection alive. Floods of connection ids or path challenges consist of such packets.
 * The meter is a bucket of bytes: received packets drain it; progress and time refill it. An empty
 * bucket means abuse.
 */

/**
 * Most unexplained bytes that a peer may send at once. They cover connection ids, path probes, a
 * flight that was lost and sent again, and many keepalives.
 */
export const BURST_BYTES = 2 * 1024 * 1024
/**
 * Unexplained bytes that a peer may send per second in the long run. They cover keepalives,
 * acknowledgements and occasional path probes.
 */
export const IDLE_BYTES_PER_SECOND = 4096
/** Credit for each byte read: it pays for the byte and for one duplicate of it. */
const PER_BYTE_READ = 2
/**
 * Credit for each byte written. Acknowledgements come back: at most one small packet for each
 * packet sent.
 */
const PER_BYTE_WRITTEN = 0.2
/**
 * How long forgiven bytes may still arrive. Data in flight when a stream was given up comes within
 * this time or not at all.
 */
const FORGIVEN_MS = 10_000
/** Credit for each read or write of any size: even a small one explains a packet or two. */
const PER_OPERATION = 256

/**
 * Meter of bytes that one peer sends without need. `exhausted` detects too many of them, and
 * `convicts` decides whether the peer sent them.
 */
export class FloodMeter {
  readonly #burst: number
  #level: number
  #unread = 0
  /**
   * Remaining forgiven bytes, valid until `#forgivenUntil`. They are kept apart from the level,
   * which is capped at one burst.
   */
  #forgiven = 0
  #forgivenUntil = 0
  /** Packets handed to QUIC. */
  #seen = 0
  /** Value of `#seen` at the last alarm. */
  #seenAtAlarm = 0
  /** How many packets QUIC had accepted at the last alarm. */
  #acceptedAtAlarm = 0
  #at: number

  constructor(now: number, burstBytes: number = BURST_BYTES) {
    this.#burst = burstBytes
    this.#level = burstBytes
    this.#at = now
  }

  /** Counts one received packet. */
  received(bytes: number): void {
    this.#seen += 1
    if (this.#forgiven >= bytes) this.#forgiven -= bytes
    else this.#level -= bytes
  }

  /** Credits bytes that were read from a stream or a datagram. */
  read(bytes: number): void {
    this.#level += bytes * PER_BYTE_READ + PER_OPERATION
  }

  /** Credits bytes that were written. */
  wrote(bytes: number): void {
    this.#level += bytes * PER_BYTE_WRITTEN + PER_OPERATION
  }

  /**
   * Changes how many bytes may arrive without being read, for example behind a lost packet or while
   * a reader pauses. A negative value lowers the number.
   */
  allow(bytes: number): void {
    this.#unread += bytes
  }

  /**
   * Credits bytes of a stream that was given up, because nobody will read them. They may have
   * arrived already, or may still arrive.
   */
  forgive(bytes: number): void {
    const debt = Math.min(bytes, Math.max(0, -this.#level))
    this.#level += debt
    this.#forgiven += bytes - debt
    this.#forgivenUntil = this.#at + FORGIVEN_MS
  }

  /**
   * Whether the peer has used up its credit, including the allowance for unread bytes. Must be
   * called once a turn.
   */
  exhausted(now: number): boolean {
    this.#level += (now - this.#at) / 1000 * IDLE_BYTES_PER_SECOND
    this.#at = now
    if (now >= this.#forgivenUntil) this.#forgiven = 0
    // an earlier download does not pay for a flood now
    if (this.#level > this.#burst) this.#level = this.#burst
    return this.#level < -this.#unread
  }

  /**
   * Whether the peer is to blame. Called after `exhausted`, with the number of packets that QUIC
   * has accepted so far. If QUIC could not open most of the packets, they came from a third party
   * that knows the addresses; the meter is then refilled and the result is `false`.
   */
  convicts(accepted: number): boolean {
    const guilty = (accepted - this.#acceptedAtAlarm) * 2 >= this.#seen - this.#seenAtAlarm
    this.#acceptedAtAlarm = accepted
    this.#seenAtAlarm = this.#seen
    if (!guilty) this.#level = this.#burst
    return guilty
  }
}
