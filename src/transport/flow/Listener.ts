/** A TCP or unix-socket listener for the client's local doors. */
import net from "node:net"

/** `host` is a literal address; port 0 takes a free one. A path is a unix socket (or a named pipe). */
export type ListenAt = { readonly host: string; readonly port: number } | { readonly path: string }

/** Connections at one door; more are reset at once. */
export const MAX_CONNECTIONS = 4096
const BACKLOG = 1024

export interface Listener {
  /** Where it listens: the port is the real one. */
  readonly address: ListenAt
  /** Stops listening; open connections stay. Resolves when the door is closed to new ones. */
  readonly close: () => Promise<void>
  readonly connections: () => number
}

/** Accepted sockets are paused and half-open; nothing was read from them. Rejects with the system's error (EADDRINUSE...). */
export const listen = (
  at: ListenAt,
  onSocket: (socket: net.Socket) => void,
  max = MAX_CONNECTIONS
): Promise<Listener> =>
  new Promise((resolve, reject) => {
    const open = new Set<net.Socket>()
    const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) => {
      if (open.size >= max) return void socket.resetAndDestroy()
      open.add(socket)
      socket.on("error", () => {}) // 'close' follows
      socket.once("close", () => open.delete(socket))
      onSocket(socket)
    })
    server.once("error", reject)
    server.listen({ ...at, backlog: BACKLOG }, () => {
      server.off("error", reject)
      server.on("error", () => {}) // out of descriptors: the connection is lost, the door stays open
      const bound = server.address()
      const address = bound === null || typeof bound === "string" ? at : { host: bound.address, port: bound.port }
      const close = () =>
        new Promise<void>((closed) => {
          server.close()
          setImmediate(closed) // `close` itself would wait for open connections
        })
      resolve({ address, close, connections: () => open.size })
    })
  })
