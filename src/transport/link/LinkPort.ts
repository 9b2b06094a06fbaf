/**
 * The one TLS port of a relay: links over both of its carriers, `/healthz`, pages, and bounds on what strangers may cost. HTTP/1.1 and
 * HTTP/2 are told apart by ALPN and served by listeners that never listen themselves. Every connection is cut at its deadline
 * unless it has become an authenticated link by then, whatever it did or did not send. Links over HTTP/3, which another process
 * takes, come by a socket of this machine (`http3/Gateway`).
 */
import { Redacted } from "effect"
import { randomInt } from "node:crypto"
import { chmodSync, rmSync } from "node:fs"
import * as http from "node:http"
import * as http2 from "node:http2"
import { type AddressInfo, createServer, type ListenOptions, type Server, type Socket } from "node:net"
import * as tls from "node:tls"
import * as IpBytes from "../../protocol/IpBytes.ts"
import { PrefixBuckets } from "../../protocol/TokenBucket.ts"
import * as Descriptors from "../../services/Descriptors.ts"
import type { Leaf } from "../../services/Pki.ts"
import * as LimitsMet from "../../services/telemetry/Limits.ts"
import type { CarrierLink } from "./Link.ts"
import * as WebSocketCarrier from "./WebSocketCarrier.ts"
import * as WebTransportCarrier from "./WebTransportCarrier.ts"

export interface Page {
  readonly contentType: string
  readonly body: string | Uint8Array
  /** Besides those that each page has. */
  readonly headers?: Readonly<Record<string, string>>
}

export interface Limits {
  /** Connections on which nobody has proved who they are: half-open links, and twice that in sockets. */
  readonly strangers: number
  readonly links: number
  /** ms from TCP accept to an authenticated link, or to the request for a page. */
  readonly handshakeMs: number
  /** New connections a second from one /24 or /56, and how many at once. Above it: reset before TLS. */
  readonly acceptsPerSecond: number
  readonly acceptBurst: number
}

export const DEFAULT_LIMITS: Limits = {
  strangers: 256,
  links: 10_000,
  handshakeMs: 5000,
  acceptsPerSecond: 20,
  acceptBurst: 200
}

/** What the admin API and the logs tell. */
export interface Stats {
  connections: number
  links: number
  /** Since the start: reset by rate, reset since there was no place or no descriptor, answered 503, cut at the deadline. */
  readonly refused: { rate: number; sockets: number; full: number; late: number }
}

/** A link of which nobody knows yet who is on the other end. */
export interface Stranger {
  readonly link: CarrierLink
  readonly path: string
  /** The deadline is lifted, the place among the strangers is free again. */
  readonly welcome: () => void
}

export interface Options {
  readonly host: string
  readonly port: number
  readonly tls: Leaf
  readonly paths: ReadonlyArray<string>
  /** Where the gateway for HTTP/3 connects: the path of a socket. In a folder of this process's own. */
  readonly gate?: string | undefined
  readonly pages?: ((path: string) => Page | undefined) | undefined
  readonly limits: Limits
  readonly onLink: (stranger: Stranger) => void
  /** Whether the process may take one more descriptor. */
  readonly hasRoom?: () => boolean
}

const HEALTHZ: Page = { contentType: "text/plain; charset=utf-8", body: "ok\n" }
const MAX_HEADER_BYTES = 8192
/** Pages on their way to slow readers, who get so much longer; those beyond have until the usual deadline. */
const MAX_SLOW_PAGES = 64
const PAGE_MS = 30_000
/** How long a stranger is left alone when descriptors are short: a handshake takes a few round trips. */
const STRANGER_MS = 1000
const RETRY_AFTER_SECONDS = "5"

interface Connection {
  readonly socket: Socket
  /** When it was accepted, ms, monotonic. */
  readonly since: number
  /** A page is on its way, and has its longer deadline. */
  isSlow: boolean
  deadline: NodeJS.Timeout | undefined
  /** Of a stranger, `linked` once its only link was asked for. */
  state: "stranger" | "linked" | "welcome"
}

const keyOf = (socket: { readonly remoteAddress?: string | undefined; readonly remotePort?: number | undefined }) =>
  `${socket.remoteAddress}|${socket.remotePort}`

export class LinkPort {
  readonly stats: Stats = { connections: 0, links: 0, refused: { rate: 0, sockets: 0, full: 0, late: 0 } }
  private readonly options: Options
  private readonly tlsServer: tls.Server
  private readonly http1: http.Server
  private readonly http2: http2.Http2Server
  private readonly gate: Server
  private readonly connections = new Map<string, Connection>()
  /** Of those, the gateway's; what it says of them is believed. */
  private readonly gated = new WeakMap<object, Connection>()
  private gateways = 0
  private readonly buckets: PrefixBuckets
  private readonly ip = new Uint8Array(16)
  private readonly acceptWebSocket = WebSocketCarrier.makeAcceptor()
  private acceptWebTransport: Awaited<ReturnType<typeof WebTransportCarrier.makeAcceptor>> | undefined
  private current: Uint8Array
  private halfOpen = 0 // connections in state "linked"
  private slowPages = 0
  private stopping = false

  constructor(options: Options) {
    this.options = options
    this.current = options.tls.sha256
    const { acceptBurst: burst, acceptsPerSecond: rate } = options.limits
    this.buckets = new PrefixBuckets({ rate, burst, seed: randomInt(2 ** 31), now: performance.now() })
    this.http1 = this.makeHttp1()
    this.http2 = this.makeHttp2()
    this.tlsServer = tls.createServer({
      ...secureContext(options.tls),
      // A browser offers both, and asks for its WebSocket on the connection that its page came by; here that is HTTP/1.1's.
      ALPNCallback: ({ protocols }) => ["http/1.1", "h2"].find((known) => protocols.includes(known)),
      handshakeTimeout: 2 * options.limits.handshakeMs, // our own deadline comes first, and counts whom it cuts
      noDelay: true
    })
    this.tlsServer.on("connection", (socket) => this.onTcp(socket))
    this.tlsServer.on("secureConnection", (socket) => this.onTls(socket))
    this.tlsServer.on("tlsClientError", (_, socket) => socket.destroy())
    this.gate = createServer((socket) => this.onGateway(socket))
  }

  /** Rejects with the system's error when the port can't be had. */
  async listen(): Promise<number> {
    this.acceptWebTransport = await WebTransportCarrier.makeAcceptor(
      secureContext(this.options.tls),
      this.options.paths
    )
    await listening(this.tlsServer, { port: this.options.port, host: this.options.host, backlog: 511 })
    const { gate } = this.options
    if (gate !== undefined) {
      rmSync(gate, { force: true }) // of a process that died
      await listening(this.gate, { path: gate })
      chmodSync(gate, 0o600)
    }
    return (this.tlsServer.address() as AddressInfo).port
  }

  /** New connections get it; those that there are keep the old one. */
  updateTls(next: Leaf): void {
    this.tlsServer.setSecureContext(secureContext(next)) // whole, since what is left out falls back to the defaults
    this.current = next.sha256
  }

  /** No new connections, no new links on those that there are. Links are the caller's to close. */
  stopAccepting(): void {
    this.stopping = true
    if (this.tlsServer.listening) this.tlsServer.close()
    if (this.gate.listening) this.gate.close()
    for (const connection of this.connections.values()) if (connection.state === "stranger") connection.socket.destroy()
  }

  destroy(): void {
    this.stopAccepting()
    for (const connection of this.connections.values()) connection.socket.destroy()
  }

  private onTcp(socket: Socket): void {
    const { limits } = this.options
    const refused = this.stats.refused
    const ip = (socket.remoteAddress ?? "").replace(/^::ffff:/, "")
    const length = IpBytes.parse(ip, this.ip)
    socket.on("error", () => {})
    if (length === 0 || !this.buckets.take(this.ip, length, 1, performance.now())) {
      refused.rate++
      return void socket.destroy() // before TLS: a handshake would cost more than the attack
    }
    if (this.connections.size - this.stats.links >= 2 * limits.strangers) {
      refused.sockets++
      LimitsMet.met("links")
      return void socket.destroy()
    }
    if (!(this.options.hasRoom ?? Descriptors.hasRoom)()) {
      LimitsMet.met("descriptors")
      if (!this.cutOldestStranger()) {
        refused.sockets++
        return void socket.destroy()
      }
    }
    this.track(keyOf(socket), socket)
  }

  /** Makes room for one connection. `false` if every stranger has only just come. Links of nodes are never cut. */
  private cutOldestStranger(): boolean {
    const now = performance.now()
    for (const connection of this.connections.values()) {
      if (connection.state === "welcome") continue
      if (now - connection.since < STRANGER_MS) return false
      connection.socket.destroy()
      return true
    }
    return false
  }

  private onGateway(socket: Socket): void {
    socket.on("error", () => {})
    this.gated.set(socket, this.track(`gateway|${this.gateways++}`, socket))
    this.http1.emit("connection", socket)
  }

  private track(key: string, socket: Socket): Connection {
    const deadline = setTimeout(() => {
      this.stats.refused.late++
      socket.destroy()
    }, this.options.limits.handshakeMs)
    const connection: Connection = { socket, since: performance.now(), isSlow: false, deadline, state: "stranger" }
    this.connections.set(key, connection)
    this.stats.connections = this.connections.size
    socket.once("close", () => {
      clearTimeout(connection.deadline)
      this.connections.delete(key)
      this.stats.connections = this.connections.size
      if (connection.state === "welcome") this.stats.links--
      if (connection.state === "linked") this.halfOpen--
    })
    return connection
  }

  private onTls(socket: tls.TLSSocket): void {
    socket.on("error", () => {})
    if (!this.connections.has(keyOf(socket))) return void socket.destroy()
    if (socket.alpnProtocol === "h2") this.http2.emit("connection", socket)
    else this.http1.emit("connection", socket)
  }

  private makeHttp1(): http.Server {
    const server = http.createServer({ maxHeaderSize: MAX_HEADER_BYTES, insecureHTTPParser: false })
    server.on("request", (request, response) => {
      const [status, page] = this.pageFor(request.method, request.url)
      this.allowSlow(this.connections.get(keyOf(request.socket)))
      response.writeHead(status, { ...headersOf(page), connection: "close" })
      response.end(request.method === "HEAD" ? undefined : page.body)
    })
    server.on("upgrade", (request, socket, head) => {
      const gated = this.gated.get(request.socket)
      const connection = gated ?? this.connections.get(keyOf(request.socket))
      const path = request.url ?? ""
      const status = this.admit(connection, path)
      if (connection === undefined || status !== 200) return void socket.end(shortAnswer(status))
      const [remote, cert, carrier] = gated === undefined
        ? [keyOf(request.socket).replace("|", ":"), this.current, "websocket"] as const
        : [
          textOf(request, WebSocketCarrier.REMOTE_HEADER),
          Buffer.from(textOf(request, WebSocketCarrier.CERT_HEADER), "hex"),
          "webtransport-h3"
        ] as const
      const onLink = (link: CarrierLink) => this.introduce(connection, link, path)
      this.acceptWebSocket(request, socket, head, remote, cert, carrier, onLink)
    })
    server.on("clientError", (_, socket) => socket.destroy())
    server.on("connect", (_, socket) => socket.destroy())
    server.on("checkContinue", (_, response) => response.writeHead(405, { connection: "close" }).end())
    return server
  }

  private makeHttp2(): http2.Http2Server {
    const server = http2.createServer(WebTransportCarrier.settings)
    server.on("session", (session) => {
      session.on("error", () => {})
      session.setLocalWindowSize(2 * WebTransportCarrier.WINDOW_BYTES)
    })
    server.on("sessionError", () => {})
    server.on("stream", (stream, headers) => {
      stream.on("error", () => {})
      const path = headers[":path"] ?? ""
      if (headers[":method"] === "CONNECT") return this.onConnectStream(stream, headers, path)
      const [status, page] = this.pageFor(headers[":method"], path)
      stream.respond({ ":status": status, ...headersOf(page) })
      stream.end(headers[":method"] === "HEAD" ? undefined : page.body)
    })
    return server
  }

  private allowSlow(connection: Connection | undefined): void {
    if (connection === undefined || connection.isSlow || this.slowPages >= MAX_SLOW_PAGES) return
    connection.isSlow = true
    this.slowPages++
    clearTimeout(connection.deadline)
    connection.deadline = setTimeout(() => {
      this.stats.refused.late++
      connection.socket.destroy()
    }, PAGE_MS)
    connection.socket.once("close", () => {
      this.slowPages--
    })
  }

  private onConnectStream(stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders, path: string): void {
    const key = keyOf(stream.session?.socket ?? { remotePort: 0 })
    const connection = this.connections.get(key)
    const status = headers[":protocol"] === "webtransport" ? this.admit(connection, path) : 501
    if (connection === undefined || status !== 200) {
      stream.respond({ ":status": status, ...(status === 503 && { "retry-after": RETRY_AFTER_SECONDS }) }, {
        endStream: true
      })
      return
    }
    const onLink = (link: CarrierLink) => this.introduce(connection, link, path)
    this.acceptWebTransport?.(stream, headers, key.replace("|", ":"), this.current, onLink)
  }

  /** The HTTP status for somebody who wants a link; 200 takes the connection's one place. */
  private admit(connection: Connection | undefined, path: string): number {
    if (!this.options.paths.includes(path)) return 404
    if (connection === undefined || connection.state !== "stranger") return 409
    const { links, strangers } = this.options.limits
    if (this.stopping || this.stats.links >= links || this.halfOpen >= strangers) {
      this.stats.refused.full++
      if (!this.stopping) LimitsMet.met("links")
      return 503
    }
    connection.state = "linked"
    this.halfOpen++
    return 200
  }

  private introduce(connection: Connection, link: CarrierLink, path: string): void {
    const welcome = () => {
      if (connection.state !== "linked" || connection.socket.destroyed) return
      connection.state = "welcome"
      this.halfOpen--
      this.stats.links++
      clearTimeout(connection.deadline)
    }
    // A peer that keeps its socket open after the link has ended has no more right to it.
    link.closed.then(() => setTimeout(() => connection.socket.destroy(), 1000).unref(), () => {})
    this.options.onLink({ link, path, welcome })
  }

  private pageFor(method: string | undefined, url: string | undefined): readonly [number, Page] {
    if (method !== "GET" && method !== "HEAD") return [405, { contentType: "text/plain", body: "only GET\n" }]
    const path = (url ?? "").split("?", 1)[0] ?? ""
    const page = path === "/healthz" && !this.stopping ? HEALTHZ : this.options.pages?.(path)
    return page === undefined ? [404, { contentType: "text/plain", body: "not found\n" }] : [200, page]
  }
}

const listening = (server: Server, where: ListenOptions): Promise<void> =>
  new Promise((resolve, reject) => {
    server.once("error", reject)
    server.listen(where, () => {
      server.off("error", reject)
      server.on("error", () => {}) // accept errors (EMFILE) pass by themselves
      resolve()
    })
  })

const textOf = (request: http.IncomingMessage, header: string): string => {
  const value = request.headers[header]
  return typeof value === "string" ? value : ""
}

const secureContext = ({ cert, key }: Leaf) => ({ cert, key: Redacted.value(key), minVersion: "TLSv1.3" as const })

const headersOf = (page: Page) => ({
  "content-type": page.contentType,
  "content-length": Buffer.byteLength(page.body),
  "x-content-type-options": "nosniff",
  ...page.headers
})

const shortAnswer = (status: number): string =>
  `HTTP/1.1 ${status} ${http.STATUS_CODES[status] ?? ""}\r\nContent-Length: 0\r\nConnection: close\r\n` +
  `${status === 503 ? `Retry-After: ${RETRY_AFTER_SECONDS}\r\n` : ""}\r\n`
