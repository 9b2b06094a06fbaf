/** Streams that wait for room to write. Small writers are served first, each in its turn. */
import { type QuicStream } from "./QuicStream.ts"

/** The waiting writers of one session. */
export class WriterQueue {
  readonly #small = new Set<QuicStream>()
  readonly #bulk = new Set<QuicStream>()

  get size(): number {
    return this.#small.size + this.#bulk.size
  }

  /** Adds a stream, or moves it to the other class. */
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

  /**
   * Lets the waiting streams write. `written` returns the number of bytes that QUIC has accepted
   * until now; `anyWritable` returns whether any stream could accept a byte.
   */
  serve(written: () => number, anyWritable: () => boolean): void {
    this.#serve(this.#small, written, anyWritable)
    this.#serve(this.#bulk, written, anyWritable)
  }

  /**
   * Serves one queue, the longest waiting stream first, one quantum each. A stream that is still
   * blocked goes to the end. Stops when nothing more fits.
   */
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
        room = true // this stream waits for its own window; others may have room
        idle += 1
      }
    }
  }
}
