/** A TCP or unix-socket listener of a client. */
import net from "node:net"
import { resetSocket } from "./FlowPump.ts"
import { type Place, Places } from "./Places.ts"
import { holderOf } from "./TcpReader.ts"

/** `host` is a literal address; port 0 takes a free one. A path is a unix socket (or a named pipe). */
export type ListenAt = { readonly host: string; readonly port: number } | { readonly path: string }

const BACKLOG = 1024

export interface Listener {
  /** Where it listens: the port is the real one. */
  readonly address: ListenAt
  /** Stops listening; open connections stay. Resolves when no new connection can come. */
  readonly close: () => Promise<void>
  readonly connections: () => number
}

export interface Options {
  readonly at: ListenAt
  /** Shared by the listeners of a node. */
  readonly places?: Places
  /** Whether it is known at once where a connection leads. */
  readonly isSettled: boolean
  /** The socket is paused and half-open; nothing was read from it. It has its place until it closes. */
  readonly onSocket: (socket: net.Socket, place: Place) => void
}

/** Connections that find no place are reset at once. Rejects with the system's error (EADDRINUSE...). */
export const listen = ({ at, isSettled, onSocket, places = new Places() }: Options): Promise<Listener> =>
  new Promise((resolve, reject) => {
    const open = new Set<net.Socket>()
    const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) => {
      socket.on("error", () => {}) // 'close' follows
      const place = places.take(occupantOf(socket), { isSettled, hasSocket: true })
      if (place === null) return void socket.resetAndDestroy()
      open.add(socket)
      socket.once("close", () => {
        open.delete(socket)
        place.leave()
      })
      onSocket(socket, place)
    })
    server.once("error", reject)
    server.listen({ ...at, backlog: BACKLOG }, () => {
      server.off("error", reject)
      server.on("error", () => {}) // out of descriptors: the connection is lost, the listener stays
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

const occupantOf = (accepted: net.Socket) => ({
  moved: () => {
    const { bytesRead, bytesWritten } = holderOf(accepted)
    return bytesRead + bytesWritten
  },
  cut: () => resetSocket(holderOf(accepted))
})
