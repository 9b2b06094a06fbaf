/** A flow's stream over a data channel of its own, with an end for each way and a window for each reader (`ChannelWire`). */
import * as ChannelWire from "../../protocol/ChannelWire.ts"
import { type FlowStream, READ_NOTHING, READ_RESET, type StreamHandler, WRITE_STOPPED } from "../flow/FlowStream.ts"

/** What a stream needs of its channel, a browser's or a library's. Nothing throws. */
export interface Channel {
  /** False: it is closed. */
  readonly send: (message: Uint8Array) => boolean
  /** Bytes that were sent and have not left. */
  readonly bufferedAmount: () => number
  /** What has been sent still leaves. */
  readonly close: () => void
  /** Of the longest message that the peer takes. */
  readonly maxMessageBytes: number
}

/** A message takes the whole connection while it goes, so none is longer, whatever the peer takes. */
const MAX_MESSAGE_BYTES = 32 * 1024
/** Unsent bytes of one channel; past this its writer waits until there are `LOW_WATER_BYTES`. */
const HIGH_WATER_BYTES = 512 * 1024
export const LOW_WATER_BYTES = 128 * 1024
/** A window doubles as its reader gets on, up to this, which feeds 80 Mbit/s at 100 ms. */
const MAX_WINDOW = 1024 * 1024
/** The side that was asked closes last; a peer that never does has this long. */
const LINGER_MS = 10_000

/** The room that the flows of one connection share beside their first windows. */
export interface Room {
  bytes: number
}

export interface ChannelStreamOptions {
  readonly channel: Channel
  readonly room: Room
  /** Who opened the channel closes it once both ways are over. */
  readonly opened: boolean
  /** Both ways are over, or the channel is gone. Once. */
  readonly onOver: () => void
}

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
  /** Unread, in order; `#at` bytes of the first are read. */
  readonly #unread: Array<Uint8Array> = []
  #at = 0
  #ended = false
  #wasReset = false
  #stopped = false
  #window = ChannelWire.FIRST_WINDOW
  /** What the peer may still send. */
  #allowed = ChannelWire.FIRST_WINDOW
  /** Read, and not yet allowed again. */
  #owed = 0
  /** What may be sent to the peer. */
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

  /** Always at once: an end needs no room. */
  finish(): boolean {
    if (this.#writeOver) return true
    this.#channel.send(ChannelWire.end)
    this.#endWrite()
    return true
  }

  /** What has been given to the channel leaves first; the peer's reader sees a reset all the same. */
  reset(): void {
    if (this.#writeOver) return
    this.#channel.send(ChannelWire.reset)
    this.#endWrite()
  }

  stop(): void {
    if (this.#readOver) return
    this.#channel.send(ChannelWire.stop)
    this.#endRead()
  }

  abort(): void {
    this.reset()
    this.stop()
  }

  /** The window says it. */
  pause(): void {}

  /** From the channel. False: the peer breaks the protocol, and the connection is of no use. The bytes are the stream's from here. */
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

  /** From the channel: `bufferedAmount` has fallen to `LOW_WATER_BYTES`. */
  onDrained(): void {
    if (!this.#isBlocked || this.#credit === 0 || this.#channel.bufferedAmount() > LOW_WATER_BYTES) return
    this.#isBlocked = false
    this.handler?.onWritable()
  }

  /** From the channel: it is closed, in order or not. */
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
    if (!this.#readOver && bytes.length > 0) { // else thrown away, as was said
      this.#unread.push(bytes)
      this.handler?.onReadable()
    }
    return true
  }

  /** Room for what was read, told when it is worth a message; more of it for a reader that keeps up. */
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
