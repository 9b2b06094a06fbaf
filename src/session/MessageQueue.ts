/**
 * Outgoing messages of one link. They are framed and sent in order; while the link is busy, several
 * share a write. The queue is bounded.
 */
import { concat } from "../protocol/bytes/Concat.ts"
import * as LengthPrefix from "../protocol/bytes/LengthPrefix.ts"
import { CloseCode, type Link } from "./Link.ts"

/**
 * Most bytes that may wait for one slow peer. If there are more, the link is closed. It also limits
 * what one turn of the event loop may send.
 */
export const MAX_QUEUED_BYTES = 256 * 1024

/** Error when a message is longer than any peer accepts. */
export class MessageTooLong extends Error {
  override readonly name = "MessageTooLong"
}

/** Queue of one link's outgoing messages. */
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
   * Queues a message. Returns `false` if the link has ended, or if it ends now because the peer
   * reads too slowly. Throws `MessageTooLong` for a body that no peer accepts.
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

  /**
   * Writes the queue. Waits a microtask first, so that messages of one turn of the event loop are
   * sent together.
   */
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
