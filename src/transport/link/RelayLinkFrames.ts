/**
 * Relayed frames over a link of purpose "relay". Each frame carries its own length, so the stream is cut by that. Hot path: no
 * Effect, no promise for a frame; frames of one turn of the event loop leave in one write. Where the carrier has datagrams, the frames
 * of sessions go by those, and only the relay's own messages by the stream.
 */
import { CONTROL_TAG, MAX_FRAME_BYTES, RELAYED_HEAD_BYTES, tagAt } from "../../protocol/Frame.ts"
import { CloseCode, type Link } from "./Link.ts"

/** Bytes that wait in this process above which frames are dropped, as a full router queue would. */
export const MAX_BACKLOG_BYTES = 1024 * 1024
/** A batch that has grown to this is written without waiting for the turn to end. */
const BATCH_BYTES = 64 * 1024

/** Cuts a stream into relayed frames. */
export class FrameReader {
  private readonly onFrame: (frame: Uint8Array) => void
  private readonly partial = new Uint8Array(MAX_FRAME_BYTES)
  private partialLength = 0

  /** `onFrame` gets a view that is valid until it returns. */
  constructor(onFrame: (frame: Uint8Array) => void) {
    this.onFrame = onFrame
  }

  /** False: these are no relayed frames, and the stream can't be read any further. */
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

  /** Where the rest of `bytes` begins after the frame that was cut; -1 when it is none. */
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

/** 0 for what begins no relayed frame. */
const lengthOf = (first: number, second: number): number => {
  const length = ((first & 15) << 8) | second
  return (first & 0xf0) === 0x20 && length >= RELAYED_HEAD_BYTES ? length : 0
}

export interface Counters {
  sent: number
  received: number
  /** Frames that found no room. */
  dropped: number
}

export class RelayLinkFrames {
  readonly counters: Counters = { sent: 0, received: 0, dropped: 0 }
  private readonly link: Link
  private readonly maxFrameBytes: number
  private batch: Buffer = Buffer.alloc(0)
  private batchLength = 0
  private flushing = false

  /** Reads the link from now on. `onFrame` gets a view that is valid until it returns; a stream of anything else closes the link. */
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
   * Takes a copy of a whole relayed frame, or drops it: false. The caller may reuse its buffer at once. It leaves with the others
   * of this turn of the event loop.
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
      this.write(Uint8Array.from(frame)) // of any size, and never lost
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

  /** Writes what has gathered. */
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
    // The link keeps what it was given: the next batch goes behind it, or into a new buffer.
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
