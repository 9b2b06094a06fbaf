/**
 * The sockets that a node opens for port prediction. Each holds one port of the node's NAT open;
 * `PortGuess` says how many and when. The socket that receives the peer's probe is kept and carries
 * the path to that peer; all others are closed then.
 */
import { Either } from "effect"
import { randomBytes } from "node:crypto"
import type { RemoteInfo } from "node:dgram"
import type { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import * as Stun from "../../protocol/nat/Stun.ts"
import { SOCKETS } from "../../protocol/path/PortGuess.ts"
import * as Descriptors from "../../services/host/Descriptors.ts"
import * as LimitsMet from "../../services/telemetry/Limits.ts"
import type { FurtherSocket, PacketRouter } from "../plane/PacketRouter.ts"
import * as UdpPort from "./UdpPort.ts"

/** Largest first byte of a STUN message (RFC 9443). */
const LAST_STUN_BYTE = 3
const ANY_HOST = "0.0.0.0"

/** Options of {@link GuessSockets}. */
export interface Options {
  readonly router: PacketRouter
  /** Segment size in bytes, as for the usual sockets. */
  readonly segment: number
  /**
   * Called when a STUN server has answered a socket, with the mapped address. `local` is the
   * socket's local port.
   */
  readonly onSampled: (session: string, local: number, mapped: SocketAddr) => void
  /** Called when `count` sockets could not be opened, with the system's error code. */
  readonly onRefused: (session: string, count: number, code: string) => void
  readonly open?: (options: UdpPort.Options) => Promise<UdpPort.UdpPort>
  /** Returns how many more descriptors this process may use for such sockets. */
  readonly room?: () => number
}

interface Held {
  readonly udp: UdpPort.UdpPort
  /** Transaction id of its STUN request. `null` if it has sent none, or the answer has come. */
  txId: string | null
  /** Whether it has sent its probe. */
  opened: boolean
}

interface Attempt {
  readonly session: string
  readonly sockets: Set<Held>
  /** Sockets that were opened or are being opened. */
  count: number
  /**
   * The socket that was kept, and the peer's address that it is for. `null` if there is none yet.
   */
  won: { readonly held: Held; readonly address: string; readonly port: number } | null
  /** Whether the attempt is over: no more sockets are opened. */
  over: boolean
}

/**
 * The sockets for port prediction of a node, by session. A session has at most one attempt at a
 * time.
 */
export class GuessSockets {
  readonly #options: Options
  readonly #attempts = new Map<string, Attempt>()

  constructor(options: Options) {
    this.#options = options
  }

  /** Sockets that are open now, in all sessions. */
  get count(): number {
    let count = 0
    for (const { sockets } of this.#attempts.values()) count += sockets.size
    return count
  }

  /**
   * Starts an attempt: opens `count` sockets and asks `server` for the mapped address of each. With
   * `null`, no server is asked. All sockets of an earlier attempt of the session are closed.
   */
  async sample(session: string, count: number, server: SocketAddr | null): Promise<void> {
    this.forget(session)
    const attempt: Attempt = { session, sockets: new Set(), count: 0, won: null, over: false }
    this.#attempts.set(session, attempt)
    // The requests leave one after another, because the order of the ports matters to their reader.
    for (const held of await this.#openMany(attempt, count)) {
      if (server === null || held.udp.closed) continue
      const txId = randomBytes(Stun.TX_ID_BYTES)
      held.txId = Stun.toHex(txId)
      const bytes = Stun.encodeRequest({ txId })
      held.udp.send(bytes, 0, bytes.length, server.port, server.host)
    }
  }

  /** Sends `frame` to the peer from `count` more sockets. */
  async openTo(session: string, to: SocketAddr, count: number, frame: Uint8Array): Promise<void> {
    const attempt = this.#attempts.get(session)
    if (attempt === undefined || attempt.over) return
    const ready = [...attempt.sockets].filter(({ opened }) => !opened).slice(0, count)
    for (const held of ready) held.opened = true
    const fresh = await this.#openMany(attempt, count - ready.length)
    for (const held of [...ready, ...fresh]) {
      held.opened = true
      held.udp.send(frame, 0, frame.length, to.port, to.host)
    }
  }

  /** Closes all sockets of the session's attempt except the one that was kept. */
  close(session: string): void {
    const attempt = this.#attempts.get(session)
    if (attempt === undefined) return
    attempt.over = true
    for (const held of attempt.sockets) if (held !== attempt.won?.held) this.#closeOne(attempt, held)
    if (attempt.won === null) this.#attempts.delete(session)
  }

  /**
   * Closes all sockets of the session, including the one that was kept. Call it when the session
   * ends.
   */
  forget(session: string): void {
    const attempt = this.#attempts.get(session)
    if (attempt === undefined) return
    attempt.over = true
    if (attempt.won !== null) this.#options.router.forgetFurther(attempt.won.address, attempt.won.port)
    for (const held of attempt.sockets) this.#closeOne(attempt, held)
    this.#attempts.delete(session)
  }

  /** Ends all attempts under way. Call it when no path prober directs them any more. */
  closeAll(): void {
    for (const session of this.#attempts.keys()) this.close(session)
  }

  /** Closes all sockets. Call it when this host's address has changed or the node stops. */
  forgetAll(): void {
    for (const session of this.#attempts.keys()) this.forget(session)
  }

  #closeOne(attempt: Attempt, held: Held): void {
    attempt.sockets.delete(held)
    held.udp.close()
  }

  async #openMany(attempt: Attempt, wanted: number): Promise<ReadonlyArray<Held>> {
    const room = (this.#options.room ?? Descriptors.room)()
    const allowed = Math.max(0, Math.min(wanted, SOCKETS - attempt.count))
    const count = Math.min(allowed, room)
    if (count < allowed) {
      LimitsMet.met("descriptors")
      this.#options.onRefused(attempt.session, allowed - count, "EMFILE")
    }
    attempt.count += count
    const results = await Promise.all(Array.from({ length: count }, () => this.#openOne(attempt)))
    const refused = results.filter((result) => typeof result === "string")
    if (refused[0] !== undefined) this.#options.onRefused(attempt.session, refused.length, refused[0])
    return results.filter((result) => typeof result === "object" && result !== null)
  }

  /**
   * Opens one socket. Returns the system's error code if it is refused, and `null` if the attempt
   * has ended meanwhile.
   */
  async #openOne(attempt: Attempt): Promise<Held | string | null> {
    const socket: { held: Held | null } = { held: null }
    const onMessage = (bytes: Buffer, from: RemoteInfo) => {
      if (socket.held !== null) this.#onMessage(attempt, socket.held, bytes, from)
    }
    try {
      const udp = await (this.#options.open ?? UdpPort.open)({
        host: ANY_HOST,
        port: 0,
        family: 4,
        segment: this.#options.segment,
        onMessage,
        onError: () => socket.held !== null && this.#onFailed(attempt, socket.held)
      })
      const held: Held = { udp, txId: null, opened: false }
      if (attempt.over) {
        udp.close()
        return null
      }
      socket.held = held
      attempt.sockets.add(held)
      return held
    } catch (cause) {
      if (cause instanceof UdpPort.UdpOpenError) return cause.code
      throw cause
    }
  }

  #onMessage(attempt: Attempt, held: Held, bytes: Buffer, from: RemoteInfo): void {
    if (bytes.length > 0 && bytes[0]! <= LAST_STUN_BYTE) return this.#onStun(attempt, held, bytes)
    const by: FurtherSocket = {
      port: held.udp,
      onProved: (address, port) => {
        attempt.won ??= { held, address, port }
        this.close(attempt.session)
      }
    }
    this.#options.router.onFurther(bytes, from, by)
  }

  #onStun(attempt: Attempt, held: Held, bytes: Buffer): void {
    const decoded = Stun.decode(bytes)
    if (Either.isLeft(decoded) || decoded.right._tag !== "Success") return
    if (held.txId === null || Stun.toHex(decoded.right.txId) !== held.txId) return
    held.txId = null
    this.#options.onSampled(attempt.session, held.udp.address().port, decoded.right.mapped)
  }

  #onFailed(attempt: Attempt, held: Held): void {
    if (attempt.won?.held === held) this.forget(attempt.session)
    else this.#closeOne(attempt, held)
  }
}
