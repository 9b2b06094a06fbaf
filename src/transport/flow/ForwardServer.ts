/**
 * Local TCP listener that leads to one fixed target. A connection that the connector rejects is
 * reset, so that the application does not mistake it for an orderly end.
 */
import type net from "node:net"
import { type Verdict } from "../../protocol/flow/FlowWire.ts"
import type { ListenAt } from "../../protocol/flow/LocalListener.ts"
import { resetSocket } from "./FlowPump.ts"
import { listen, type Listener } from "./Listener.ts"
import type { Places } from "./Places.ts"
import { adopt, type Reader } from "./TcpReader.ts"

/** An accepted connection that waits for the answer to its flow. */
export interface Forwarded {
  /**
   * Reader of the accepted socket. It is paused, and early bytes are still in the socket. The
   * callee owns it after `accepted`.
   */
  readonly reader: Reader
  /** Aborted if the application closes the connection before the answer. */
  readonly gone: AbortSignal
  /**
   * Answers the application; call it once. Returns `false` if the verdict is not `accepted` (the
   * socket is then reset) or if the application has gone.
   */
  readonly answer: (verdict: Verdict) => boolean
}

/** Options of {@link ForwardServer}. */
export interface ForwardOptions {
  readonly listen: ListenAt
  readonly connect: (request: Forwarded) => void
  readonly places?: Places
}

/** One local listener that leads to one fixed target. */
export class ForwardServer {
  readonly #options: ForwardOptions
  #listener: Listener | null = null

  constructor(options: ForwardOptions) {
    this.#options = options
  }

  /**
   * Starts to listen. Resolves with the address, with its actual port. Rejects with the system's
   * error.
   */
  async start(): Promise<ListenAt> {
    const { connect, listen: at, places } = this.#options
    const onSocket = (socket: net.Socket) => {
      const reader = adopt(socket)
      const gone = new AbortController()
      const onClose = () => gone.abort()
      reader.socket.on("error", () => {}) // the `close` event follows
      reader.socket.once("close", onClose)
      let answered = false
      const answer = (verdict: Verdict): boolean => {
        if (answered) return false
        answered = true
        reader.socket.off("close", onClose)
        if (verdict.code !== "accepted") resetSocket(reader.socket)
        return !reader.socket.destroyed
      }
      connect({ reader, gone: gone.signal, answer })
    }
    this.#listener = await listen({ at, isSettled: true, onSocket, ...(places && { places }) })
    return this.#listener.address
  }

  async stop(): Promise<void> {
    await this.#listener?.close()
  }

  get connections(): number {
    return this.#listener?.connections() ?? 0
  }
}
