/** Queue of bytes to be written on one QUIC stream. */
import type { QuicConnection } from "../quic/engine/QuicEngine.ts"
import { WRITE_STOPPED } from "../quic/engine/QuicEngine.ts"

interface Piece {
  bytes: Uint8Array
  /**
   * Called with `true` when QUIC has taken the bytes, or with `false` if they will never be sent.
   */
  readonly done: ((left: boolean) => void) | undefined
}

/** Outgoing bytes of one stream. Nothing is written until {@link OutStream.flush}. */
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

  /** Whether QUIC has taken everything, including the end, or the stream has failed. */
  get isOver(): boolean {
    return this.#ended
  }

  /**
   * Queues `bytes`, which must not change until `done` is called. The queue has no limit of its
   * own.
   */
  push(bytes: Uint8Array, done?: (left: boolean) => void): void {
    if (this.#ending) return done?.(false)
    if (bytes.length === 0) return done?.(true)
    this.#queue.push({ bytes, done })
    this.#waiting += bytes.length
  }

  /** Ends the stream after the queued bytes. */
  end(): void {
    this.#ending = true
  }

  /**
   * Writes as much as the windows allow. Returns the number of bytes, or -1 if the peer reads no
   * more.
   */
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

  /** Drops all queued bytes, because the stream has failed. Nothing more will be sent. */
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
