/**
 * TCP sockets that all read into one buffer of the thread instead of a new buffer for each read. It
 * gives a quarter more throughput and reads larger than 64 KiB. The bytes are valid only during the
 * call that delivers them.
 */
import { Buffer } from "node:buffer"
import net from "node:net"

/** Size of the thread's read buffer, in bytes. */
const READ_BYTES = 256 * 1024
const readBuffer = Buffer.allocUnsafeSlow(READ_BYTES)

/** Receives bytes as they arrive. Returns `false` to stop reading until `socket.resume()`. */
export type Sink = (bytes: Buffer) => boolean

/**
 * A socket and the receiver of its bytes. The socket stays paused until `sink` is set and
 * `socket.resume()` is called.
 */
export interface Reader {
  readonly socket: net.Socket
  sink: Sink | null
}

const onread = (reader: { sink: Sink | null }): net.OnReadOpts => ({
  buffer: readBuffer,
  callback: (length) => reader.sink?.(readBuffer.subarray(0, length)) ?? false
})

/** Starts to connect. The socket is paused and may be half-open. */
export const connect = (host: string, port: number, family: 4 | 6): Reader => {
  const target: { sink: Sink | null } = { sink: null }
  const socket = net.connect({ host, port, family, noDelay: true, allowHalfOpen: true, onread: onread(target) })
  socket.pause()
  return bind(socket, target)
}

/**
 * Socket options, with two that Node's types lack: `handle`, and `pauseOnCreate`, which keeps a
 * socket that is made from a handle from reading at once.
 */
type FromHandle = net.SocketConstructorOpts & {
  readonly handle: unknown
  readonly pauseOnCreate: boolean
  readonly onread: net.OnReadOpts
}
type WithHandle = { _handle: { readonly readStart?: unknown } | null }

/**
 * Gives an accepted socket a reader. The socket must be paused (`pauseOnConnect`), with nothing
 * read from it yet. Only the constructor takes `onread`, so a new socket takes over the handle; the
 * old one stays behind without a handle, because its server counts it.
 */
export const adopt = (accepted: net.Socket): Reader => {
  const holder = accepted as unknown as WithHandle
  const handle = holder._handle
  const target: { sink: Sink | null } = { sink: null }
  if (handle === null || typeof handle.readStart !== "function" || accepted.readableLength > 0) {
    accepted.on("data", (bytes: Buffer) => {
      if (target.sink?.(bytes) !== true) accepted.pause()
    })
    accepted.pause()
    return bind(accepted, target)
  }
  holder._handle = null
  const options: FromHandle = { handle, pauseOnCreate: true, allowHalfOpen: true, onread: onread(target) }
  const socket = new net.Socket(options)
  holders.set(accepted, socket)
  socket.setNoDelay(true)
  socket.once("close", () => accepted.destroy())
  return bind(socket, target)
}

/** Sockets that took over a handle, by the accepted socket. */
const holders = new WeakMap<net.Socket, net.Socket>()

/** The socket that now holds the connection of an accepted one. */
export const holderOf = (accepted: net.Socket): net.Socket => holders.get(accepted) ?? accepted

const bind = (socket: net.Socket, target: { sink: Sink | null }): Reader => ({
  socket,
  get sink() {
    return target.sink
  },
  set sink(sink) {
    target.sink = sink
  }
})
