/** A relay link without a network, for tests in virtual time. */
import type { Closed } from "../../../src/session/Link.ts"

/** One end of a link in memory. While it is mute, what it writes is lost. */
export class MemoryLink {
  /** The two ends of one link. */
  static pair(): readonly [MemoryLink, MemoryLink] {
    const [one, other] = [new MemoryLink(), new MemoryLink()]
    one.peer = other
    other.peer = one
    return [one, other]
  }

  readonly carrier = "websocket"
  readonly remote = "memory"
  readonly serverCertSha256 = new Uint8Array(32)
  readonly closed: Promise<Closed>
  peer: MemoryLink | null = null
  isMute = false
  end: Closed | null = null
  readonly #arrived: Array<Uint8Array> = []
  #wake = () => {}
  #close: (closed: Closed) => void = () => {}

  constructor() {
    this.closed = new Promise((resolve) => {
      this.#close = resolve
    })
  }

  readonly incoming = this.#all()
  readonly bufferedBytes = () => 0
  readonly isClosed = () => this.end !== null
  readonly unread = (bytes: Uint8Array) => void this.#arrived.unshift(bytes)

  readonly read = async () => {
    while (this.#arrived.length === 0 && this.end === null) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    return this.#arrived.shift()
  }

  async *#all() {
    for (let bytes = await this.read(); bytes !== undefined; bytes = await this.read()) yield bytes
  }

  readonly write = (bytes: Uint8Array) => {
    if (!this.isMute) this.peer?.take(bytes)
    return Promise.resolve()
  }

  take(bytes: Uint8Array) {
    this.#arrived.push(bytes)
    this.#wake()
  }

  readonly close = (reason: string) => this.destroy(reason)
  readonly destroy = (reason: string) => {
    if (this.end !== null) return
    this.end = { by: "here", code: 1000, reason }
    this.#close(this.end)
    this.#wake()
  }
}
