/**
 * One bidirectional stream of a session, as flows see it. All calls are synchronous and none
 * throws.
 */
import {
  type FlowStream,
  READ_NOTHING,
  READ_RESET,
  type StreamHandler,
  WRITE_STOPPED
} from "../../session/FlowStream.ts"
import { MAX_STREAM_WINDOW, STREAM_WINDOW } from "./engine/QuicEngine.ts"

/** Functions of the session that a stream calls. */
export interface StreamOwner {
  readonly read: (id: number, into: Uint8Array) => number
  readonly readFinished: () => boolean
  readonly write: (id: number, data: Uint8Array) => number
  /** Ends the sending side of the stream in QUIC. Returns `false` if it is blocked. */
  readonly finish: (id: number) => boolean
  readonly reset: (id: number, code: number) => void
  readonly stop: (id: number, code: number) => void
  /** Adds the stream to those that wait for room. `small` ones are served first. */
  readonly blocked: (stream: QuicStream, small: boolean) => void
  /** Removes the stream from those that wait for room. */
  readonly unblocked: (stream: QuicStream) => void
  /** Changes how many bytes may arrive unread. A negative value lowers it. */
  readonly allowUnread: (bytes: number) => void
  /**
   * Reports bytes that nobody will read, whether they have arrived or not. They do not count as a
   * flood.
   */
  readonly forgiveUnread: (bytes: number) => void
  /** Notifies the peer, on the session's own stream, how the sending side ended. */
  readonly announce: (id: number, kind: "end" | "reset", bytes: number) => void
  /** Reports that the end was learnt from a notice. QUIC's own end may still arrive. */
  readonly endedByNotice: (id: number) => void
  /** Reports that both sides have ended. */
  readonly over: (stream: QuicStream) => void
}

/**
 * Most waiting bytes of a small writer. The congestion window is shared, and a bulk flow would
 * otherwise take all of it.
 */
const SMALL_BYTES = 16 * 1024

/**
 * Bytes that may arrive unread before the flow is accepted. An Open has about a hundred bytes, and
 * its reader never waits.
 */
const UNACCEPTED_BYTES = 16 * 1024

/** One bidirectional stream of a {@link QuicSession}. */
export class QuicStream implements FlowStream {
  readonly id: number
  readonly #owner: StreamOwner
  /**
   * Handler of the stream's events. `null` if nobody reads the stream; its data is then dropped.
   */
  handler: StreamHandler | null = null
  #readOver = false
  #writeOver = false
  #bytesRead = 0
  #bytesWritten = 0
  /** Total length of the stream, once the peer has announced it. `Infinity` before. */
  #endsAt = Infinity
  #resetNoticed = false
  /** Whether the flow was accepted, so that unread bytes up to its window are legitimate. */
  #accepted: boolean
  /** Unread bytes currently allowed, as reported to the owner. */
  #allowed = 0

  /** Pass `accepted` as `true` for a stream that was opened on this side. */
  constructor(id: number, owner: StreamOwner, accepted: boolean) {
    this.id = id
    this.#owner = owner
    this.#accepted = accepted
    this.#allow(this.#window())
  }

  /** Whether the reading side has ended: the end or a reset was read, or `stop` was called. */
  get readOver(): boolean {
    return this.#readOver
  }

  /**
   * Whether the writing side has ended: `finish` succeeded, `reset` was called, or the peer stopped
   * the stream.
   */
  get writeOver(): boolean {
    return this.#writeOver
  }

  /**
   * Reads into `into`. Returns the number of bytes (0 is possible with the end: see `readOver`),
   * READ_NOTHING or READ_RESET.
   */
  read(into: Uint8Array): number {
    if (this.#readOver) return READ_NOTHING
    const got = this.#owner.read(this.id, into)
    if (got === READ_NOTHING) return this.#readByNotice()
    if (got === READ_RESET) {
      this.#giveUpUnread()
      return got
    }
    this.#bytesRead += got
    if (this.#owner.readFinished()) this.#endRead()
    else this.#allow(this.#window())
    return got
  }

  /** Ends the reading side if QUIC has no more data and the peer has announced the end. */
  #readByNotice(): number {
    const ended = this.#bytesRead >= this.#endsAt
    if (!ended && !this.#resetNoticed) return READ_NOTHING
    this.#owner.endedByNotice(this.id)
    this.#endRead()
    return ended ? 0 : READ_RESET
  }

  /**
   * Handles the session's notice that the peer ended or reset its sending side. Notifies the
   * handler if the reader does not know it yet.
   */
  onNotice(kind: "end" | "reset", bytes: number): void {
    if (this.#readOver) return
    if (kind === "end") this.#endsAt = bytes
    else this.#resetNoticed = true
    if (this.#resetNoticed || this.#bytesRead >= this.#endsAt) this.handler?.onReadable()
  }

  /**
   * Writes `data` and returns the number of bytes accepted, or WRITE_STOPPED if the peer reads no
   * more. The caller keeps the rest and is notified by `onWritable`. `pending` is the number of all
   * bytes that the caller wants to write now; it decides the stream's class among the blocked ones.
   */
  write(data: Uint8Array, pending: number = data.length): number {
    if (this.#writeOver) return WRITE_STOPPED
    const taken = this.#owner.write(this.id, data)
    if (taken === WRITE_STOPPED) {
      this.reset(0) // answers STOP_SENDING (RFC 9000, section 3.5) and lets the stream be forgotten
      return WRITE_STOPPED
    }
    this.#bytesWritten += taken
    if (taken < data.length) this.#owner.blocked(this, pending - taken <= SMALL_BYTES)
    return taken
  }

  /** Ends the sending side. Returns `false` if blocked; call again at `onWritable`. */
  finish(): boolean {
    if (this.#writeOver) return true
    if (!this.#owner.finish(this.id)) {
      this.#owner.blocked(this, true)
      return false
    }
    this.#owner.announce(this.id, "end", this.#bytesWritten)
    this.#endWrite()
    return true
  }

  /** Discards unsent data. The peer's reader sees a reset. */
  reset(code: number): void {
    if (this.#writeOver) return
    this.#owner.reset(this.id, code)
    this.#owner.announce(this.id, "reset", 0)
    this.#endWrite()
  }

  /** Asks the peer to stop sending. Data that still arrives is discarded. */
  stop(code: number): void {
    if (this.#readOver) return
    this.#owner.stop(this.id, code)
    this.#giveUpUnread()
  }

  /** Resets the sending side and stops the reading side, if they have not ended yet. */
  abort(code: number): void {
    this.reset(code)
    this.stop(code)
  }

  /**
   * Must be called when the reader leaves data unread for a while, for example while it dials. It
   * also marks the flow as accepted, so that its unread bytes do not count as a flood.
   */
  pause(): void {
    this.#accepted = true
    if (!this.#readOver) this.#allow(this.#window())
  }

  #allow(bytes: number): void {
    if (bytes === this.#allowed) return
    this.#owner.allowUnread(bytes - this.#allowed)
    this.#allowed = bytes
  }

  /**
   * Upper estimate of the current flow-control window. The window at most doubles as the reader
   * progresses. A stream that has not been accepted gets little, so that a peer cannot gain
   * allowance by opening streams.
   */
  #window(): number {
    if (!this.#accepted) return UNACCEPTED_BYTES
    return Math.min(MAX_STREAM_WINDOW, STREAM_WINDOW + 2 * this.#bytesRead)
  }

  /** Ends the reading side and forgives the bytes that will not be read. */
  #giveUpUnread(): void {
    this.#owner.forgiveUnread(this.#accepted ? this.#window() : 0)
    this.#endRead()
  }

  #endRead(): void {
    this.#allow(0)
    this.#readOver = true
    if (this.#writeOver) this.#owner.over(this)
  }

  #endWrite(): void {
    this.#writeOver = true
    this.#owner.unblocked(this)
    if (this.#readOver) this.#owner.over(this)
  }
}
