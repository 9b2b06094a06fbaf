/**
 * The session's own stream, which sends and collects notices about the ends of the other streams.
 */
import { Buffer } from "node:buffer"
import * as EndNotice from "./EndNotice.ts"
import { type QuicConnection, READ_NOTHING, READ_RESET, type Role } from "./engine/QuicEngine.ts"

/**
 * Most notices kept about streams that have not been seen yet. When full, the oldest notice is
 * dropped.
 */
const MAX_EARLY = 1024
/**
 * Limit for unsent bytes. A peer that exceeds it does not read notices, and each stream it opens
 * would add to the backlog.
 */
const MAX_UNSENT_BYTES = 256 * 1024

/** Reads and writes the notices of one session. */
export class NoticeStream {
  readonly #connection: QuicConnection
  readonly #connector: boolean
  /** Bytes that QUIC has not accepted yet. */
  #unsent: Buffer
  /** Beginning of a notice whose rest has not arrived. */
  #kept: Buffer = Buffer.alloc(0)
  /**
   * Whether this side may write. The connector may do so once the client's first byte has arrived.
   */
  #open: boolean
  readonly #early = new Map<number, EndNotice.EndNotice>()

  constructor(connection: QuicConnection, role: Role) {
    this.#connection = connection
    this.#connector = role === "connector"
    this.#open = !this.#connector
    this.#unsent = this.#connector ? Buffer.alloc(0) : EndNotice.HELLO
  }

  /** Whether the peer has stopped reading notices. */
  get isStuck(): boolean {
    return this.#unsent.length > MAX_UNSENT_BYTES
  }

  /** Queues a notice. Drops it if the peer has stopped reading notices. */
  send(notice: EndNotice.EndNotice): void {
    if (this.isStuck) return
    this.#unsent = Buffer.concat([this.#unsent, EndNotice.encode(notice)])
  }

  /** Writes waiting notices. Called once a turn, before the other writers. */
  flush(): void {
    if (!this.#open || this.#unsent.length === 0) return
    const taken = this.#connection.write(EndNotice.NOTICE_STREAM, this.#unsent)
    if (taken > 0) this.#unsent = this.#unsent.subarray(taken)
  }

  /**
   * Reads the notices that have arrived; called when the stream is readable. Returns `false` if the
   * peer violates the protocol.
   */
  receive(tell: (notice: EndNotice.EndNotice) => void): boolean {
    for (;;) {
      const got = this.#connection.read(EndNotice.NOTICE_STREAM, space)
      if (got === READ_NOTHING) return true
      if (got === READ_RESET || this.#connection.readFinished()) return false
      let bytes = Buffer.concat([this.#kept, space.subarray(0, got)])
      if (!this.#open) {
        this.#open = true
        bytes = bytes.subarray(EndNotice.HELLO.length)
      }
      while (bytes.length >= EndNotice.NOTICE_BYTES) {
        const notice = EndNotice.decode(bytes.subarray(0, EndNotice.NOTICE_BYTES))
        if (notice === null) return false
        tell(notice)
        bytes = bytes.subarray(EndNotice.NOTICE_BYTES)
      }
      this.#kept = bytes
    }
  }

  /**
   * Stores a notice about an unknown stream. Either the first bytes of that stream have not arrived
   * yet, or it ended long ago.
   */
  keep(notice: EndNotice.EndNotice): void {
    if (!this.#connector) return // the client knows its streams
    this.#early.set(notice.stream, notice)
    const [oldest] = this.#early.keys()
    if (this.#early.size > MAX_EARLY && oldest !== undefined) this.#early.delete(oldest)
  }

  /**
   * Removes and returns a notice that arrived before its stream was known. `null` if there is none.
   */
  early(stream: number): EndNotice.EndNotice | null {
    const notice = this.#early.get(stream)
    if (notice === undefined) return null
    this.#early.delete(stream)
    return notice
  }
}

const space = Buffer.allocUnsafeSlow(64 * 1024)
