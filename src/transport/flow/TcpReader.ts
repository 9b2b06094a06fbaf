/**
 * TCP sockets that read into one buffer of the thread instead of a new one for each read: a quarter more throughput, and
 * reads larger than 64 KiB. The bytes are good only during the call.
 */
import { Buffer } from "node:buffer"
import net from "node:net"

const READ_BYTES = 256 * 1024
const readBuffer = Buffer.allocUnsafeSlow(READ_BYTES)

/** Takes bytes as they come. False: read no more until `socket.resume()`. */
export type Sink = (bytes: Buffer) => boolean

/** A socket and where its bytes go. The socket stays paused until a sink is set and `resume` is called. */
export interface Reader {
  readonly socket: net.Socket
  sink: Sink | null
}

const onread = (reader: { sink: Sink | null }): net.OnReadOpts => ({
  buffer: readBuffer,
  callback: (length) => reader.sink?.(readBuffer.subarray(0, length)) ?? false
})

/** Begins to connect; the socket is paused and half-open. */
export const connect = (host: string, port: number, family: 4 | 6): Reader => {
  const target: { sink: Sink | null } = { sink: null }
  const socket = net.connect({ host, port, family, noDelay: true, allowHalfOpen: true, onread: onread(target) })
  socket.pause()
  return bind(socket, target)
}

/** Not in the types: `handle`, and `pauseOnCreate`, which keeps a socket made from a handle from reading at once. */
type FromHandle = net.SocketConstructorOpts & {
  readonly handle: unknown
  readonly pauseOnCreate: boolean
  readonly onread: net.OnReadOpts
}
type WithHandle = { _handle: { readonly readStart?: unknown } | null }

/**
 * Gives an accepted, paused socket (`pauseOnConnect`, nothing read from it yet) a reader. Only the constructor takes `onread`,
 * so a new socket is built around the same handle; the old one stays behind, empty, for its server to count.
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

/** By the accepted socket, those that took over its handle. */
const holders = new WeakMap<net.Socket, net.Socket>()

/** The socket that holds the connection of an accepted one now. */
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
