/**
 * The single TLS port of a relay. It serves links over both TCP carriers, `/healthz` and pages, and
 * bounds the cost of unauthenticated peers.
 *
 * ALPN selects HTTP/1.1 or HTTP/2; both are served by listeners that never listen themselves. Every
 * connection is cut at its deadline unless it has become an authenticated link by then, whatever it
 * has sent. Links over HTTP/3, which another process accepts, arrive through a Unix socket
 * (`http3/Gateway`).
 */
import { Redacted } from "effect"
import { randomInt } from "node:crypto"
import { chmodSync, rmSync } from "node:fs"
import * as http from "node:http"
import * as http2 from "node:http2"
import { type AddressInfo, createServer, type ListenOptions, type Server, type Socket } from "node:net"
import * as tls from "node:tls"
import * as IpBlock from "../../protocol/bytes/IpBlock.ts"
import * as IpBytes from "../../protocol/bytes/IpBytes.ts"
import { PrefixBuckets } from "../../protocol/bytes/TokenBucket.ts"
import * as ProxyHeader from "../../protocol/relay/ProxyHeader.ts"
import * as Descriptors from "../../services/host/Descriptors.ts"
import type { Leaf } from "../../services/identity/Pki.ts"
import * as LimitsMet from "../../services/telemetry/Limits.ts"
import type { CarrierLink } from "../../session/Link.ts"
import * as WebSocketCarrier from "../carrier/WebSocketCarrier.ts"
import * as WebTransportCarrier from "../carrier/WebTransportCarrier.ts"

/** A page that the port serves over HTTP. */
export interface Page {
  readonly contentType: string
  readonly body: string | Uint8Array
  /** Headers of this page, in addition to those that every page has. */
  readonly headers?: Readonly<Record<string, string>>
}

/** Limits of a relay's HTTPS port. */
export interface Limits {
  /** Most unauthenticated connections: this many half-open links, and twice as many sockets. */
  readonly strangers: number
  /** Most authenticated links. */
  readonly links: number
  /** Milliseconds from the TCP accept to an authenticated link, or to the request for a page. */
  readonly handshakeMs: number
  /** New connections per second from one /24 or /56. Further ones are reset before TLS. */
  readonly acceptsPerSecond: number
  /** New connections from one /24 or /56 that may arrive at once. */
  readonly acceptBurst: number
}

/** Limits of a relay's HTTPS port. */
export const DEFAULT_LIMITS: Limits = {
  strangers: 256,
  links: 10_000,
  handshakeMs: 5000,
  acceptsPerSecond: 20,
  acceptBurst: 200
}

/** Counters for the admin API and the logs. */
export interface Stats {
  connections: number
  links: number
  /**
   * Connections refused since the start. `rate`: reset by the rate limit. `sockets`: reset because
   * the process had no room or no descriptor for them. `full`: answered with 503. `late`: cut at
   * the deadline. `header`: without the expected PROXY header.
   */
  readonly refused: { rate: number; sockets: number; full: number; late: number; header: number }
}

/** A link whose peer has not been authenticated yet. */
export interface Stranger {
  readonly link: CarrierLink
  readonly path: string
  /** Whether a reverse proxy ended the TLS that the client saw. */
  readonly isProxied: boolean
  /**
   * Reports that the peer is authenticated. The deadline is cancelled, and the link no longer
   * counts as a stranger.
   */
  readonly welcome: () => void
}

/**
 * Addresses of proxies in front of the port. Connections from all other addresses must be TLS, and
 * their statements about a client's address are ignored.
 */
export interface Fronts {
  /** Load balancers. Each of their connections begins with a PROXY header. */
  readonly proxyProtocol: ReadonlyArray<string>
  /**
   * Reverse proxies that end TLS. They speak plain HTTP or TLS to this port and name the client in
   * X-Forwarded-For.
   */
  readonly reverseProxies: ReadonlyArray<string>
}

/** Options of {@link LinkPort}. */
export interface Options {
  readonly fronts?: Fronts | undefined
  /**
   * Called once, for the first connection that may come from a front but does not match `fronts`.
   */
  readonly onOddHeader?: ((message: string) => void) | undefined
  readonly host: string
  readonly port: number
  /** Certificate for new connections, and its key. */
  readonly tls: Leaf
  readonly paths: ReadonlyArray<string>
  /**
   * Path of the Unix socket on which the HTTP/3 gateway connects, in a folder that only this
   * process uses.
   */
  readonly gate?: string | undefined
  readonly pages?: ((path: string) => Page | undefined) | undefined
  readonly limits: Limits
  readonly onLink: (stranger: Stranger) => void
  /** Whether the process may open one more descriptor. */
  readonly hasRoom?: () => boolean
}

const HEALTHZ: Page = { contentType: "text/plain; charset=utf-8", body: "ok\n" }
/** Longest head of an HTTP request, in bytes. A longer one ends the connection. */
const MAX_HEADER_BYTES = 8192
/** Explanations of TLS errors that a misconfigured front causes, by the error's code. */
const NOT_TLS: Readonly<Record<string, string>> = {
  ERR_SSL_WRONG_VERSION_NUMBER:
    "sent something that is not TLS; if it is a balancer that speaks the PROXY protocol, list it in proxyProtocol",
  ERR_SSL_HTTP_REQUEST: "sent plain HTTP; if it is a reverse proxy that ends TLS, list it in behindProxy"
}
/**
 * First byte of a TLS record with a ClientHello (RFC 8446, section 5.1). No HTTP request begins
 * with it.
 */
const TLS_HANDSHAKE = 0x16
/**
 * Most pages that get the longer deadline of {@link PAGE_MS}. Further ones keep the usual deadline.
 */
const MAX_SLOW_PAGES = 64
/** How long a page may take to reach a slow reader. */
const PAGE_MS = 30_000
/** How long a stranger is kept when descriptors are short. A handshake takes a few round trips. */
const STRANGER_MS = 1000
const RETRY_AFTER_SECONDS = "5"

interface Connection {
  readonly socket: Socket
  /** When it was accepted, in milliseconds, monotonic. */
  readonly since: number
  /** Address of the client, for logs: as a listed front reports it, otherwise the socket's peer. */
  remote: string
  /** The host in `remote`. Connections of a client are counted by it. */
  host: string
  /** Whether it comes from a listed reverse proxy. */
  readonly isProxied: boolean
  /** Whether a page is being sent, under the longer deadline. */
  isSlow: boolean
  deadline: NodeJS.Timeout | undefined
  /**
   * `linked` once the stranger's only link was requested; `welcome` once its peer is authenticated.
   */
  state: "stranger" | "linked" | "welcome"
}

const keyOf = (socket: { readonly remoteAddress?: string | undefined; readonly remotePort?: number | undefined }) =>
  `${socket.remoteAddress}|${socket.remotePort}`

/** The TLS port of a relay. It hands each link to `onLink` before its peer is authenticated. */
export class LinkPort {
  readonly stats: Stats = { connections: 0, links: 0, refused: { rate: 0, sockets: 0, full: 0, late: 0, header: 0 } }
  private readonly options: Options
  /**
   * Accepts connections. They are handed to `tlsServer`, or to `http1` if a reverse proxy speaks
   * plain HTTP.
   */
  private readonly front: Server
  private readonly tlsServer: tls.Server
  private readonly proxyProtocol: ReadonlyArray<IpBlock.IpBlock>
  private readonly reverseProxies: ReadonlyArray<IpBlock.IpBlock>
  private hasToldHeader = false
  private readonly http1: http.Server
  private readonly http2: http2.Http2Server
  private readonly gate: Server
  private readonly connections = new Map<string, Connection>()
  /** The gateway's connections, by their socket. What it reports about them is trusted. */
  private readonly gated = new WeakMap<object, Connection>()
  private gateways = 0
  private readonly buckets: PrefixBuckets
  private readonly ip = new Uint8Array(16)
  private readonly acceptWebSocket = WebSocketCarrier.makeAcceptor()
  private acceptWebTransport: Awaited<ReturnType<typeof WebTransportCarrier.makeAcceptor>> | undefined
  private current: Uint8Array
  /** Number of connections in the state "linked". */
  private halfOpen = 0
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
      // A browser offers both and requests its WebSocket on the connection of its page. Here a
      // WebSocket needs HTTP/1.1.
      ALPNCallback: ({ protocols }) => ["http/1.1", "h2"].find((known) => protocols.includes(known)),
      // Our own deadline comes first and counts the connections that it cuts.
      handshakeTimeout: 2 * options.limits.handshakeMs
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

  /**
   * Starts listening and returns the port. Rejects with the system's error if the address or port
   * is not available.
   */
  async listen(): Promise<number> {
    this.acceptWebTransport = await WebTransportCarrier.makeAcceptor(
      secureContext(this.options.tls),
      this.options.paths
    )
    await listening(this.front, { port: this.options.port, host: this.options.host, backlog: 511 })
    const { gate } = this.options
    if (gate !== undefined) {
      rmSync(gate, { force: true }) // left by a process that died
      await listening(this.gate, { path: gate })
      chmodSync(gate, 0o600)
    }
    return (this.front.address() as AddressInfo).port
  }

  /** Uses `next` for new connections. Existing ones keep the old certificate. */
  updateTls(next: Leaf): void {
    // The whole context, since omitted options would fall back to the defaults.
    this.tlsServer.setSecureContext(secureContext(next))
    this.current = next.sha256
  }

  /** Accepts no new connections, and no new links on existing ones. The caller closes the links. */
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
    // Before TLS, because a handshake would cost more than the attack. Connections from a front are
    // counted for its client, below.
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

  /** Whether the rate limit of the client's prefix allows one more connection. */
  private takes(host: string): boolean {
    const length = IpBytes.parse(host, this.ip)
    if (length !== 0 && this.buckets.take(this.ip, length, 1, performance.now())) return true
    this.stats.refused.rate++
    return false
  }

  /**
   * Calls `onBytes` with all bytes received so far, each time more arrive, until it returns how
   * many of them to remove.
   */
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
      // Only after the rest has been put back into the socket.
      queueMicrotask(() => isProxied ? this.sniff(connection) : this.tlsServer.emit("connection", socket))
      return step.length
    })
  }

  /** Detects whether a reverse proxy speaks plain HTTP or TLS. */
  private sniff(connection: Connection): void {
    const { socket } = connection
    this.peek(connection, (bytes) => {
      const next = bytes[0] === TLS_HANDSHAKE ? this.tlsServer : this.http1
      queueMicrotask(() => next.emit("connection", socket))
      return 0
    })
  }

  /**
   * Reports bytes that are not TLS, such as a PROXY header or a plain HTTP request. `code` is
   * OpenSSL's error.
   */
  private onNoTls(socket: tls.TLSSocket, code: string | undefined): void {
    const key = NOT_TLS[code ?? ""]
    const host = (socket.remoteAddress ?? "").replace(/^::ffff:/, "")
    if (key === undefined || IpBlock.anyHolds(this.proxyProtocol, host)) return
    this.tellHeader(`${host} ${key}`)
  }

  /** Reports once only, because strangers can cause it as often as they like. */
  private tellHeader(message: string): void {
    if (this.hasToldHeader) return
    this.hasToldHeader = true
    this.options.onOddHeader?.(message)
  }

  /**
   * Cuts the oldest stranger to free a place. Returns `false` if all strangers have only just
   * connected. Links of nodes are never cut.
   */
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

  /**
   * Whether the rate limit allows a request. A request from a reverse proxy counts for the last
   * client in X-Forwarded-For, because the client itself may have written the others.
   */
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

  /**
   * HTTP status for a peer that requests a link. With 200 it takes the only link of its connection.
   */
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
    // A peer may not keep its socket open after the link has ended.
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
      server.on("error", () => {}) // accept errors (EMFILE) are temporary
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
