/**
 * Messages in a byte stream: u32 big-endian length, then that many bytes. The length is checked
 * before anything is kept for it. A message that arrives in many pieces costs time and memory in
 * proportion to its size, however small the pieces are.
 */
import { Either } from "effect"

export const HEAD_BYTES = 4
/** Largest body on a relay link, in bytes. */
export const MAX_BODY_BYTES = 64 * 1024
/**
 * Room that is set aside for a body of which little has come yet. A length alone must not cost the
 * reader its whole size.
 */
const FIRST_ROOM_BYTES = 1024

/**
 * Error when the peer announced a longer body than it may send. The stream cannot be read any
 * further.
 */
export interface BodyTooLong {
  readonly _tag: "BodyTooLong"
  readonly bytes: number
  readonly maxBytes: number
}

/** Encodes a message: length and body. */
export const encode = (body: Uint8Array): Uint8Array => {
  const out = new Uint8Array(HEAD_BYTES + body.length)
  writeHead(out, 0, body.length)
  out.set(body, HEAD_BYTES)
  return out
}

/** Writes the length of a body at `at`. */
export const writeHead = (out: Uint8Array, at: number, length: number): void => {
  out[at] = length >>> 24
  out[at + 1] = (length >>> 16) & 255
  out[at + 2] = (length >>> 8) & 255
  out[at + 3] = length & 255
}

/** Cuts bodies out of a stream. After a `BodyTooLong` it must not be used again. */
export class Decoder {
  private readonly maxBytes: number
  private readonly head = new Uint8Array(HEAD_BYTES)
  private headLength = 0
  /** Size of the body that is being read. -1 while its head is not complete. */
  private size = -1
  /** Room for the body. It grows up to `size`. */
  private body = new Uint8Array(0)
  private bodyLength = 0

  constructor(maxBytes: number = MAX_BODY_BYTES) {
    this.maxBytes = maxBytes
  }

  /** Bytes set aside for a message that is not complete. */
  get heldBytes(): number {
    return this.headLength + this.body.length
  }

  /**
   * Returns the bodies that end in `bytes`, in order. Those that lie wholly in `bytes` are views of
   * it.
   */
  push(bytes: Uint8Array): Either.Either<ReadonlyArray<Uint8Array>, BodyTooLong> {
    const out: Array<Uint8Array> = []
    let at = 0
    for (;;) {
      if (this.size < 0) {
        at = this.takeHead(bytes, at)
        if (this.headLength < HEAD_BYTES) return Either.right(out)
        const size = readU32(this.head)
        if (size > this.maxBytes) return Either.left({ _tag: "BodyTooLong", bytes: size, maxBytes: this.maxBytes })
        this.headLength = 0
        this.size = size
      }
      if (this.bodyLength === 0 && bytes.length - at >= this.size) {
        out.push(bytes.subarray(at, at + this.size))
        at += this.size
        this.size = -1
        continue
      }
      at = this.takeBody(bytes, at)
      if (this.bodyLength < this.size) return Either.right(out)
      out.push(this.body.subarray(0, this.size))
      this.body = new Uint8Array(0)
      this.bodyLength = 0
      this.size = -1
    }
  }

  private takeHead(bytes: Uint8Array, at: number): number {
    while (this.headLength < HEAD_BYTES && at < bytes.length) this.head[this.headLength++] = bytes[at++]!
    return at
  }

  private takeBody(bytes: Uint8Array, at: number): number {
    const taken = Math.min(this.size - this.bodyLength, bytes.length - at)
    const needed = this.bodyLength + taken
    if (needed > this.body.length) {
      const room = new Uint8Array(Math.min(this.size, Math.max(needed, 2 * this.body.length, FIRST_ROOM_BYTES)))
      room.set(this.body.subarray(0, this.bodyLength))
      this.body = room
    }
    this.body.set(bytes.subarray(at, at + taken), this.bodyLength)
    this.bodyLength = needed
    return at + taken
  }
}

/** Reads a u32 from the first four bytes. */
export const readU32 = (bytes: Uint8Array): number =>
  ((bytes[0]! << 24) | (bytes[1]! << 16) | (bytes[2]! << 8) | bytes[3]!) >>> 0
