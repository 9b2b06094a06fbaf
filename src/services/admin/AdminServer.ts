/**
 * The admin API of one process: JSON over HTTP, on a unix socket that only its owner may use, or on
 * a TCP address.
 *
 * Over TCP, a page in a browser must not reach it. Requests for another host name (DNS rebinding)
 * or from another origin get 403. Other machines may look, if the operator admits them, but may
 * change nothing.
 */
import { Cause, Duration, Effect, Exit, FiberSet, Option, type Scope } from "effect"
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http"
import { type AddressInfo, isIP } from "node:net"
import { renderHostPort } from "../../protocol/bytes/SocketAddr.ts"
import type { AdminEndpoint } from "../config/Config.ts"
import { AdminError, STATUS } from "./AdminError.ts"
import { type AdminListenError, listenTcp, listenUnix } from "./AdminSocket.ts"

/** An answer that is not JSON, such as metrics or a page. */
export class Text {
  readonly text: string
  readonly contentType: string
  constructor(text: string, contentType: string) {
    this.text = text
    this.contentType = contentType
  }
}

/** Answers a request. `body` is `undefined` if the request has none. */
export type Handler<R = never> = (body: unknown, query: URLSearchParams) => Effect.Effect<unknown, AdminError, R>
/**
 * An answer that stays open: server-sent events, each one JSON value, until the client leaves or
 * reads too slowly.
 */
export class Events {
  /**
   * Calls `send` for the existing events and for each new one. Returns a function that stops this.
   */
  readonly subscribe: (send: (event: unknown) => void) => () => void
  constructor(subscribe: Events["subscribe"]) {
    this.subscribe = subscribe
  }
}

/** Handlers by method and path, such as `GET /v1/status`. */
export type Routes<R = never> = Readonly<Record<string, Handler<R>>>

/**
 * Largest request body, in bytes. It is a few thousand times the usual size. A larger one gets 413.
 */
export const MAX_BODY_BYTES = 64 * 1024
/** Longest time for one answer. The client waits slightly longer (`AdminClient`). */
const HANDLER_TIMEOUT = Duration.seconds(30)
/** Most connections at once. Others are closed without an answer. */
const MAX_CONNECTIONS = 64
/**
 * Most event streams at once, so that forgotten tabs leave room for other requests. Others are
 * refused.
 */
const MAX_EVENT_STREAMS = 16
/**
 * Most bytes that may wait for a slow reader, twice the size of a full recorder. Above it the
 * stream ends, and the reader connects again.
 */
const MAX_UNREAD_BYTES = 1024 * 1024
/**
 * Content security policy of the inspector's page: it loads only its own files, runs no inline
 * script, and may not be framed.
 */
const CONTENT_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
/** How long a client may take to send its request, in milliseconds. */
const REQUEST_TIMEOUT_MS = 10_000

/** An admin API that is listening. */
export type Running = {
  /** The configured endpoint. If port 0 was configured, it has the port that the system chose. */
  readonly endpoint: AdminEndpoint
}

/** Serves until the scope closes. Then the socket is removed and open connections end. */
export const make = <R>(options: {
  readonly listen: AdminEndpoint
  readonly routes: Routes<R>
}): Effect.Effect<Running, AdminListenError, R | Scope.Scope> =>
  Effect.gen(function*() {
    const { listen, routes } = options
    const fork = yield* FiberSet.makeRuntime<R>()
    const server = yield* Effect.acquireRelease(Effect.sync(makeServer), close)
    let endpoint = listen
    server.on("request", (request, response) => {
      fork(respond(request, response, routes, endpoint))
    })
    yield* listen._tag === "Unix" ? listenUnix(server, listen.path) : listenTcp(server, listen.host, listen.port)
    server.removeAllListeners("error").on("error", () => {})
    const address = server.address()
    if (listen._tag === "Tcp" && isAddressInfo(address)) endpoint = { ...listen, port: address.port }
    return { endpoint }
  })

const isAddressInfo = (address: AddressInfo | string | null): address is AddressInfo =>
  typeof address === "object" && address !== null

const makeServer = (): Server => {
  const server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS })
  server.maxConnections = MAX_CONNECTIONS
  return server
}

const close = (server: Server): Effect.Effect<void> =>
  Effect.async((resume) => {
    server.close(() => resume(Effect.void))
    server.closeAllConnections()
  })

const respond = <R>(
  request: IncomingMessage,
  response: ServerResponse,
  routes: Routes<R>,
  endpoint: AdminEndpoint
): Effect.Effect<void, never, R> =>
  Effect.gen(function*() {
    yield* admit(request, endpoint)
    const [path = "/", query = ""] = (request.url ?? "/").split("?", 2)
    const handle = yield* route(request.method ?? "GET", path, routes)
    const body = yield* readBody(request)
    return yield* handle(body, new URLSearchParams(query)).pipe(Effect.timeoutFail({
      duration: HANDLER_TIMEOUT,
      onTimeout: () =>
        refuse("timed_out", `no answer within ${Duration.format(HANDLER_TIMEOUT)}; see the log of this process`)
    }))
  }).pipe(
    Effect.flatMap((value) => Effect.try(() => answer(response, 200, value))),
    Effect.exit,
    Effect.flatMap(
      Exit.match({ onFailure: (cause) => refused(request, response, cause), onSuccess: () => Effect.void })
    )
  )

const refused = (
  request: IncomingMessage,
  response: ServerResponse,
  cause: Cause.Cause<unknown>
): Effect.Effect<void> => {
  if (Cause.isInterruptedOnly(cause)) return Effect.sync(() => response.destroy())
  const known = Option.filter(Cause.failureOption(cause), (error) => error instanceof AdminError)
  const error = Option.getOrElse(known, () => refuse("internal", "this request failed inside sallyport; see its log"))
  const tell = Effect.sync(() => {
    // The rest of an oversized request is not read.
    if (!request.complete) response.setHeader("connection", "close")
    answer(response, STATUS[error.code], { error: { code: error.code, message: error.message } })
  })
  return Option.isSome(known) ? tell : Effect.zipRight(Effect.logError("admin request failed", cause), tell)
}

const refuse = (code: AdminError["code"], message: string) => new AdminError({ code, message })

/** Refuses a request over TCP that a page of another origin may have sent. */
const admit = (request: IncomingMessage, endpoint: AdminEndpoint): Effect.Effect<void, AdminError> => {
  if (endpoint._tag === "Unix") return Effect.void
  const { host, origin } = request.headers
  const site = request.headers["sec-fetch-site"]
  if (!isForProbes(request, endpoint) && (host === undefined || !isOwn(host, endpoint))) {
    return refuse(
      "forbidden",
      `the Host header is not ${renderHostPort(endpoint)} or localhost:${endpoint.port}; use that address` +
        (endpoint.allowRemote ? ", or list the name under admin.allowHosts" : "")
    )
  }
  if (changesState(request) && !isFromHere(request.socket.localAddress, request.socket.remoteAddress)) {
    return refuse("forbidden", "only programs on this machine may do that; use the command line there")
  }
  const ownPage = (origin === undefined || origin === `http://${host}`) &&
    (site === undefined || site === "same-origin" || site === "none")
  return ownPage
    ? Effect.void
    : refuse(
      "forbidden",
      "requests from pages of another origin are refused; use the command line, or a page of this address"
    )
}

/**
 * Paths for scrapers and probes, which may use any name that their network has for this process.
 * They show only counts and health.
 */
const PROBED: ReadonlySet<string> = new Set(["/metrics", "/healthz", "/readyz"])

/**
 * Whether the request is allowed under any host name: only for `PROBED`, and only if the operator
 * admits other machines at all.
 */
const isForProbes = ({ method, url = "/" }: IncomingMessage, { allowRemote }: TcpEndpoint): boolean =>
  allowRemote && method === "GET" && PROBED.has(url.split("?", 1)[0] ?? "")

/** Requests that change what this process does. */
const CHANGING: ReadonlySet<string> = new Set(["POST /v1/drain"])

const changesState = ({ method, url = "/" }: IncomingMessage): boolean =>
  CHANGING.has(`${method} ${url.split("?", 1)[0] ?? ""}`)

/** Whether a connection with these addresses comes from this machine. */
export const isFromHere = (localAddress = "", remoteAddress = ""): boolean =>
  remoteAddress !== "" && (remoteAddress === localAddress || /^(::ffff:)?127\.|^::1$/.test(remoteAddress))

type TcpEndpoint = Extract<AdminEndpoint, { _tag: "Tcp" }>

/**
 * Whether the `Host` header names this server. Anybody can make a name point here, but an IP
 * address in `Host` and a name that the operator lists are safe.
 */
const isOwn = (host: string, { allowHosts, allowRemote, host: own, port }: TcpEndpoint): boolean => {
  // A port may be mapped on the way to a container, so a listed name is valid with any port.
  if (allowHosts.includes(host.replace(/:\d+$/, "").toLowerCase())) return true
  const suffix = port === 80 && !/:\d+$/.test(host) ? "" : `:${port}`
  if (!host.endsWith(suffix)) return false
  const name = host.slice(0, host.length - suffix.length).toLowerCase()
  const bare = name.startsWith("[") && name.endsWith("]") ? name.slice(1, -1) : name
  return bare === own.toLowerCase() || bare === "localhost" || (allowRemote && isIP(bare) !== 0)
}

const route = <R>(method: string, path: string, routes: Routes<R>): Effect.Effect<Handler<R>, AdminError> => {
  const key = `${method} ${path}`
  const handle = Object.hasOwn(routes, key) ? routes[key] : undefined
  if (handle !== undefined) return Effect.succeed(handle)
  const known = Object.keys(routes)
  const methods = known.filter((name) => name.endsWith(` ${path}`))
  return methods.length > 0
    ? refuse("method_not_allowed", `this path takes ${methods.join(", ")}`)
    : refuse("not_found", `no such path; there are ${known.join(", ")}`)
}

const readBody = (request: IncomingMessage): Effect.Effect<unknown, AdminError> =>
  Effect.async<Buffer, AdminError>((resume) => {
    const chunks: Array<Buffer> = []
    let bytes = 0
    request.on("data", (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes <= MAX_BODY_BYTES) return void chunks.push(chunk)
      request.pause().removeAllListeners("data")
      resume(refuse("too_large", `the body is larger than ${MAX_BODY_BYTES} bytes; send less`))
    })
    request.once("end", () => resume(Effect.succeed(Buffer.concat(chunks))))
    request.once("error", () => resume(Effect.interrupt))
    request.once("close", () => resume(Effect.interrupt))
  }).pipe(Effect.flatMap((body) => parseBody(body, request.headers["content-type"] ?? "")))

const parseBody = (body: Buffer, contentType: string): Effect.Effect<unknown, AdminError> => {
  if (body.length === 0) return Effect.succeed(undefined)
  // A page can send any other content type to another origin without a preflight request.
  if (!/^application\/json\b/i.test(contentType)) {
    return refuse("unsupported_media_type", "the body is not marked as JSON; send content-type: application/json")
  }
  return Effect.try({
    try: (): unknown => JSON.parse(body.toString("utf8")),
    catch: () => refuse("bad_request", "the body is not JSON; send one JSON value")
  })
}

/** Sends an answer. If the value cannot be written as JSON, it throws before anything is sent. */
const answer = (response: ServerResponse, status: number, value: unknown): void => {
  if (value instanceof Events) return stream(response, value)
  const text = value instanceof Text ? value.text : `${JSON.stringify(value ?? null, bigintAsNumber)}\n`
  const contentType = value instanceof Text ? value.contentType : "application/json; charset=utf-8"
  response.writeHead(status, {
    "content-type": contentType,
    "content-length": Buffer.byteLength(text),
    ...HEADERS
  })
  response.end(text)
}

const HEADERS = {
  "cache-control": "no-store",
  "content-security-policy": CONTENT_POLICY,
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff"
}

/** Number of open event streams in this process, which has one admin API. */
let streams = 0

const stream = (response: ServerResponse, { subscribe }: Events): void => {
  if (response.destroyed) return
  if (streams >= MAX_EVENT_STREAMS) {
    const { code, message } = refuse("unavailable", "too many event streams are open; close a page")
    return answer(response, STATUS[code], { error: { code, message } })
  }
  streams++
  response.writeHead(200, { "content-type": "text/event-stream", ...HEADERS })
  response.flushHeaders()
  const stop = subscribe((event) => {
    if (response.writableLength > MAX_UNREAD_BYTES) response.destroy()
    else response.write(`data: ${JSON.stringify(event, bigintAsNumber)}\n\n`)
  })
  response.once("close", () => {
    streams--
    stop()
  })
}

const bigintAsNumber = (_: string, value: unknown): unknown => typeof value === "bigint" ? Number(value) : value
