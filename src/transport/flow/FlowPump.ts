/**
 * Moves bytes between one stream and one socket in both directions, until both are over. Neither
 * direction waits for the other.
 */
import { Buffer } from "node:buffer"
import net from "node:net"
import { type Duplex } from "node:stream"
import {
  FLOW_RESET,
  type FlowStream,
  READ_NOTHING,
  READ_RESET,
  type StreamHandler,
  WRITE_STOPPED
} from "../../session/FlowStream.ts"
import { type Reader } from "./TcpReader.ts"
import { MIN_BYTES, unread } from "./Unread.ts"

/** How a flow ended, and the bytes that it moved. */
export interface FlowOutcome {
  /** Bytes from the socket that the stream took. */
  readonly sent: number
  /** Bytes from the stream that the socket took. */
  readonly received: number
  /**
   * How the flow ended. `ended`: both sides closed in order. Any other value names the side that
   * broke the flow; the other side was reset.
   */
  readonly how: "ended" | "socket_reset" | "peer_reset" | "session_closed"
}

/**
 * Bytes that several flows moved together, with the fields of {@link FlowOutcome}. Each flow adds
 * to it while it runs.
 */
export interface FlowMeter {
  sent: number
  received: number
}

/** Options of {@link FlowPump}. */
export interface PumpOptions {
  readonly stream: FlowStream
  /**
   * A paused socket with its reader, or any paused Duplex made with `allowHalfOpen`. The pump owns
   * it.
   */
  readonly socket: Reader | Duplex
  /** Bytes already read from the stream. They go to the socket first. */
  readonly fromStream?: Uint8Array
  /** Bytes already read from the socket. They go to the stream first. */
  readonly fromSocket?: Uint8Array
  readonly meter?: FlowMeter
  /**
   * Called when the first bytes in a direction are about to be written. It may be called again if
   * none of them was taken.
   */
  readonly onFirst?: (way: "sent" | "received") => void
  /** Called once, when both sides have ended and the socket is closed. */
  readonly onDone: (outcome: FlowOutcome) => void
}

/** Moves bytes in both directions between one stream and one socket. It is the stream's handler. */
export class FlowPump implements StreamHandler {
  readonly #stream: FlowStream
  readonly #socket: Duplex
  readonly #onFirst: PumpOptions["onFirst"]
  readonly #onDone: (outcome: FlowOutcome) => void
  readonly #meter: FlowMeter
  /**
   * Bytes read from the socket that the stream has not taken yet. The socket is not read meanwhile.
   * Only `#keep` sets it.
   */
  #rest: Buffer | null = null
  /** Whether the socket's end was read. */
  #ended = false
  /**
   * Whether the socket's buffer is full. The stream is not read until the socket drains, so that
   * its window fills and the peer stops.
   */
  #paused = false
  /** Bytes buffered in the socket that are counted in `unread`. The bytes of `#rest` are, too. */
  #unread = 0
  #socketClosed = false
  #how: FlowOutcome["how"] = "ended"
  #sent = 0
  #received = 0
  #done = false

  constructor(options: PumpOptions) {
    const { fromSocket, fromStream, socket, stream } = options
    this.#stream = stream
    this.#onDone = options.onDone
    this.#onFirst = options.onFirst
    this.#meter = options.meter ?? { sent: 0, received: 0 }
    this.#socket = "sink" in socket ? socket.socket : socket
    this.#listen()
    stream.handler = this
    if ("sink" in socket) socket.sink = this.#onBytes
    else {
      socket.on("data", (bytes: Buffer) => {
        if (!this.#onBytes(bytes)) socket.pause()
      })
    }
    if (fromStream !== undefined && fromStream.length > 0) this.#toSocket(Buffer.from(fromStream))
    if (stream.readOver) this.#socket.end()
    if (fromSocket === undefined || fromSocket.length === 0 || this.#onBytes(Buffer.from(fromSocket))) {
      this.#socket.resume()
    }
    if (this.#socket.destroyed) queueMicrotask(() => this.#onSocketClose())
    else this.onReadable()
  }

  #listen(): void {
    const socket = this.#socket
    socket.on("error", ignore) // `close` follows and is enough
    socket.on("end", () => {
      this.#ended = true
      this.#push()
    })
    socket.on("drain", () => {
      this.#paused = false
      this.#holds(0)
      this.onReadable()
    })
    socket.on("close", () => this.#onSocketClose())
  }

  /** Moves bytes from the stream to the socket. */
  onReadable(): void {
    while (!this.#paused && !this.#stream.readOver) {
      const space = readSpace(unread.allowance - this.#unread)
      const got = this.#stream.read(space)
      if (got === READ_NOTHING) return
      if (got === READ_RESET) return this.#cut("peer_reset")
      if (got > 0) this.#toSocket(space.subarray(0, got))
      if (this.#stream.readOver) {
        this.#socket.end()
        this.#finishIfOver()
      }
    }
  }

  onWritable(): void {
    this.#push()
  }

  /** Handles the end of the session: resets the socket. */
  onClosed(): void {
    this.#cut("session_closed")
  }

  /**
   * Ends the flow from outside, for example after a revoked grant or at shutdown. Both sides see a
   * reset.
   */
  abort(): void {
    this.#cut("session_closed")
  }

  /** Writes bytes of the thread's buffer, which holds others as soon as this returns. */
  #toSocket(bytes: Buffer): void {
    if (this.#received === 0) this.#onFirst?.("received")
    this.#received += bytes.length
    this.#meter.received += bytes.length
    // A socket that already has bytes waiting keeps these for long, perhaps. A copy keeps nothing
    // else of the buffer in memory.
    const isBehind = this.#socket.writableLength > 0
    const room = this.#socket.write(isBehind ? Buffer.from(bytes) : bytes)
    const waiting = this.#socket.writableLength
    if (!isBehind && waiting > 0) lend(bytes)
    if (!room) this.#holds(waiting)
    if (!room && waiting >= unread.allowance) {
      this.#paused = true
      this.#stream.pause()
    }
  }

  /**
   * Counts the bytes that the socket buffers. They are counted only after a write that returned
   * `false`, because only then a `drain` event follows that ends the count.
   */
  #holds(bytes: number): void {
    unread.change(bytes - this.#unread)
    this.#unread = bytes
  }

  /**
   * Moves bytes from the socket to the stream. Returns `false` if the stream is full and the socket
   * must not be read.
   */
  readonly #onBytes = (bytes: Buffer): boolean => {
    if (this.#rest !== null) {
      this.#keep(Buffer.concat([this.#rest, bytes]))
      return false
    }
    if (this.#sent === 0) this.#onFirst?.("sent")
    const taken = this.#stream.write(bytes)
    if (taken === WRITE_STOPPED) return this.#onStopped()
    this.#sent += taken
    this.#meter.sent += taken
    if (taken === bytes.length) return true
    // This is a copy, because the socket reads into the same buffer again.
    this.#keep(Buffer.from(bytes.subarray(taken)))
    return false
  }

  /** Replaces the bytes that the stream has not taken yet, and counts them. */
  #keep(rest: Buffer | null): void {
    const change = (rest?.length ?? 0) - (this.#rest?.length ?? 0)
    this.#rest = rest
    if (change !== 0) unread.change(change)
  }

  /** Writes the kept bytes to the stream and then its end, or resumes reading from the socket. */
  #push(): void {
    const rest = this.#rest
    if (rest !== null) {
      const taken = this.#stream.write(rest)
      if (taken === WRITE_STOPPED) {
        this.#keep(null)
        this.#onStopped()
        return
      }
      this.#sent += taken
      this.#meter.sent += taken
      this.#keep(taken < rest.length ? rest.subarray(taken) : null)
      if (this.#rest !== null) return
      if (!this.#ended) this.#socket.resume()
    }
    if (this.#ended && this.#stream.finish()) this.#finishIfOver()
  }

  /**
   * The socket on the far side reads no more. Bytes that it still sends are delivered first. Then
   * this socket is closed with bytes unread, which TCP turns into a reset. Returns `false`, because
   * no more bytes can be taken.
   */
  #onStopped(): false {
    if (this.#stream.readOver) this.#closeAfterFlush()
    else this.#socket.once("finish", () => this.#socket.destroy())
    return false
  }

  #closeAfterFlush(): void {
    if (this.#socket.writableFinished) this.#socket.destroy()
    else this.#socket.once("finish", () => this.#socket.destroy())
  }

  /**
   * The socket has closed. If its end was read in order it counts as an end; anything else is a
   * reset.
   */
  #onSocketClose(): void {
    if (this.#socketClosed) return
    this.#socketClosed = true
    this.#holds(0)
    if (!this.#ended && !this.#stream.writeOver) {
      if (this.#how === "ended") this.#how = "socket_reset"
      this.#keep(null)
      this.#stream.reset(FLOW_RESET)
    }
    if (!this.#stream.readOver) {
      if (this.#how === "ended") this.#how = "socket_reset"
      this.#stream.stop(FLOW_RESET)
    }
    this.#finishIfOver()
  }

  #cut(how: FlowOutcome["how"]): void {
    if (this.#how === "ended") this.#how = how
    this.#keep(null)
    this.#stream.abort(FLOW_RESET)
    resetSocket(this.#socket)
    this.#finishIfOver()
  }

  #finishIfOver(): void {
    if (this.#done || !this.#socketClosed || !this.#stream.readOver || !this.#stream.writeOver) return
    this.#done = true
    this.#onDone({ sent: this.#sent, received: this.#received, how: this.#how })
  }
}

/** Starts a pump. The caller need not keep anything. */
export const pump = (options: PumpOptions): FlowPump => new FlowPump(options)

/**
 * Closes a socket so that the application sees a connection reset, never an orderly end. A unix
 * socket cannot be reset, so it is only closed.
 */
export const resetSocket = (socket: Duplex): void => {
  if (socket.destroyed) return
  if (!(socket instanceof net.Socket)) return void socket.destroy()
  try {
    socket.resetAndDestroy()
  } catch { // Node.js refuses for anything but TCP
    socket.destroy()
  }
}

const ignore = () => {}

/**
 * Size of the buffer that streams are read into, in bytes. The flows of a thread share it. A part
 * that a socket could not pass on at once stays with that socket, and reading continues after it.
 */
const SPACE_BYTES = 256 * 1024
/** Size of the rest of the buffer below which a new buffer is allocated, in bytes. */
const MIN_SPACE_BYTES = 64 * 1024
let space = Buffer.allocUnsafeSlow(SPACE_BYTES)

/** The part of the buffer to read into: at most `most` bytes, but at least {@link MIN_BYTES}. */
const readSpace = (most: number): Buffer => most >= space.length ? space : space.subarray(0, Math.max(most, MIN_BYTES))

/** Leaves bytes of the buffer to a socket. Does nothing if they are not part of it. */
const lend = (bytes: Buffer): void => {
  if (bytes.buffer !== space.buffer) return
  space = space.length - bytes.length >= MIN_SPACE_BYTES
    ? space.subarray(bytes.length)
    : Buffer.allocUnsafeSlow(SPACE_BYTES)
}
