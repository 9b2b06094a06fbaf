/**
 * The client's SOCKS listener: SOCKS5, 4 and 4a, CONNECT only. It reports success to the
 * application only after the resource has accepted.
 */
import { Buffer } from "node:buffer"
import type net from "node:net"
import { type Verdict } from "../../protocol/flow/FlowWire.ts"
import type { ListenAt } from "../../protocol/flow/LocalListener.ts"
import { type FailReason, Handshake, type Step, type Target } from "../../protocol/flow/Socks5.ts"
import * as Limits from "../../services/telemetry/Limits.ts"
import { resetSocket } from "./FlowPump.ts"
import { listen, type Listener } from "./Listener.ts"
import type { Place, Places } from "./Places.ts"

/** Longest time from accept to a complete CONNECT, in milliseconds. */
export const HANDSHAKE_TIMEOUT_MS = 10_000
/**
 * Most connections that have not named their target yet. For one more, the oldest of them is cut,
 * so that silent connections do not lock others out.
 */
export const MAX_HANDSHAKES = 512
/**
 * Bytes that are kept while the application waits for the answer. At this size the socket is
 * paused; more bytes wait in it.
 */
const MAX_EARLY_BYTES = 64 * 1024

/** A CONNECT request that waits for its answer. */
export interface Connect {
  readonly target: Target
  /** The accepted socket, paused. The callee owns it after answering `accepted`. */
  readonly socket: net.Socket
  /** Aborted if the application closes the connection before the answer. */
  readonly gone: AbortSignal
  /**
   * Answers the application; call it once. `accepted` writes the success reply and returns the
   * early bytes, for the pump's `fromSocket`, or `null` if the application has gone. Any other
   * verdict writes its reply, closes the socket and returns `null`.
   */
  readonly answer: (verdict: Verdict) => Uint8Array | null
}

/** Options of {@link Socks5Server}. */
export interface Socks5Options {
  readonly listen: ListenAt
  readonly connect: (request: Connect) => void
  readonly places?: Places
  /** Called when a program spoke a protocol that the listener does not know. */
  readonly onRefused?: (reason: FailReason) => void
  readonly handshakeTimeoutMs?: number
}

/** A local SOCKS listener, which asks `connect` for a flow for each CONNECT request. */
export class Socks5Server {
  readonly #options: Socks5Options
  #listener: Listener | null = null
  /** Connections that have not named their target yet, oldest first. */
  readonly #pending = new Set<net.Socket>()

  constructor(options: Socks5Options) {
    this.#options = options
  }

  /**
   * Starts to listen. Resolves with the address, with its actual port. Rejects with the system's
   * error.
   */
  async start(): Promise<ListenAt> {
    const { listen: at, places } = this.#options
    const onSocket = (socket: net.Socket, place: Place) => this.#onSocket(socket, place)
    this.#listener = await listen({ at, isSettled: false, onSocket, ...(places && { places }) })
    return this.#listener.address
  }

  async stop(): Promise<void> {
    await this.#listener?.close()
  }

  get connections(): number {
    return this.#listener?.connections() ?? 0
  }

  #onSocket(socket: net.Socket, place: Place): void {
    if (this.#pending.size >= MAX_HANDSHAKES) {
      Limits.met("handshakes")
      const [oldest] = this.#pending
      if (oldest !== undefined) resetSocket(oldest)
      this.#pending.delete(oldest ?? socket)
    }
    this.#pending.add(socket)
    const handshake = new Handshake()
    const timer = setTimeout(() => resetSocket(socket), this.#options.handshakeTimeoutMs ?? HANDSHAKE_TIMEOUT_MS)
    const leave = () => {
      clearTimeout(timer)
      socket.off("data", onData)
      socket.off("end", onEnd)
      socket.off("close", leave)
      this.#pending.delete(socket)
    }
    const onEnd = () => socket.end()
    const onData = (bytes: Buffer) => {
      const step = handshake.push(bytes)
      if (step.write.length > 0) socket.write(step.write)
      if (step._tag === "More") return
      leave()
      place.settle()
      socket.pause()
      if (step._tag === "Connect") return this.#onConnect(socket, step)
      this.#options.onRefused?.(step.reason)
      socket.destroySoon()
    }
    socket.on("data", onData)
    socket.once("end", onEnd)
    socket.once("close", leave)
    socket.resume()
  }

  /**
   * Asks for a flow and keeps reading meanwhile: early bytes are kept, and it is noticed when the
   * application closes the connection.
   */
  #onConnect(socket: net.Socket, { answer: encode, early, target }: Step & { readonly _tag: "Connect" }): void {
    const gone = new AbortController()
    let kept: Buffer = Buffer.from(early)
    let answered = false
    const onData = (bytes: Buffer) => {
      kept = Buffer.concat([kept, bytes])
      if (kept.length >= MAX_EARLY_BYTES) socket.pause()
    }
    const onClose = () => gone.abort()
    const answer = (verdict: Verdict): Uint8Array | null => {
      if (answered) return null
      answered = true
      socket.off("data", onData)
      socket.off("close", onClose)
      socket.pause()
      if (socket.destroyed) return null
      socket.write(encode(verdict.code))
      if (verdict.code === "accepted") return kept
      socket.destroySoon()
      return null
    }
    socket.on("data", onData)
    socket.once("close", onClose)
    this.#options.connect({ target, socket, gone: gone.signal, answer })
    if (!answered && kept.length < MAX_EARLY_BYTES) socket.resume()
  }
}
