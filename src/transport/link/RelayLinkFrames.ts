/**
 * Relayed frames over a link with the purpose "relay".
 *
 * Each frame carries its own length, by which the stream is split. This is a hot path: no Effect,
 * no promise per frame; the frames of one turn of the event loop are written together. If the
 * carrier has datagrams, they carry the frames of sessions, and only the relay's own messages use
 * the stream.
 */
import { CONTROL_TAG, MAX_FRAME_BYTES, RELAYED_HEAD_BYTES, tagAt } from "../../protocol/bytes/Frame.ts"
import { CloseCode, type Link } from "../../session/Link.ts"

/**
 * Most bytes that wait in this process. If there are more, further frames are dropped, as a router
 * does with a full queue.
 */
export const MAX_BACKLOG_BYTES = 1024 * 1024
/** Size of a batch. A full batch is written without waiting for the turn to end. */
const BATCH_BYTES = 64 * 1024

/** Splits a stream into relayed frames. */
export class FrameReader {
  private readonly onFrame: (frame: Uint8Array) => void
  private readonly partial = new Uint8Array(MAX_FRAME_BYTES)
  private partialLength = 0

  /** Creates a reader. The view that `onFrame` gets is valid until it returns. */
  constructor(onFrame: (frame: Uint8Array) => void) {
    this.onFrame = onFrame
  }

  /**
   * Reads more bytes. Returns `false` if they are not relayed frames; the stream cannot be read any
   * further then.
   */
  push(bytes: Uint8Array): boolean {
    let at = 0
    if (this.partialLength > 0) {
      at = this.complete(bytes)
      if (at < 0) return false
    }
    while (at < bytes.length) {
      if (bytes.length - at === 1 && (bytes[at]! & 0xf0) === 0x20) return this.keep(bytes, at)
      const length = lengthOf(bytes[at]!, bytes[at + 1] ?? 0)
      if (length === 0) return false
      if (at + length > bytes.length) return this.keep(bytes, at)
      this.onFrame(bytes.subarray(at, at + length))
      at += length
    }
    return true
  }

  private keep(bytes: Uint8Array, at: number): true {
    this.partial.set(bytes.subarray(at))
    this.partialLength = bytes.length - at
    return true
  }

  /**
   * Completes the partial frame. Returns where the rest of `bytes` begins, or -1 if the frame is
   * invalid.
   */
  private complete(bytes: Uint8Array): number {
    let at = 0
    if (this.partialLength === 1 && bytes.length > 0) this.partial[this.partialLength++] = bytes[at++]!
    if (this.partialLength < 2) return at
    const length = lengthOf(this.partial[0]!, this.partial[1]!)
    if (length === 0) return -1
    const taken = Math.min(length - this.partialLength, bytes.length - at)
    this.partial.set(bytes.subarray(at, at + taken), this.partialLength)
    this.partialLength += taken
    if (this.partialLength === length) {
      this.partialLength = 0
      this.onFrame(this.partial.subarray(0, length))
    }
    return at + taken
  }
}

/** Length of the frame that begins with these two bytes. 0 if they do not begin a relayed frame. */
const lengthOf = (first: number, second: number): number => {
  const length = ((first & 15) << 8) | second
  return (first & 0xf0) === 0x20 && length >= RELAYED_HEAD_BYTES ? length : 0
}

/** Counters of frames on one link. */
export interface Counters {
  sent: number
  received: number
  /**
   * Frames dropped because the queue was full or they were too long, or because the link had ended.
   */
  dropped: number
}

/** Sends and receives relayed frames over one link. */
export class RelayLinkFrames {
  readonly counters: Counters = { sent: 0, received: 0, dropped: 0 }
  private readonly link: Link
  private readonly maxFrameBytes: number
  private batch: Buffer = Buffer.alloc(0)
  private batchLength = 0
  private flushing = false

  /**
   * Starts reading the link. The view that `onFrame` gets is valid until it returns. Anything but
   * relayed frames closes the link.
   */
  constructor(link: Link, onFrame: (frame: Uint8Array) => void) {
    this.link = link
    this.maxFrameBytes = link.datagrams?.maxFrameBytes ?? MAX_FRAME_BYTES
    const take = (frame: Uint8Array) => {
      this.counters.received++
      onFrame(frame)
    }
    void this.read(new FrameReader(take))
    if (link.datagrams !== undefined) link.datagrams.onFrames = (frames) => void new FrameReader(take).push(frames)
  }

  /**
   * Copies a whole relayed frame and sends it with the others of this turn of the event loop. The
   * caller may reuse its buffer at once. Returns `false` if the frame was dropped.
   */
  send(frame: Uint8Array): boolean {
    const isControl = tagAt(frame, 0) === CONTROL_TAG
    if (
      frame.length > (isControl ? MAX_FRAME_BYTES : this.maxFrameBytes) || this.link.isClosed() ||
      this.batchLength + frame.length + this.link.bufferedBytes() > MAX_BACKLOG_BYTES
    ) {
      this.counters.dropped++
      return false
    }
    this.counters.sent++
    if (isControl && this.link.datagrams !== undefined) {
      this.write(Uint8Array.from(frame)) // may have any size, and must not be lost
      return true
    }
    if (this.batchLength + frame.length > this.batch.length) {
      this.flush()
      if (this.batch.length < frame.length) this.batch = Buffer.allocUnsafeSlow(BATCH_BYTES)
    }
    this.batch.set(frame, this.batchLength)
    this.batchLength += frame.length
    if (!this.flushing) {
      this.flushing = true
      setImmediate(() => {
        this.flushing = false
        this.flush()
      })
    }
    return true
  }

  /** Writes the frames that `send` has collected. */
  flush(): void {
    if (this.batchLength === 0) return
    const bytes = this.batch.subarray(0, this.batchLength)
    this.batchLength = 0
    if (this.link.datagrams?.isReady === true) {
      const dropped = this.link.datagrams.send(bytes)
      this.counters.dropped += dropped
      this.counters.sent -= dropped
      return
    }
    // The link keeps what it was given. The next batch is placed after it, or in a new buffer.
    this.batch = this.batch.subarray(bytes.length)
    if (this.batch.length < MAX_FRAME_BYTES) this.batch = Buffer.alloc(0)
    this.write(bytes)
  }

  private write(bytes: Uint8Array): void {
    this.link.write(bytes).catch(() => this.link.destroy("a write failed"))
  }

  private async read(reader: FrameReader): Promise<void> {
    for await (const bytes of this.link.incoming) {
      if (!reader.push(bytes)) return this.link.close("not a relayed frame", CloseCode.protocol)
    }
  }
}
