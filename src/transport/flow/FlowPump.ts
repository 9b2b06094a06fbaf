/** Moves bytes between one stream and one socket, both ways, until both ways are over. Neither side ever waits for the other. */
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
} from "./FlowStream.ts"
import { type Reader } from "./TcpReader.ts"
import { MIN_BYTES, unread } from "./Unread.ts"

export interface FlowOutcome {
  /** Bytes from the socket that the stream took. */
  readonly sent: number
  /** Bytes from the stream that the socket took. */
  readonly received: number
  /** ended: both sides closed in order. Otherwise who cut it; the other side was reset. */
  readonly how: "ended" | "socket_reset" | "peer_reset" | "session_closed"
}

/** What flows have moved together, as in `FlowOutcome`; each adds to it while it runs. */
export interface FlowMeter {
  sent: number
  received: number
}

export interface PumpOptions {
  readonly stream: FlowStream
  /** A paused socket with its reader, or any paused Duplex (made with `allowHalfOpen`). Belongs to the pump from here on. */
  readonly socket: Reader | Duplex
  /** Bytes already read from the stream, first to go to the socket. */
  readonly fromStream?: Uint8Array
  /** Bytes already read from the socket, first to go to the stream. */
  readonly fromSocket?: Uint8Array
  readonly meter?: FlowMeter
  /** The first bytes that way are about to go. May be told again for as long as none of them was taken. */
  readonly onFirst?: (way: "sent" | "received") => void
  /** Once, when both sides are over and the socket is closed. */
  readonly onDone: (outcome: FlowOutcome) => void
}

export class FlowPump implements StreamHandler {
  readonly #stream: FlowStream
  readonly #socket: Duplex
  readonly #onFirst: PumpOptions["onFirst"]
  readonly #onDone: (outcome: FlowOutcome) => void
  readonly #meter: FlowMeter
  /** Read from the socket, not yet taken by the stream. While it is here the socket is not read. */
  #rest: Buffer | null = null
  /** The socket's end was read. */
  #ended = false
  /** The socket has enough. The stream is left alone until it drains: its window fills, and the peer stops. */
  #paused = false
  /** Bytes waiting in the socket, as far as they were told to `unread`. */
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
    socket.on("error", ignore) // 'close' follows and says all that matters
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

  /** Stream to socket. */
  onReadable(): void {
    while (!this.#paused && !this.#stream.readOver) {
      const space = readSpace(unread.allowance - this.#unread)
      const got = this.#stream.read(space)
      if (got === READ_NOTHING) return
      if (got === READ_RESET) return this.#cut("peer_reset")
      if (got > 0) this.#toSocket(space.subarray(0, got), true)
      if (this.#stream.readOver) {
        this.#socket.end()
        this.#finishIfOver()
      }
    }
  }

  onWritable(): void {
    this.#push()
  }

  onClosed(): void {
    this.#cut("session_closed")
  }

  /** Ends the flow from outside (a revoked grant, a shutdown): both sides see a reset. */
  abort(): void {
    this.#cut("session_closed")
  }

  #toSocket(bytes: Buffer, borrowed = false): void {
    if (this.#received === 0) this.#onFirst?.("received")
    this.#received += bytes.length
    this.#meter.received += bytes.length
    const room = this.#socket.write(bytes)
    const waiting = this.#socket.writableLength
    if (borrowed && waiting > 0) lend(bytes.length)
    if (!room) this.#holds(waiting)
    if (!room && waiting >= unread.allowance) {
      this.#paused = true
      this.#stream.pause()
    }
  }

  /** A socket says that it has drained only when it had said that it has no room, so nothing less is told. */
  #holds(bytes: number): void {
    unread.change(bytes - this.#unread)
    this.#unread = bytes
  }

  /** Socket to stream. False: the stream is full, and the socket shall not be read. */
  readonly #onBytes = (bytes: Buffer): boolean => {
    if (this.#rest !== null) {
      this.#rest = Buffer.concat([this.#rest, bytes])
      return false
    }
    if (this.#sent === 0) this.#onFirst?.("sent")
    const taken = this.#stream.write(bytes)
    if (taken === WRITE_STOPPED) return this.#onStopped()
    this.#sent += taken
    this.#meter.sent += taken
    if (taken === bytes.length) return true
    this.#rest = Buffer.from(bytes.subarray(taken)) // a copy: the socket reads into the same buffer again
    return false
  }

  /** Gives the stream what is left, then the end; or lets the socket be read again. */
  #push(): void {
    const rest = this.#rest
    if (rest !== null) {
      const taken = this.#stream.write(rest)
      if (taken === WRITE_STOPPED) {
        this.#rest = null
        this.#onStopped()
        return
      }
      this.#sent += taken
      this.#meter.sent += taken
      this.#rest = taken < rest.length ? rest.subarray(taken) : null
      if (this.#rest !== null) return
      if (!this.#ended) this.#socket.resume()
    }
    if (this.#ended && this.#stream.finish()) this.#finishIfOver()
  }

  /**
   * The far socket reads no more. What it still has to say is delivered first; then this socket is closed with bytes unread,
   * which TCP turns into a reset. Returns false: there is nowhere to put bytes.
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

  /** The socket is gone. An end that was read in order stays an end; anything else was a reset. */
  #onSocketClose(): void {
    if (this.#socketClosed) return
    this.#socketClosed = true
    this.#holds(0)
    if (!this.#ended && !this.#stream.writeOver) {
      if (this.#how === "ended") this.#how = "socket_reset"
      this.#rest = null
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
    this.#rest = null
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

/** Starts a pump that nobody needs to hold. */
export const pump = (options: PumpOptions): FlowPump => new FlowPump(options)

/** The application sees a connection reset, never a clean end. */
export const resetSocket = (socket: Duplex): void => {
  if (socket.destroyed) return
  if (socket instanceof net.Socket) socket.resetAndDestroy()
  else socket.destroy()
}

const ignore = () => {}

/**
 * Where streams are read to, shared by the flows of a thread. What a socket could not pass on at once it keeps, so that part
 * of the buffer is lent for good, and reading goes on behind it.
 */
const SPACE_BYTES = 256 * 1024
const MIN_SPACE_BYTES = 64 * 1024
let space = Buffer.allocUnsafeSlow(SPACE_BYTES)

/** Room for at most `most` bytes, and for at least `MIN_BYTES`. */
const readSpace = (most: number): Buffer => most >= space.length ? space : space.subarray(0, Math.max(most, MIN_BYTES))

const lend = (bytes: number): void => {
  space = space.length - bytes >= MIN_SPACE_BYTES ? space.subarray(bytes) : Buffer.allocUnsafeSlow(SPACE_BYTES)
}
