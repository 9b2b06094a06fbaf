/** The session's own stream: sends and collects notices about the ends of the other streams. */
import { Buffer } from "node:buffer"
import * as EndNotice from "./EndNotice.ts"
import { type QuicConnection, READ_NOTHING, READ_RESET, type Role } from "./QuicEngine.ts"

/** Notices about streams that have not been seen yet are kept, the latest ones. */
const MAX_EARLY = 1024
/** More unsent bytes than this: the peer reads no notices, and every stream that it opens would cost more for ever. */
const MAX_UNSENT_BYTES = 256 * 1024

export class NoticeStream {
  readonly #connection: QuicConnection
  readonly #connector: boolean
  /** Not yet taken by QUIC. */
  #unsent: Buffer
  /** The start of a notice. */
  #kept: Buffer = Buffer.alloc(0)
  /** The connector may write once the client's first byte is here. */
  #open: boolean
  readonly #early = new Map<number, EndNotice.EndNotice>()

  constructor(connection: QuicConnection, role: Role) {
    this.#connection = connection
    this.#connector = role === "connector"
    this.#open = !this.#connector
    this.#unsent = this.#connector ? Buffer.alloc(0) : EndNotice.HELLO
  }

  /** The peer takes none. */
  get isStuck(): boolean {
    return this.#unsent.length > MAX_UNSENT_BYTES
  }

  send(notice: EndNotice.EndNotice): void {
    if (this.isStuck) return
    this.#unsent = Buffer.concat([this.#unsent, EndNotice.encode(notice)])
  }

  /** Once a turn, before other writers. */
  flush(): void {
    if (!this.#open || this.#unsent.length === 0) return
    const taken = this.#connection.write(EndNotice.NOTICE_STREAM, this.#unsent)
    if (taken > 0) this.#unsent = this.#unsent.subarray(taken)
  }

  /** When the stream is readable. False: the peer breaks the protocol. */
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

  /** The stream is not known: its first bytes were overtaken, or it is long over. */
  keep(notice: EndNotice.EndNotice): void {
    if (!this.#connector) return // the client knows its streams
    this.#early.set(notice.stream, notice)
    const [oldest] = this.#early.keys()
    if (this.#early.size > MAX_EARLY && oldest !== undefined) this.#early.delete(oldest)
  }

  /** What was said about a stream before it was seen. */
  early(stream: number): EndNotice.EndNotice | null {
    const notice = this.#early.get(stream)
    if (notice === undefined) return null
    this.#early.delete(stream)
    return notice
  }
}

const space = Buffer.allocUnsafeSlow(64 * 1024)
