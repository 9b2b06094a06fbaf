/** A local TCP door to one fixed target. What the connector rejects is reset: an application never sees a clean end instead. */
import type net from "node:net"
import { type Verdict } from "../../protocol/FlowWire.ts"
import { resetSocket } from "./FlowPump.ts"
import { listen, type ListenAt, type Listener } from "./Listener.ts"
import type { Places } from "./Places.ts"
import { adopt, type Reader } from "./TcpReader.ts"

export interface Forwarded {
  /** Paused; nothing was read from it, so early bytes are still in it. Belongs to the callee after `accepted`. */
  readonly reader: Reader
  /** Aborted when the application resets before the answer. */
  readonly gone: AbortSignal
  /** To be called once. False: not accepted (the socket is reset), or the application has gone. */
  readonly answer: (verdict: Verdict) => boolean
}

export interface ForwardOptions {
  readonly listen: ListenAt
  readonly connect: (request: Forwarded) => void
  readonly places?: Places
}

export class ForwardServer {
  readonly #options: ForwardOptions
  #listener: Listener | null = null

  constructor(options: ForwardOptions) {
    this.#options = options
  }

  /** Resolves with the address, whose port is the real one. Rejects with the system's error. */
  async start(): Promise<ListenAt> {
    const { connect, listen: at, places } = this.#options
    const onSocket = (socket: net.Socket) => {
      const reader = adopt(socket)
      const gone = new AbortController()
      const onClose = () => gone.abort()
      reader.socket.on("error", () => {}) // 'close' follows
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
