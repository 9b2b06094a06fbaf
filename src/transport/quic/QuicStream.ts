/** One bidirectional stream of a session, as flows see it. All calls are synchronous; nothing here throws. */
import { type FlowStream, READ_NOTHING, READ_RESET, type StreamHandler, WRITE_STOPPED } from "../flow/FlowStream.ts"
import { MAX_STREAM_WINDOW, STREAM_WINDOW } from "./QuicEngine.ts"

/** What a stream needs of its session. */
export interface StreamOwner {
  readonly read: (id: number, into: Uint8Array) => number
  readonly readFinished: () => boolean
  readonly write: (id: number, data: Uint8Array) => number
  readonly finish: (id: number) => boolean
  readonly reset: (id: number, code: number) => void
  readonly stop: (id: number, code: number) => void
  /** The stream waits for room; `small` ones are served first. */
  readonly blocked: (stream: QuicStream, small: boolean) => void
  readonly unblocked: (stream: QuicStream) => void
  /** By how much more, or less, may come in unread. */
  readonly allowUnread: (bytes: number) => void
  /** What came in or still comes, and will not be read. */
  readonly forgiveUnread: (bytes: number) => void
  /** Says on the session's own stream how the sending side ended. */
  readonly announce: (id: number, kind: "end" | "reset", bytes: number) => void
  /** The end was known from a notice; QUIC's own may still come. */
  readonly endedByNotice: (id: number) => void
  /** Both sides are over. */
  readonly over: (stream: QuicStream) => void
}

/** A writer with no more than this waiting is small: the window is shared, and a bulk flow would take all of it. */
const SMALL_BYTES = 16 * 1024

/** An Open has about a hundred bytes, and its reader never waits. */
const UNACCEPTED_BYTES = 16 * 1024

export class QuicStream implements FlowStream {
  readonly id: number
  readonly #owner: StreamOwner
  handler: StreamHandler | null = null
  #readOver = false
  #writeOver = false
  #bytesRead = 0
  #bytesWritten = 0
  /** How many bytes the stream has, once the peer said so. */
  #endsAt = Infinity
  #resetNoticed = false
  /** The flow was accepted, so what its window lets in is explained. */
  #accepted: boolean
  /** What may have come in unread, as the owner was told. */
  #allowed = 0

  /** `accepted`: opened on this side. */
  constructor(id: number, owner: StreamOwner, accepted: boolean) {
    this.id = id
    this.#owner = owner
    this.#accepted = accepted
    this.#allow(this.#window())
  }

  /** The end or a reset was read, or `stop` was called. */
  get readOver(): boolean {
    return this.#readOver
  }

  /** `finish` succeeded, or `reset` was called, or the peer stopped us. */
  get writeOver(): boolean {
    return this.#writeOver
  }

  /** Bytes read (0 is possible with the end: see `readOver`), READ_NOTHING, or READ_RESET. */
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

  /** QUIC has nothing more; perhaps the peer said that there will be nothing more. */
  #readByNotice(): number {
    const ended = this.#bytesRead >= this.#endsAt
    if (!ended && !this.#resetNoticed) return READ_NOTHING
    this.#owner.endedByNotice(this.id)
    this.#endRead()
    return ended ? 0 : READ_RESET
  }

  /** From the session: the peer ended or reset its sending side. Tells the handler if that is news. */
  onNotice(kind: "end" | "reset", bytes: number): void {
    if (this.#readOver) return
    if (kind === "end") this.#endsAt = bytes
    else this.#resetNoticed = true
    if (this.#resetNoticed || this.#bytesRead >= this.#endsAt) this.handler?.onReadable()
  }

  /**
   * Bytes taken; the caller keeps the rest and is told by `onWritable`. WRITE_STOPPED: nobody reads any more.
   * `pending`: all the caller has waiting, which decides its place among the blocked.
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

  /** Ends the sending side. False: blocked; call again at `onWritable`. */
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

  /** Throws away what is unsent; the peer's reader sees a reset. */
  reset(code: number): void {
    if (this.#writeOver) return
    this.#owner.reset(this.id, code)
    this.#owner.announce(this.id, "reset", 0)
    this.#endWrite()
  }

  /** Asks the peer to send no more; what comes is thrown away. */
  stop(code: number): void {
    if (this.#readOver) return
    this.#owner.stop(this.id, code)
    this.#giveUpUnread()
  }

  /** Both of the above, for what is not over yet. */
  abort(code: number): void {
    this.reset(code)
    this.stop(code)
  }

  /** To be said whenever the reader means to leave waiting bytes alone for a while, as it does while it dials. */
  pause(): void {
    this.#accepted = true
    if (!this.#readOver) this.#allow(this.#window())
  }

  #allow(bytes: number): void {
    if (bytes === this.#allowed) return
    this.#owner.allowUnread(bytes - this.#allowed)
    this.#allowed = bytes
  }

  /** The window doubles at most as the reader gets on. Who has not been accepted must not build up credit by opening streams. */
  #window(): number {
    if (!this.#accepted) return UNACCEPTED_BYTES
    return Math.min(MAX_STREAM_WINDOW, STREAM_WINDOW + 2 * this.#bytesRead)
  }

  /** What came in or still comes will not be read. */
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
