/**
 * Opens one flow through a node's own SOCKS5 listener (RFC 1928) and returns the connected socket.
 * A program in the same process reaches resources this way, and so does the demo. Only the bytes of
 * the handshake are read.
 */
import { connect, type Socket } from "node:net"

/**
 * Error when the listener refused the connection. `reply` is its reply code (RFC 1928, section 6).
 */
export class Socks5Refused extends Error {
  readonly reply: number
  constructor(reply: number) {
    super(`SOCKS5 reply ${reply}`)
    this.reply = reply
  }
}

/** The listener to use and the target to reach. */
export interface Through {
  /** The listener: the path of a unix socket, or a TCP address. */
  readonly listener: { readonly path: string } | { readonly host: string; readonly port: number }
  /** A resource's name or address, 1 to 255 bytes. */
  readonly host: string
  /** TCP port of the resource. */
  readonly port: number
  /** Longest time for the whole handshake, in milliseconds. */
  readonly deadlineMs: number
}

const GREETING = Buffer.from([5, 1, 0])

/**
 * Opens a flow. Resolves once the resource has accepted; nothing is read beyond the handshake.
 * Rejects with `Socks5Refused` (also after the deadline, as "host unreachable"), with the socket's
 * error, or if the listener breaks the protocol.
 */
export const open = ({ deadlineMs, host, listener, port }: Through): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const name = Buffer.from(host, "utf8")
    if (name.length === 0 || name.length > 255) {
      return reject(new RangeError(`a host has 1 to 255 bytes, not ${name.length}`))
    }
    const socket = connect({ ...listener, allowHalfOpen: true, noDelay: true })
    const steps = handshake(socket, name, port)
    const settle = () => {
      clearTimeout(deadline)
      socket.off("readable", onReadable)
      socket.off("error", fail)
      socket.off("close", onClose)
    }
    const fail = (cause: Error) => {
      settle()
      socket.on("error", () => undefined)
      socket.destroy()
      reject(cause)
    }
    const onClose = () => fail(new Error("the listener closed the connection during the handshake"))
    // Reading exact lengths by `readable` leaves the socket as it is after connecting: neither
    // paused nor flowing.
    let wanted = 0
    const onReadable = () => {
      try {
        for (;;) {
          const bytes = wanted === 0 ? Buffer.alloc(0) : socket.read(wanted) as Buffer | null
          if (bytes === null) return
          const step = steps.next(bytes)
          if (step.done === true) break
          wanted = step.value
        }
      } catch (cause) {
        return fail(cause as Error)
      }
      settle()
      resolve(socket)
    }
    const deadline = setTimeout(() => fail(new Socks5Refused(REPLY_UNREACHABLE)), deadlineMs)
    socket.on("readable", onReadable)
    socket.on("error", fail)
    socket.on("close", onClose)
    onReadable()
  })

/** Reply code "host unreachable" (RFC 1928, section 6). */
const REPLY_UNREACHABLE = 4
const IPV4 = 1
const IPV6 = 4

/**
 * Runs the handshake. Yields the number of bytes that it needs next. Throws if the answer is no.
 */
function* handshake(socket: Socket, name: Buffer, port: number): Generator<number, void, Buffer> {
  socket.write(GREETING)
  const method = yield 2
  if (method[0] !== 5 || method[1] !== 0) throw new Error("the listener does not speak SOCKS5 without authentication")
  socket.write(Buffer.concat([Buffer.from([5, 1, 0, 3, name.length]), name, Buffer.from([port >> 8, port & 255])]))
  const head = yield 4
  if (head[1] !== 0) throw new Socks5Refused(head[1]!)
  const address = head[3] === IPV4 ? 4 : head[3] === IPV6 ? 16 : (yield 1)[0]!
  yield address + 2
}
