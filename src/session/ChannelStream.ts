/**
 * A flow's stream over a data channel of its own. Each direction has its own end, and each reader
 * its own window (`ChannelWire`).
 */
import * as ChannelWire from "../protocol/flow/ChannelWire.ts"
import { type FlowStream, READ_NOTHING, READ_RESET, type StreamHandler, WRITE_STOPPED } from "./FlowStream.ts"

/** Data channel of a browser or a library, as a stream needs it. Nothing throws. */
export interface Channel {
  /** Sends a message. Returns `false` if the channel is closed. */
  readonly send: (message: Uint8Array) => boolean
  /** Bytes that were passed to `send` and have not left yet. */
  readonly bufferedAmount: () => number
  /** Closes the channel after everything passed to `send` has left. */
  readonly close: () => void
  /** Length of the longest message that the peer accepts. */
  readonly maxMessageBytes: number
}

/**
 * Longest message that is sent, even if the peer accepts more: a message occupies the whole
 * connection while it is sent.
 */
const MAX_MESSAGE_BYTES = 32 * 1024
/**
 * Unsent bytes of a channel above which its writer waits, until {@link LOW_WATER_BYTES} are left.
 */
const HIGH_WATER_BYTES = 512 * 1024
/** Unsent bytes of a channel at which a waiting writer may continue. */
export const LOW_WATER_BYTES = 128 * 1024
/**
 * Largest window, which feeds 80 Mbit/s at 100 ms. A window doubles while its reader keeps up, up
 * to this.
 */
const MAX_WINDOW = 1024 * 1024
/**
 * How long the side that did not open the channel waits for the peer to close it. After that it
 * closes the channel itself.
 */
const LINGER_MS = 10_000

/** Window space that several flows share, in addition to their first windows. */
export interface Room {
  bytes: number
}

/** Options of {@link ChannelStream}. */
export interface ChannelStreamOptions {
  readonly channel: Channel
  readonly room: Room
  /**
   * Whether this side opened the channel. It closes the channel once both directions have ended.
   */
  readonly opened: boolean
  /** Called once, when both directions have ended or the channel is closed. */
  readonly onOver: () => void
}

/** A {@link FlowStream} over a data channel. */
export class ChannelStream implements FlowStream {
  handler: StreamHandler | null = null
  readonly #channel: Channel
  readonly #room: Room
  readonly #opened: boolean
  readonly #onOver: () => void
  #readOver = false
  #writeOver = false
  #isOver = false
  #isClosed = false
  /**
   * Received messages that are not fully read, in order. `#at` bytes of the first have been read.
   */
  readonly #unread: Array<Uint8Array> = []
  #at = 0
  #ended = false
  #wasReset = false
  #stopped = false
  #window = ChannelWire.FIRST_WINDOW
  /** Bytes that the peer may still send. */
  #allowed = ChannelWire.FIRST_WINDOW
  /** Bytes that were read, and whose window has not been returned to the peer yet. */
  #owed = 0
  /** Bytes that may still be sent to the peer. */
  #credit = ChannelWire.FIRST_WINDOW
  #isBlocked = false
  #linger: ReturnType<typeof setTimeout> | null = null

  constructor({ channel, onOver, opened, room }: ChannelStreamOptions) {
    this.#channel = channel
    this.#room = room
    this.#opened = opened
    this.#onOver = onOver
  }

  get readOver(): boolean {
    return this.#readOver
  }

  get writeOver(): boolean {
    return this.#writeOver
  }

  read(into: Uint8Array): number {
    if (this.#readOver) return READ_NOTHING
    if (this.#wasReset) {
      this.#endRead()
      return READ_RESET
    }
    let got = 0
    for (let first = this.#unread[0]; first !== undefined && got < into.length; first = this.#unread[0]) {
      const part = first.subarray(this.#at, this.#at + into.length - got)
      into.set(part, got)
      got += part.length
      this.#at += part.length
      if (this.#at < first.length) break
      this.#unread.shift()
      this.#at = 0
    }
    if (this.#ended && this.#unread.length === 0) {
      this.#endRead()
      return got
    }
    if (got === 0) return READ_NOTHING
    this.#allow(got)
    return got
  }

  write(data: Uint8Array): number {
    if (this.#writeOver) return WRITE_STOPPED
    if (this.#stopped || this.#isClosed) {
      this.reset()
      return WRITE_STOPPED
    }
    let taken = 0
    const longest = Math.min(MAX_MESSAGE_BYTES, this.#channel.maxMessageBytes) - ChannelWire.HEAD_BYTES
    while (taken < data.length) {
      const some = Math.min(data.length - taken, this.#credit, longest)
      if (some <= 0 || this.#channel.bufferedAmount() > HIGH_WATER_BYTES) break
      if (!this.#channel.send(ChannelWire.data(data.subarray(taken, taken + some)))) break
      this.#credit -= some
      taken += some
    }
    if (taken < data.length) this.#isBlocked = true
    return taken
  }

  /** Ends the sending side. Always succeeds at once, because the end needs no window. */
  finish(): boolean {
    if (this.#writeOver) return true
    this.#channel.send(ChannelWire.end)
    this.#endWrite()
    return true
  }

  /**
   * Resets the sending side. Data already passed to the channel is sent first, but the peer's
   * reader still sees a reset.
   */
  reset(): void {
    if (this.#writeOver) return
    this.#channel.send(ChannelWire.reset)
    this.#endWrite()
  }

  /** Asks the peer to send no more. Bytes that still arrive are discarded. */
  stop(): void {
    if (this.#readOver) return
    this.#channel.send(ChannelWire.stop)
    this.#endRead()
  }

  abort(): void {
    this.reset()
    this.stop()
  }

  /** Does nothing, because the window already limits how many bytes may wait unread. */
  pause(): void {}

  /**
   * Called by the channel for each message. The stream keeps `bytes`. Returns `false` if the peer
   * violates the protocol; the connection must then be closed.
   */
  onMessage(bytes: Uint8Array): boolean {
    const message = ChannelWire.decode(bytes)
    if (message === null) return false
    switch (message._tag) {
      case "Data":
        return this.#onData(message.bytes)
      case "End":
        this.#ended = true
        break
      case "Reset":
        this.#wasReset = true
        this.#dropUnread()
        break
      case "Stop":
        this.#stopped = true
        this.#isBlocked = false
        this.handler?.onWritable()
        if (!this.#writeOver && this.handler === null) this.reset()
        return true
      case "Window":
        this.#credit += message.bytes
        this.onDrained()
        return true
    }
    if (!this.#readOver) this.handler?.onReadable()
    return true
  }

  /** Called by the channel when `bufferedAmount` has fallen to {@link LOW_WATER_BYTES}. */
  onDrained(): void {
    if (!this.#isBlocked || this.#credit === 0 || this.#channel.bufferedAmount() > LOW_WATER_BYTES) return
    this.#isBlocked = false
    this.handler?.onWritable()
  }

  /** Called by the channel when it is closed, in order or not. */
  onClosed(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    if (this.#linger !== null) clearTimeout(this.#linger)
    const wasOver = this.#readOver && this.#writeOver
    this.#wasReset ||= !this.#ended
    if (!wasOver) this.handler?.onClosed()
    this.#readOver = true
    this.#writeOver = true
    this.#dropUnread()
    this.#settle()
  }

  #onData(bytes: Uint8Array): boolean {
    if (this.#ended || this.#wasReset) return false
    this.#allowed -= bytes.length
    if (this.#allowed < 0) return false
    if (!this.#readOver && bytes.length > 0) { // otherwise dropped, as announced to the peer
      this.#unread.push(bytes)
      this.handler?.onReadable()
    }
    return true
  }

  /**
   * Returns window to the peer for bytes that were read, once half a window is due. The window
   * grows for a reader that keeps up.
   */
  #allow(bytes: number): void {
    this.#owed += bytes
    if (this.#owed < this.#window / 2 || this.#ended) return
    const more = Math.min(this.#window, MAX_WINDOW - this.#window, this.#room.bytes)
    this.#window += more
    this.#room.bytes -= more
    this.#allowed += this.#owed + more
    this.#channel.send(ChannelWire.window(this.#owed + more))
    this.#owed = 0
  }

  #dropUnread(): void {
    this.#unread.length = 0
    this.#at = 0
  }

  #endRead(): void {
    this.#readOver = true
    this.#dropUnread()
    this.#closeIfOver()
  }

  #endWrite(): void {
    this.#writeOver = true
    this.#isBlocked = false
    this.#closeIfOver()
  }

  #closeIfOver(): void {
    if (!this.#readOver || !this.#writeOver || this.#isClosed) return
    if (this.#opened) this.#channel.close()
    else this.#linger ??= setTimeout(() => this.#channel.close(), LINGER_MS)
    this.#settle()
  }

  #settle(): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#room.bytes += this.#window - ChannelWire.FIRST_WINDOW
    this.#onOver()
  }
}
