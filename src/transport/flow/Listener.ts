/** Local listener of a client, on TCP or a unix socket. */
import net from "node:net"
import type { ListenAt } from "../../protocol/flow/LocalListener.ts"
import { resetSocket } from "./FlowPump.ts"
import { type Place, Places } from "./Places.ts"
import { holderOf } from "./TcpReader.ts"

/** Connections that the kernel queues until they are accepted. */
const BACKLOG = 1024

/** An open listener. */
export interface Listener {
  /** Address that it listens at, with the actual port. */
  readonly address: ListenAt
  /** Stops listening; open connections stay. Resolves when no new connection can arrive. */
  readonly close: () => Promise<void>
  readonly connections: () => number
}

/** Options of {@link listen}. */
export interface Options {
  /** Address to listen at. */
  readonly at: ListenAt
  /** Limit of the flows of the node. All its listeners share it. */
  readonly places?: Places
  /** Whether a connection's target is known as soon as it is accepted. */
  readonly isSettled: boolean
  /**
   * Called with each accepted socket. The socket is paused and may be half-open, and nothing was
   * read from it. It counts as a flow (`place`) until it closes.
   */
  readonly onSocket: (socket: net.Socket, place: Place) => void
}

/**
 * Listens at `at`. If the node has no room for another flow, a new connection is reset at once.
 * Rejects with the system's error, such as EADDRINUSE.
 */
export const listen = ({ at, isSettled, onSocket, places = new Places() }: Options): Promise<Listener> =>
  new Promise((resolve, reject) => {
    const open = new Set<net.Socket>()
    const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) => {
      socket.on("error", () => {}) // the `close` event follows
      const place = places.take(occupantOf(socket), { isSettled, hasSocket: true })
      if (place === null) return resetSocket(socket)
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
      // Without a free descriptor the connection is lost and the listener stays.
      server.on("error", () => {})
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
