/** Messages on their way out of one link: framed, in order, several to a write when the link is busy, and never more than a bound. */
import * as LengthPrefix from "../../protocol/LengthPrefix.ts"
import { concat } from "../../protocol/LinkHandshake.ts"
import { CloseCode, type Link } from "./Link.ts"

/** Bytes that may wait for one slow peer before its link is cut. It also bounds what one turn of the event loop may say at once. */
export const MAX_QUEUED_BYTES = 256 * 1024

export class MessageTooLong extends Error {
  override readonly name = "MessageTooLong"
}

export class MessageQueue {
  private readonly link: Link
  private readonly maxQueuedBytes: number
  private queue: Array<Uint8Array> = []
  private queuedBytes = 0
  private writing = false

  constructor(link: Link, maxQueuedBytes: number = MAX_QUEUED_BYTES) {
    this.link = link
    this.maxQueuedBytes = maxQueuedBytes
  }

  /**
   * False when the link has ended, or ends now since the peer takes too little. Throws `MessageTooLong` for a body that no peer
   * would take.
   */
  offer(body: Uint8Array): boolean {
    if (body.length > LengthPrefix.MAX_BODY_BYTES) {
      throw new MessageTooLong(`a message of ${body.length} bytes; at most ${LengthPrefix.MAX_BODY_BYTES}`)
    }
    if (this.link.isClosed()) return false
    const frame = LengthPrefix.encode(body)
    if (this.queuedBytes + this.link.bufferedBytes() + frame.length > this.maxQueuedBytes) {
      this.link.close("too slow", CloseCode.policy)
      return false
    }
    this.queue.push(frame)
    this.queuedBytes += frame.length
    if (!this.writing) void this.drain()
    return true
  }

  /** Waits a microtask first, so that what one turn of the loop has to say goes out together. */
  private async drain(): Promise<void> {
    this.writing = true
    await Promise.resolve()
    try {
      while (this.queue.length > 0) {
        const batch = this.queue.length === 1 ? this.queue[0]! : concat(this.queue)
        this.queue = []
        this.queuedBytes -= batch.length // from here on the link counts it
        await this.link.write(batch)
      }
    } catch {
      this.link.destroy("a write failed")
      this.queue = []
    } finally {
      this.writing = false
    }
  }
}
