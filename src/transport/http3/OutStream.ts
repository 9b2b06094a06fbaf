/** What waits to be written on one QUIC stream. */
import type { QuicConnection } from "../quic/QuicEngine.ts"
import { WRITE_STOPPED } from "../quic/QuicEngine.ts"

interface Piece {
  bytes: Uint8Array
  /** False: it will never leave. */
  readonly done: ((left: boolean) => void) | undefined
}

export class OutStream {
  readonly id: number
  #queue: Array<Piece> = []
  #head = 0
  #waiting = 0
  #ending = false
  #ended = false

  constructor(id: number) {
    this.id = id
  }

  /** Bytes that QUIC has not taken yet. */
  get bufferedBytes(): number {
    return this.#waiting
  }

  /** Everything was taken, and the end with it. */
  get isOver(): boolean {
    return this.#ended
  }

  /** Keeps `bytes` until QUIC has taken a copy. */
  push(bytes: Uint8Array, done?: (left: boolean) => void): void {
    if (this.#ending) return done?.(false)
    if (bytes.length === 0) return done?.(true)
    this.#queue.push({ bytes, done })
    this.#waiting += bytes.length
  }

  /** What was pushed goes first. */
  end(): void {
    this.#ending = true
  }

  /** Writes what the windows allow, and answers how many bytes that was; -1: the peer takes no more of it. */
  flush(quic: QuicConnection): number {
    let written = 0
    while (this.#head < this.#queue.length) {
      const piece = this.#queue[this.#head]!
      const taken = quic.write(this.id, piece.bytes)
      if (taken === WRITE_STOPPED) return this.fail()
      if (taken <= 0) return written
      written += taken
      this.#waiting -= taken
      if (taken < piece.bytes.length) {
        piece.bytes = piece.bytes.subarray(taken)
        continue
      }
      this.#head += 1
      piece.done?.(true)
    }
    this.#queue = []
    this.#head = 0
    if (this.#ending && !this.#ended) this.#ended = quic.finish(this.id)
    return written
  }

  /** Nothing more will leave. */
  fail(): -1 {
    const left = this.#queue.slice(this.#head)
    this.#queue = []
    this.#head = 0
    this.#waiting = 0
    this.#ending = true
    this.#ended = true
    for (const { done } of left) done?.(false)
    return -1
  }
}
