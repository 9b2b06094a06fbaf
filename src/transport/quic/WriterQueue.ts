/** Streams that wait for room, small writers first, each in its turn. */
import { type QuicStream } from "./QuicStream.ts"

export class WriterQueue {
  readonly #small = new Set<QuicStream>()
  readonly #bulk = new Set<QuicStream>()

  get size(): number {
    return this.#small.size + this.#bulk.size
  }

  add(stream: QuicStream, small: boolean): void {
    const [to, from] = small ? [this.#small, this.#bulk] : [this.#bulk, this.#small]
    from.delete(stream)
    to.add(stream)
  }

  delete(stream: QuicStream): void {
    this.#small.delete(stream)
    this.#bulk.delete(stream)
  }

  clear(): void {
    this.#small.clear()
    this.#bulk.clear()
  }

  /** `written` counts the bytes that QUIC took so far; `anyWritable` says whether any stream could take one. */
  serve(written: () => number, anyWritable: () => boolean): void {
    this.#serve(this.#small, written, anyWritable)
    this.#serve(this.#bulk, written, anyWritable)
  }

  /** The longest waiting first, a quantum each; who is still blocked goes to the end. Ends when nothing more fits. */
  #serve(waiting: Set<QuicStream>, written: () => number, anyWritable: () => boolean): void {
    let room = false
    for (let idle = 0; idle < waiting.size;) {
      const [stream] = waiting
      if (stream === undefined) return
      const before = written()
      waiting.delete(stream)
      stream.handler?.onWritable()
      if (written() > before) idle = 0
      else if (!this.#small.has(stream) && !this.#bulk.has(stream)) continue
      else {
        if (!room && !anyWritable()) return
        room = true // this one waits for its own window, others need not
        idle += 1
      }
    }
  }
}
