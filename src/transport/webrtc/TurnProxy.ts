/**
 * Stands between the ICE agents of this process and a relay's TURN server. The agents use a port of
 * this host's loopback address as their server, over UDP, which is all that they speak. The server
 * is reached over UDP or TCP. Each of the agents' sockets gets a socket of its own to the server,
 * because the server tells clients apart by their 5-tuple. The messages are the same over both
 * transports, except for padding (RFC 8656, section 12.5).
 *
 * Checks of a browser that come by TURN are mended on the way (`ZeroTiebreaker`).
 */
import { Buffer } from "node:buffer"
import { createSocket, type Socket } from "node:dgram"
import { once } from "node:events"
import { connect, isIPv6 } from "node:net"
import type { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import * as ZeroTiebreaker from "../../protocol/nat/ZeroTiebreaker.ts"
import * as Turn from "../../protocol/relay/Turn.ts"
import * as Crypto from "../../services/host/Crypto.ts"

const LOOPBACK = "127.0.0.1"
/** Most sockets to the server. Datagrams from further sockets of the agents are dropped. */
const MAX_SOCKETS = 1024
/**
 * How long a socket to a server over UDP may go unused. An agent refreshes its allocation more
 * often.
 */
const IDLE_MS = 600_000
/**
 * Most unsent bytes of one TCP connection. Further messages are dropped, as a full link drops
 * packets.
 */
const QUEUE_BYTES = 256 * 1024

/** A TURN server, by name or address. */
export interface Server extends SocketAddr {
  readonly transport: "udp" | "tcp"
}

/** One socket to the server. */
interface Upstream {
  readonly send: (message: Uint8Array) => void
  readonly close: () => void
  usedAt: number
}

/** Passwords of the ICE agents of this process, by their user fragments. */
export class AgentPasswords {
  readonly #byUfrag = new Map<string, string>()

  /** Stores the password in an agent's own description. Returns a function that removes it. */
  learn(sdp: string): () => void {
    const ufrag = /^a=ice-ufrag:(\S+)/m.exec(sdp)?.[1]
    const password = /^a=ice-pwd:(\S+)/m.exec(sdp)?.[1]
    if (ufrag === undefined || password === undefined) return () => undefined
    this.#byUfrag.set(ufrag, password)
    return () => void this.#byUfrag.delete(ufrag)
  }

  readonly of = (ufrag: string): string | undefined => this.#byUfrag.get(ufrag)
}

/** The loopback socket for one TURN server. */
export class TurnProxy {
  readonly #server: Server
  readonly #socket: Socket
  readonly #keys: ZeroTiebreaker.Keys
  readonly #upstreams = new Map<number, Upstream>()
  readonly #timer: NodeJS.Timeout

  private constructor(server: Server, socket: Socket, passwords: AgentPasswords) {
    this.#server = server
    this.#socket = socket
    this.#keys = { passwordOf: passwords.of, hmacSha1: Crypto.hmacSha1 }
    this.#timer = setInterval(() => this.#closeIdle(), IDLE_MS / 10)
    socket.on("message", (bytes, { port }) => this.#onDatagram(bytes, port))
    socket.on("error", () => undefined) // a send failed; the agent notices the loss
  }

  static async open(server: Server, passwords: AgentPasswords): Promise<TurnProxy> {
    const socket = createSocket("udp4")
    socket.bind(0, LOOPBACK)
    await once(socket, "listening")
    return new TurnProxy(server, socket, passwords)
  }

  /** Address that ICE agents use as their TURN server. */
  get at(): SocketAddr {
    return { host: LOOPBACK, port: this.#socket.address().port }
  }

  /** Number of sockets to the server. */
  get sockets(): number {
    return this.#upstreams.size
  }

  close(): void {
    clearInterval(this.#timer)
    for (const upstream of this.#upstreams.values()) upstream.close()
    this.#socket.close()
  }

  #onDatagram(bytes: Buffer, port: number): void {
    const length = Turn.streamLength(bytes)
    // Over UDP, ChannelData may come without its padding.
    if (length <= 0 || length < bytes.length || length > bytes.length + 3) return
    const upstream = this.#upstreams.get(port) ?? this.#open(port)
    if (upstream === undefined) return
    upstream.usedAt = performance.now()
    upstream.send(length === bytes.length ? bytes : Buffer.concat([bytes], length))
  }

  #open(port: number): Upstream | undefined {
    if (this.#upstreams.size >= MAX_SOCKETS) return undefined
    const toAgent = (message: Buffer) => {
      mend(message, this.#keys)
      this.#socket.send(message, port, LOOPBACK)
    }
    const onClosed = () => void this.#upstreams.delete(port)
    const open = this.#server.transport === "tcp" ? overTcp : overUdp
    const upstream = { ...open(this.#server, toAgent, onClosed), usedAt: performance.now() }
    this.#upstreams.set(port, upstream)
    return upstream
  }

  #closeIdle(): void {
    for (const { close, usedAt } of this.#upstreams.values()) if (performance.now() - usedAt >= IDLE_MS) close()
  }
}

type Open = (
  server: SocketAddr,
  onMessage: (message: Buffer) => void,
  onClosed: () => void
) => Pick<Upstream, "send" | "close">

const overUdp: Open = ({ host, port }, onMessage, onClosed) => {
  const socket = createSocket(isIPv6(host) ? "udp6" : "udp4")
  socket.on("message", onMessage)
  socket.on("error", () => undefined)
  socket.once("close", onClosed)
  return { send: (message) => socket.send(message, port, host), close: () => socket.close() }
}

/**
 * The server closes the connection when it has no allocation any more. The agent's next message
 * then opens another one.
 */
const overTcp: Open = (server, onMessage, onClosed) => {
  const socket = connect({ ...server, noDelay: true })
  let rest: Buffer = Buffer.alloc(0)
  socket.on("data", (chunk: Buffer) => {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    let at = 0
    while (at < bytes.length) {
      const length = Turn.streamLength(bytes.subarray(at, at + Turn.CHANNEL_HEAD_BYTES))
      if (length < 0) return void socket.destroy()
      if (length === 0 || at + length > bytes.length) break
      onMessage(bytes.subarray(at, at + length))
      at += length
    }
    rest = Buffer.from(bytes.subarray(at))
  })
  socket.on("error", () => socket.destroy())
  socket.once("close", onClosed)
  return {
    send: (message) => {
      if (!socket.destroyed && socket.writableLength <= QUEUE_BYTES) socket.write(message)
    },
    close: () => socket.destroy()
  }
}

const DATA_INDICATION = 0x0017
const DATA = 0x0013

/** Mends a check inside a message of the server, in place. */
const mend = (message: Buffer, keys: ZeroTiebreaker.Keys): void => {
  if (message.length < Turn.CHANNEL_HEAD_BYTES) return
  const first = message.readUInt16BE(0)
  if (first >= Turn.FIRST_CHANNEL) {
    return void ZeroTiebreaker.replace(message.subarray(4, 4 + message.readUInt16BE(2)), keys)
  }
  if (first !== DATA_INDICATION) return
  for (let at = 20; at + 4 <= message.length;) {
    const length = message.readUInt16BE(at + 2)
    if (message.readUInt16BE(at) === DATA) {
      return void ZeroTiebreaker.replace(message.subarray(at + 4, at + 4 + length), keys)
    }
    at += 4 + ((length + 3) & ~3)
  }
}
