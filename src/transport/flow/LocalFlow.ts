/**
 * Both ends of the local connection between an embedded client and its program. A unix socket
 * cannot be reset, so the bytes to the program travel in frames: u32 big-endian length, then that
 * many bytes. An empty frame says that the bytes ended in order. Without it, the end of the
 * connection is a reset. The bytes from the program have no frames.
 */
import { Buffer } from "node:buffer"
import type net from "node:net"
import { Duplex } from "node:stream"
import { HEAD_BYTES, writeHead } from "../../protocol/bytes/LengthPrefix.ts"

const EMPTY = Buffer.alloc(0)
/** The empty frame. */
const END = Buffer.alloc(HEAD_BYTES)

type Done = (error?: Error | null) => void

/**
 * Returns the node's end of a flow, paused. It owns the socket, whose handshake is over. When it is
 * destroyed before its end was written, the program sees a reset.
 */
export const atNode = (socket: net.Socket): Duplex => new NodeEnd(socket)

/**
 * Returns the program's end of a flow. It owns the socket, whose handshake is over. It reads only
 * when it is read from. A reset is an error with the code `ECONNRESET`, after all bytes that came
 * before it.
 */
export const atProgram = (socket: net.Socket): Duplex => new ProgramEnd(socket)

class NodeEnd extends Duplex {
  readonly #socket: net.Socket

  constructor(socket: net.Socket) {
    super({ allowHalfOpen: true })
    this.#socket = socket
    socket.on("data", (bytes: Buffer) => {
      if (!this.push(bytes)) socket.pause()
    })
    socket.on("end", () => this.push(null))
    socket.on("error", (cause) => this.destroy(cause))
    socket.on("close", () => this.destroy())
    this.pause()
  }

  override _read(): void {
    this.#socket.resume()
  }

  /** Copies the bytes, because the caller may use their memory again as soon as this returns. */
  override _write(bytes: Buffer, _encoding: BufferEncoding, done: Done): void {
    const frame = Buffer.allocUnsafe(HEAD_BYTES + bytes.length)
    writeHead(frame, 0, bytes.length)
    frame.set(bytes, HEAD_BYTES)
    if (this.#socket.write(frame)) done()
    else this.#socket.once("drain", done)
  }

  override _final(done: Done): void {
    this.#socket.end(END, done)
  }

  override _destroy(error: Error | null, done: Done): void {
    this.#socket.destroy()
    done(error)
  }
}

class ProgramEnd extends Duplex {
  readonly #socket: net.Socket
  #isReading = false
  /** The bytes of a frame's head that have come, if it is not whole. */
  #head = EMPTY
  /** How many bytes of the current frame are still to come. */
  #left = 0
  #hasEnded = false
  #isReset = false

  constructor(socket: net.Socket) {
    super({ allowHalfOpen: true })
    this.#socket = socket
    socket.on("error", (cause) => this.destroy(cause))
    socket.on("close", () => this.#onEnd())
  }

  override _read(): void {
    if (this.#isReset) return this.#breakWhenRead()
    if (!this.#isReading) {
      this.#isReading = true
      this.#socket.on("data", (bytes: Buffer) => this.#onBytes(bytes))
      this.#socket.on("end", () => this.#onEnd())
    }
    this.#socket.resume()
  }

  #onBytes(bytes: Buffer): void {
    let at = 0
    let hasRoom = true
    while (at < bytes.length && !this.#hasEnded) {
      if (this.#left > 0) {
        const part = bytes.subarray(at, at + this.#left)
        at += part.length
        this.#left -= part.length
        hasRoom = this.push(part)
        continue
      }
      const head = bytes.subarray(at, at + HEAD_BYTES - this.#head.length)
      at += head.length
      this.#head = Buffer.concat([this.#head, head])
      if (this.#head.length < HEAD_BYTES) break
      this.#left = this.#head.readUInt32BE()
      this.#head = EMPTY
      if (this.#left > 0) continue
      this.#hasEnded = true
      this.push(null)
    }
    if (!hasRoom) this.#socket.pause()
  }

  /** Handles the end of the connection, which is a reset unless the end of the bytes has come. */
  #onEnd(): void {
    if (this.#hasEnded || this.#isReset || this.destroyed) return
    this.#isReset = true
    this.push(EMPTY) // lets the stream ask for more
  }

  #breakWhenRead(): void {
    if (this.readableLength > 0) this.push(EMPTY)
    else this.destroy(Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET", syscall: "read" }))
  }

  override _write(bytes: Buffer, _encoding: BufferEncoding, done: Done): void {
    this.#socket.write(bytes, done)
  }

  override _final(done: Done): void {
    this.#socket.end(done)
  }

  override _destroy(error: Error | null, done: Done): void {
    this.#socket.destroy()
    done(error)
  }
}
