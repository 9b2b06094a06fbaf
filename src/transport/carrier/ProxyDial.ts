/**
 * TCP connections to a relay through a proxy: CONNECT over HTTP or HTTPS (RFC 9110, section 9.3.6),
 * or SOCKS 5 (RFC 1928, RFC 1929).
 */
import { Redacted } from "effect"
import * as http from "node:http"
import * as https from "node:https"
import * as net from "node:net"
import type { Duplex } from "node:stream"
import * as IpBlock from "../../protocol/bytes/IpBlock.ts"
import { renderHostPort } from "../../protocol/bytes/SocketAddr.ts"
import * as ProxyUrl from "../../protocol/relay/ProxyUrl.ts"

/**
 * Error when connecting through the proxy failed. `code` is the system's, HTTP's or SOCKS's.
 *
 * - `unreachable`: no connection to the proxy.
 * - `login`: the proxy requires a login, or a different one.
 * - `refused`: the proxy refused the connection.
 * - `unlike`: the other end is not a proxy of this kind.
 */
export class ProxyFailed extends Error {
  override readonly name = "ProxyFailed"
  readonly reason: "unreachable" | "login" | "refused" | "unlike"
  readonly code: string
  constructor(reason: ProxyFailed["reason"], code: string, message: string) {
    super(message)
    this.reason = reason
    this.code = code
  }
}

/**
 * Destination of the connection. `host` has no brackets. The proxy resolves names, because a
 * network behind a proxy often has no DNS.
 */
export interface Target {
  readonly host: string
  readonly port: number
}

/**
 * Connects to `target` through `proxy`. Rejects with `ProxyFailed`, or when `signal` aborts, and
 * then leaves nothing open.
 */
export const open = (proxy: ProxyUrl.ProxyUrl, target: Target, signal: AbortSignal): Promise<Duplex> =>
  proxy.kind === "socks5" ? bySocks(proxy, target, signal) : byConnect(proxy, target, signal)

const bytes = (login: ProxyUrl.Login) => ({
  user: Buffer.from(login.user),
  password: Buffer.from(Redacted.value(login.password))
})

const unreachable = (proxy: ProxyUrl.ProxyUrl, error: NodeJS.ErrnoException): ProxyFailed => {
  const where = ProxyUrl.render(proxy)
  const code = error.code ?? ""
  if (code.startsWith("HPE_") || code === "ECONNRESET" && proxy.kind === "http") {
    return new ProxyFailed(
      "unlike",
      code,
      `${where} does not answer as an HTTP proxy does (${code}); check its URL's scheme and port`
    )
  }
  if (code === "ERR_SSL_WRONG_VERSION_NUMBER" || code === "EPROTO") {
    return new ProxyFailed(
      "unlike",
      code,
      `${where} does not speak TLS (${code}); if it is an HTTP proxy, write http://`
    )
  }
  if (/CERT|SELF_SIGNED|UNABLE_TO_|ALTNAME/.test(code)) {
    return new ProxyFailed(
      "unlike",
      code,
      `the certificate of the proxy ${where} is not trusted (${code}); name its authority's file in NODE_EXTRA_CA_CERTS`
    )
  }
  return new ProxyFailed(
    "unreachable",
    code,
    `cannot reach the proxy ${where} (${
      code || error.message
    }); check its host and port, that it runs, and this machine's network`
  )
}

const byConnect = (proxy: ProxyUrl.ProxyUrl, target: Target, signal: AbortSignal): Promise<Duplex> =>
  new Promise((resolve, reject) => {
    const authority = renderHostPort(target)
    const login = proxy.login === null ? null : bytes(proxy.login)
    const request = (proxy.kind === "https" ? https : http).request({
      host: proxy.host,
      port: proxy.port,
      method: "CONNECT",
      path: authority,
      agent: false,
      signal,
      headers: {
        host: authority,
        ...(login !== null && {
          "proxy-authorization": `Basic ${
            Buffer.concat([login.user, Buffer.from(":"), login.password]).toString("base64")
          }`
        })
      }
    })
    request.once("error", (error) => reject(unreachable(proxy, error)))
    request.once("connect", (response, socket, head) => {
      if (response.statusCode === 200 && head.length === 0) return resolve(socket)
      socket.destroy()
      reject(refusal(proxy, authority, response))
    })
    request.end()
  })

const LOGIN_REMEDY = "write the login into the proxy's URL, as in http://USER:PASSWORD@HOST:PORT"

const refusal = (proxy: ProxyUrl.ProxyUrl, authority: string, response: http.IncomingMessage): ProxyFailed => {
  const where = ProxyUrl.render(proxy)
  const status = response.statusCode ?? 0
  // tinyproxy answers a wrong login with 401, the code of a web server.
  if (status !== 407 && status !== 401) {
    const code = `${status}`
    return new ProxyFailed("refused", code, `the proxy ${where} refused ${authority} (${status}); allow it there`)
  }
  const schemes = [response.headers["proxy-authenticate"] ?? []].flat().join(",")
  if (schemes !== "" && !/\bbasic\b/i.test(schemes)) {
    const offered = /^\w+/.exec(schemes)?.[0] ?? "another scheme"
    return new ProxyFailed(
      "login",
      `${status}`,
      `the proxy ${where} takes no user and password (${status}, it asks for ${offered}); only Basic is supported, so let ${authority} through there without a login`
    )
  }
  return new ProxyFailed(
    "login",
    `${status}`,
    proxy.login === null
      ? `the proxy ${where} asks for a login (${status}); ${LOGIN_REMEDY}`
      : `the proxy ${where} did not accept the user and password in its URL (${status}); correct them there, with % and @ percent-encoded`
  )
}

// ------------------------------------------------------------------------------------------- SOCKS

const SOCKS = 5
const METHOD = { none: 0, password: 2 } as const
const CONNECT = 1
const ADDRESS = { v4: 1, name: 3, v6: 4 } as const

const SOCKS_REPLIES: Readonly<Record<number, string>> = {
  1: "general failure",
  2: "not allowed by its rules",
  3: "network unreachable",
  4: "host unreachable",
  5: "connection refused",
  6: "TTL expired",
  7: "command not supported",
  8: "address type not supported"
}

const bySocks = (proxy: ProxyUrl.ProxyUrl, target: Target, signal: AbortSignal): Promise<Duplex> =>
  new Promise((resolve, reject) => {
    const socket = net.connect({ host: proxy.host, port: proxy.port, noDelay: true })
    const steps = socksSteps(socket, proxy, target)
    const settle = () => {
      signal.removeEventListener("abort", abort)
      for (const event of ["readable", "error", "close"]) socket.removeAllListeners(event)
    }
    const fail = (error: Error) => {
      settle()
      socket.on("error", () => {})
      socket.destroy()
      reject(error)
    }
    const abort = () => fail(new ProxyFailed("unreachable", "", "given up"))
    signal.addEventListener("abort", abort, { once: true })
    socket.once("error", (error) => fail(unreachable(proxy, error)))
    socket.once("close", () => fail(notSocks(proxy)))
    // Exact reads leave the bytes after the answer in the socket.
    let wanted = 0
    const onReadable = () => {
      try {
        for (;;) {
          const read = wanted === 0 ? Buffer.alloc(0) : socket.read(wanted) as Buffer | null
          if (read === null) return
          const step = steps.next(read)
          if (step.done === true) break
          wanted = step.value
        }
      } catch (error) {
        return fail(error as Error)
      }
      settle()
      resolve(socket)
    }
    socket.once("connect", () => {
      onReadable()
      socket.on("readable", onReadable)
    })
  })

const notSocks = (proxy: ProxyUrl.ProxyUrl) =>
  new ProxyFailed(
    "unlike",
    "",
    `${ProxyUrl.render(proxy)} does not answer as a SOCKS 5 proxy does; check its URL's scheme and port`
  )

/**
 * SOCKS handshake as a generator: yields the number of bytes it needs next. Throws `ProxyFailed`.
 */
function* socksSteps(socket: net.Socket, proxy: ProxyUrl.ProxyUrl, target: Target): Generator<number, void, Buffer> {
  const where = ProxyUrl.render(proxy)
  const login = proxy.login === null ? null : bytes(proxy.login)
  socket.write(Buffer.from(login === null ? [SOCKS, 1, METHOD.none] : [SOCKS, 2, METHOD.none, METHOD.password]))
  const chosen = yield 2
  if (chosen[0] !== SOCKS) throw notSocks(proxy)
  if (chosen[1] === METHOD.password && login !== null) {
    const { password, user } = login
    socket.write(Buffer.concat([Buffer.from([1, user.length]), user, Buffer.from([password.length]), password]))
    const answer = yield 2
    if (answer[1] !== 0) {
      const message =
        `the proxy ${where} did not accept the user and password in its URL; correct them there, with % and @ percent-encoded`
      throw new ProxyFailed("login", "auth", message)
    }
  } else if (chosen[1] !== METHOD.none) {
    const message = login === null
      ? `the proxy ${where} asks for a login; ${LOGIN_REMEDY.replace("http", "socks5")}`
      : `the proxy ${where} takes neither the user and password in its URL nor clients without; let this machine through there`
    throw new ProxyFailed("login", "method", message)
  }
  socket.write(Buffer.concat([Buffer.from([SOCKS, CONNECT, 0]), addressOf(target.host), portOf(target.port)]))
  const head = yield 4
  if (head[0] !== SOCKS) throw notSocks(proxy)
  if (head[1] !== 0) {
    const reply = head[1] ?? 0
    const authority = renderHostPort(target)
    const why = SOCKS_REPLIES[reply] ?? `reply ${reply}`
    throw new ProxyFailed(
      "refused",
      `${reply}`,
      `the proxy ${where} did not connect to ${authority} (${why}); allow it there, and check that the relay runs`
    )
  }
  const length = head[3] === ADDRESS.v4 ? 4 : head[3] === ADDRESS.v6 ? 16 : (yield 1)[0] ?? 0
  yield length + 2
}

const addressOf = (host: string): Buffer => {
  if (net.isIPv4(host)) return Buffer.from([ADDRESS.v4, ...host.split(".").map(Number)])
  const v6 = net.isIPv6(host) ? IpBlock.bytesOf(host) : null
  if (v6?.length === 16) return Buffer.from([ADDRESS.v6, ...v6])
  const name = Buffer.from(host)
  return Buffer.concat([Buffer.from([ADDRESS.name, name.length]), name])
}

const portOf = (port: number) => Buffer.from([port >> 8, port & 255])
