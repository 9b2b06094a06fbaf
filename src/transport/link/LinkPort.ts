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
import * as IpBlock from "../../protocol/IpBlock.ts"
import * as IpBytes from "../../protocol/IpBytes.ts"
import * as ProxyHeader from "../../protocol/ProxyHeader.ts"
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
  /**
   * Since the start: reset by rate, reset since there was no place or no descriptor, answered 503, cut at the deadline, without the
   * PROXY header that was due.
   */
  readonly refused: { rate: number; sockets: number; full: number; late: number; header: number }
}

/** A link of which nobody knows yet who is on the other end. */
export interface Stranger {
  readonly link: CarrierLink
  readonly path: string
  /** Whether a reverse proxy ended the TLS that the client saw. */
  readonly isProxied: boolean
  /** The deadline is lifted, the place among the strangers is free again. */
  readonly welcome: () => void
}

/** Who may stand in front of the port. From every other address bytes are TLS, and nothing that they say of others is believed. */
export interface Fronts {
  /** Balancers whose every connection begins with a PROXY header. */
  readonly proxyProtocol: ReadonlyArray<string>
  /** Reverse proxies that end TLS: they speak plain HTTP here, or TLS again, and name the client in X-Forwarded-For. */
  readonly reverseProxies: ReadonlyArray<string>
}

export interface Options {
  readonly fronts?: Fronts | undefined
  /** Called once, at the first connection that a front may have sent which is not as `fronts` says. */
  readonly onOddHeader?: ((message: string) => void) | undefined
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
const NOT_TLS: Readonly<Record<string, string>> = {
  ERR_SSL_WRONG_VERSION_NUMBER:
    "sent something that is not TLS; if it is a balancer that speaks the PROXY protocol, list it in proxyProtocol",
  ERR_SSL_HTTP_REQUEST: "sent plain HTTP; if it is a reverse proxy that ends TLS, list it in behindProxy"
}
/** First byte of a TLS record with a ClientHello (RFC 8446, section 5.1); no HTTP request begins with it. */
const TLS_HANDSHAKE = 0x16
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
  /** Where the client is, for logs: what a listed front says, or else the socket's peer. */
  remote: string
  /** The address in `remote`, by which a client's connections are counted. */
  host: string
  /** Comes from a listed reverse proxy. */
  readonly isProxied: boolean
  /** A page is on its way, and has its longer deadline. */
  isSlow: boolean
  deadline: NodeJS.Timeout | undefined
  /** Of a stranger, `linked` once its only link was asked for. */
  state: "stranger" | "linked" | "welcome"
}

const keyOf = (socket: { readonly remoteAddress?: string | undefined; readonly remotePort?: number | undefined }) =>
  `${socket.remoteAddress}|${socket.remotePort}`

export class LinkPort {
  readonly stats: Stats = { connections: 0, links: 0, refused: { rate: 0, sockets: 0, full: 0, late: 0, header: 0 } }
  private readonly options: Options
  /** Accepts. What follows is handed to `tlsServer`, or to `http1` if a reverse proxy speaks plain HTTP. */
  private readonly front: Server
  private readonly tlsServer: tls.Server
  private readonly proxyProtocol: ReadonlyArray<IpBlock.IpBlock>
  private readonly reverseProxies: ReadonlyArray<IpBlock.IpBlock>
  private hasToldHeader = false
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
      handshakeTimeout: 2 * options.limits.handshakeMs // our own deadline comes first, and counts whom it cuts
    })
    this.front = createServer({ noDelay: true }, (socket) => this.onTcp(socket))
    const blocks = (list: ReadonlyArray<string> = []) => list.map(IpBlock.parse).filter((block) => block !== null)
    this.proxyProtocol = blocks(options.fronts?.proxyProtocol)
    this.reverseProxies = blocks(options.fronts?.reverseProxies)
    this.tlsServer.on("secureConnection", (socket) => this.onTls(socket))
    this.tlsServer.on("tlsClientError", (error, socket) => {
      this.onNoTls(socket, (error as NodeJS.ErrnoException).code)
      socket.destroy()
    })
    this.gate = createServer((socket) => this.onGateway(socket))
  }

  /** Rejects with the system's error when the port can't be had. */
  async listen(): Promise<number> {
    this.acceptWebTransport = await WebTransportCarrier.makeAcceptor(
      secureContext(this.options.tls),
      this.options.paths
    )
    await listening(this.front, { port: this.options.port, host: this.options.host, backlog: 511 })
    const { gate } = this.options
    if (gate !== undefined) {
      rmSync(gate, { force: true }) // of a process that died
      await listening(this.gate, { path: gate })
      chmodSync(gate, 0o600)
    }
    return (this.front.address() as AddressInfo).port
  }

  /** New connections get it; those that there are keep the old one. */
  updateTls(next: Leaf): void {
    this.tlsServer.setSecureContext(secureContext(next)) // whole, since what is left out falls back to the defaults
    this.current = next.sha256
  }

  /** No new connections, no new links on those that there are. Links are the caller's to close. */
  stopAccepting(): void {
    this.stopping = true
    if (this.front.listening) this.front.close()
    if (this.gate.listening) this.gate.close()
    for (const connection of this.connections.values()) if (connection.state === "stranger") connection.socket.destroy()
  }

  destroy(): void {
    this.stopAccepting()
    for (const connection of this.connections.values()) connection.socket.destroy()
  }

  private onTcp(socket: Socket): void {
    const { limits } = this.options
    const host = (socket.remoteAddress ?? "").replace(/^::ffff:/, "")
    socket.on("error", () => {})
    const hasHeader = IpBlock.anyHolds(this.proxyProtocol, host)
    const isProxied = IpBlock.anyHolds(this.reverseProxies, host)
    // Before TLS: a handshake would cost more than the attack. What a front passes on is counted for its client, below.
    if (!hasHeader && !isProxied && !this.takes(host)) return void socket.destroy()
    if (this.connections.size - this.stats.links >= 2 * limits.strangers) {
      this.stats.refused.sockets++
      LimitsMet.met("links")
      return void socket.destroy()
    }
    if (!(this.options.hasRoom ?? Descriptors.hasRoom)()) {
      LimitsMet.met("descriptors")
      if (!this.cutOldestStranger()) {
        this.stats.refused.sockets++
        return void socket.destroy()
      }
    }
    const connection = this.track(keyOf(socket), socket, isProxied)
    if (hasHeader) this.readHeader(connection)
    else if (isProxied) this.sniff(connection)
    else this.tlsServer.emit("connection", socket)
  }

  /** Whether the client's prefix has not come too often. */
  private takes(host: string): boolean {
    const length = IpBytes.parse(host, this.ip)
    if (length !== 0 && this.buckets.take(this.ip, length, 1, performance.now())) return true
    this.stats.refused.rate++
    return false
  }

  /** Calls `onBytes` with all that has come, each time there is more, until it answers with how many bytes to take away. */
  private peek({ socket }: Connection, onBytes: (bytes: Buffer) => number | null): void {
    let held: Buffer = Buffer.alloc(0)
    const onReadable = () => {
      const more = socket.read() as Buffer | null
      if (more === null) return
      held = held.length === 0 ? more : Buffer.concat([held, more])
      const taken = onBytes(held)
      if (taken === null) return
      socket.off("readable", onReadable)
      if (taken < held.length) socket.unshift(held.subarray(taken))
      held = Buffer.alloc(0)
    }
    socket.on("readable", onReadable)
  }

  private readHeader(connection: Connection): void {
    const { isProxied, socket } = connection
    this.peek(connection, (bytes) => {
      const step = ProxyHeader.read(bytes)
      if (step._tag === "More") return null
      if (step._tag === "Bad") {
        this.stats.refused.header++
        this.tellHeader(
          `${socket.remoteAddress} is listed in proxyProtocol, and ${step.problem}; switch it on there, or take the address out`
        )
        socket.destroy()
        return bytes.length
      }
      if (step.source !== null) {
        connection.host = step.source.host
        connection.remote = `${step.source.host}:${step.source.port}`
      }
      if (!isProxied && !this.takes(connection.host)) {
        socket.destroy()
        return bytes.length
      }
      // Not before the rest is back in the socket.
      queueMicrotask(() => isProxied ? this.sniff(connection) : this.tlsServer.emit("connection", socket))
      return step.length
    })
  }

  /** A reverse proxy speaks plain HTTP, or TLS again. */
  private sniff(connection: Connection): void {
    const { socket } = connection
    this.peek(connection, (bytes) => {
      const next = bytes[0] === TLS_HANDSHAKE ? this.tlsServer : this.http1
      queueMicrotask(() => next.emit("connection", socket))
      return 0
    })
  }

  /** `code` is OpenSSL's word for bytes that are no TLS: those of a PROXY header, or of a request in plain HTTP. */
  private onNoTls(socket: tls.TLSSocket, code: string | undefined): void {
    const key = NOT_TLS[code ?? ""]
    const host = (socket.remoteAddress ?? "").replace(/^::ffff:/, "")
    if (key === undefined || IpBlock.anyHolds(this.proxyProtocol, host)) return
    this.tellHeader(`${host} ${key}`)
  }

  /** Once: others may cause it as often as they like. */
  private tellHeader(message: string): void {
    if (this.hasToldHeader) return
    this.hasToldHeader = true
    this.options.onOddHeader?.(message)
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
    this.gated.set(socket, this.track(`gateway|${this.gateways++}`, socket, false))
    this.http1.emit("connection", socket)
  }

  private track(key: string, socket: Socket, isProxied: boolean): Connection {
    const deadline = setTimeout(() => {
      this.stats.refused.late++
      socket.destroy()
    }, this.options.limits.handshakeMs)
    const remote = keyOf(socket).replace("|", ":")
    const host = (socket.remoteAddress ?? "").replace(/^::ffff:/, "")
    const connection: Connection = {
      socket,
      remote,
      host,
      isProxied,
      since: performance.now(),
      isSlow: false,
      deadline,
      state: "stranger"
    }
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
      const connection = this.connections.get(keyOf(request.socket))
      if (connection !== undefined && !this.isWelcome(connection, request)) return void response.destroy()
      const [status, page] = this.pageFor(request.method, request.url)
      this.allowSlow(connection)
      response.writeHead(status, { ...headersOf(page), connection: "close" })
      response.end(request.method === "HEAD" ? undefined : page.body)
    })
    server.on("upgrade", (request, socket, head) => {
      const gated = this.gated.get(request.socket)
      const connection = gated ?? this.connections.get(keyOf(request.socket))
      const path = request.url ?? ""
      if (connection !== undefined && !this.isWelcome(connection, request)) return void socket.destroy()
      const status = this.admit(connection, path)
      if (connection === undefined || status !== 200) return void socket.end(shortAnswer(status))
      const [remote, cert, carrier] = gated === undefined
        ? [connection.remote, this.current, "websocket"] as const
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

  /** What a reverse proxy passes on is counted for the client that it names last: the others are the client's own words. */
  private isWelcome(connection: Connection, request: http.IncomingMessage): boolean {
    if (!connection.isProxied) return true
    const named = [request.headers["x-forwarded-for"] ?? []].flat().join(",").split(",").at(-1)?.trim() ?? ""
    const host = named.replace(/^\[(.*)\](:\d+)?$/, "$1").replace(/^(\d+\.\d+\.\d+\.\d+):\d+$/, "$1")
    if (IpBlock.bytesOf(host) !== null) {
      connection.host = host
      connection.remote = host
    }
    return this.takes(connection.host)
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
    this.acceptWebTransport?.(stream, headers, connection.remote, this.current, onLink)
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
    this.options.onLink({ link, path, isProxied: connection.isProxied, welcome })
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
