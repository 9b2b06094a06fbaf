/**
 * The proxy through which a node reaches its relay, from the configuration or from the usual
 * environment variables. No text that leaves this module contains the login.
 */
import { Either, Redacted } from "effect"
import * as IpBlock from "../bytes/IpBlock.ts"
import { renderHostPort } from "../bytes/SocketAddr.ts"

/** A proxy, from its URL. */
export interface ProxyUrl {
  /**
   * Protocol of the proxy. `http` and `https` proxies connect by the method CONNECT. The connection
   * to an `https` proxy itself uses TLS.
   */
  readonly kind: "http" | "https" | "socks5"
  /** A name or an IP literal, without brackets. */
  readonly host: string
  /** Port of the proxy, from 1 to 65535. */
  readonly port: number
  /** User and password. `null` if the URL has neither. */
  readonly login: Login | null
  /** Flaw of a URL that can be used nevertheless. `null` if it has none. */
  readonly oddity: string | null
}

/** User and password, as bytes, because percent-encoding can write bytes that are not text. */
export interface Login {
  readonly user: Uint8Array
  readonly password: Redacted.Redacted<Uint8Array>
}

const KINDS: Readonly<Record<string, { readonly kind: ProxyUrl["kind"]; readonly port: number }>> = {
  http: { kind: "http", port: 80 },
  https: { kind: "https", port: 443 },
  socks: { kind: "socks5", port: 1080 }, // desktops write this for SOCKS 5
  socks5: { kind: "socks5", port: 1080 },
  socks5h: { kind: "socks5", port: 1080 }
}
/** Longest user and longest password, in bytes. RFC 1929 has one byte for the length of each. */
const MAX_LOGIN_BYTES = 255

/**
 * Parses a proxy's URL. A text without a scheme is taken for an HTTP proxy, as curl does. A failure
 * says what is wrong, in words that follow "the proxy's URL".
 */
export const parse = (text: string): Either.Either<ProxyUrl, string> => {
  const [, scheme = "http", rest = ""] = /^(?:([a-z][a-z0-9+.-]*):\/\/)?(.*)$/is.exec(text.trim()) ?? []
  const known = KINDS[scheme.toLowerCase()]
  if (known === undefined) {
    return Either.left(`has the scheme ${scheme}://, and only http, https and socks5 are supported`)
  }
  const at = rest.lastIndexOf("@") // a password may contain one that is not encoded
  const authority = rest.slice(at + 1).replace(/[/?#].*$/s, "")
  const place = /^(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::(\d{1,5}))?$/i.exec(authority)
  const host = place?.[1] ?? place?.[2]
  if (host === undefined || (place?.[1] !== undefined && IpBlock.bytesOf(host) === null)) {
    return Either.left("has no valid host; write for example http://proxy.example.com:3128")
  }
  const port = place?.[3] === undefined ? known.port : Number(place[3])
  if (port < 1 || port > 65_535) return Either.left(`has the port ${port}; a port is 1 to 65535`)
  const login = at === -1 ? null : loginOf(rest.slice(0, at))
  if (
    login !== null && (login.user.length > MAX_LOGIN_BYTES || Redacted.value(login.password).length > MAX_LOGIN_BYTES)
  ) {
    return Either.left(`has a user or a password of more than ${MAX_LOGIN_BYTES} bytes`)
  }
  const isOdd = at !== -1 && /%(?![0-9a-f]{2})/i.test(rest.slice(0, at))
  const oddity = isOdd
    ? "a % in its user or password has no two hex digits behind it and is taken as it is; write %25"
    : null
  return Either.right({ kind: known.kind, host, port, login, oddity })
}

const loginOf = (text: string): Login | null => {
  if (text === "" || text === ":") return null
  const colon = text.indexOf(":")
  const [user, password] = colon === -1 ? [text, ""] : [text.slice(0, colon), text.slice(colon + 1)]
  return { user: percentDecoded(user), password: Redacted.make(percentDecoded(password)) }
}

/**
 * Decodes percent-encoding. A `%` without two hex digits behind it stands for itself, as for curl.
 */
const percentDecoded = (text: string): Uint8Array => {
  const from = new TextEncoder().encode(text)
  const out = new Uint8Array(from.length)
  let length = 0
  for (let at = 0; at < from.length; at++) {
    const hex = from[at] === PERCENT ? String.fromCharCode(...from.subarray(at + 1, at + 3)) : ""
    const isEncoded = /^[0-9a-f]{2}$/i.test(hex)
    out[length++] = isEncoded ? Number.parseInt(hex, 16) : from[at]!
    if (isEncoded) at += 2
  }
  return out.subarray(0, length)
}

const PERCENT = 37

/** Returns the URL without the login, for people. */
export const render = (url: ProxyUrl): string => `${url.kind}://${renderHostPort(url)}`

/** Way to a host: through a proxy, or without one. */
export type Choice =
  | { readonly _tag: "Direct" }
  /** The proxy to use. `from` says where it is named, for people. */
  | { readonly _tag: "Proxy"; readonly proxy: ProxyUrl; readonly from: string }
  /**
   * A proxy is named that cannot be used. A direct connection would disregard what was asked for.
   */
  | { readonly _tag: "Unusable"; readonly message: string }

/** Target of a connection, and the settings that decide about its proxy. */
export interface Wanted {
  /** The configuration's `proxy`: a URL, `none`, or `null` if the environment decides. */
  readonly setting: string | null
  readonly env: Readonly<Record<string, string | undefined>>
  readonly host: string
  readonly port: number
}

const NAMES = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
const NONE: Choice = { _tag: "Direct" }

/**
 * Decides through which proxy `host` is reached. A variable's lower-case name takes precedence over
 * its upper-case one.
 */
export const choose = ({ env, host, port, setting }: Wanted): Choice => {
  if (setting === "none") return NONE
  if (setting !== null) return chosen(setting, "proxy in the configuration")
  const from = NAMES.find((name) => (env[name] ?? "").trim() !== "")
  if (from === undefined || isLoopback(host) || isExcepted(env["no_proxy"] || env["NO_PROXY"] || "", host, port)) {
    return NONE
  }
  return chosen(env[from] ?? "", from)
}

const chosen = (text: string, from: string): Choice =>
  Either.match(parse(text), {
    onLeft: (problem) => ({
      _tag: "Unusable" as const,
      message: `the URL in ${from} ${problem}; correct it, or write proxy: none to use no proxy`
    }),
    onRight: (proxy) => ({ _tag: "Proxy" as const, proxy, from })
  })

const LOOPBACK = ["127.0.0.0/8", "::1"].map((text) => IpBlock.parse(text)!)
const isLoopback = (host: string) => /^(.+\.)?localhost\.?$/i.test(host) || IpBlock.anyHolds(LOOPBACK, host)

/**
 * Whether a `no_proxy` list contains the target. Its entries are `*`, names (which also stand for
 * all names below them), addresses and CIDR blocks, each with a port or without.
 */
const isExcepted = (list: string, host: string, port: number): boolean => {
  const name = host.toLowerCase().replace(/\.$/, "")
  return list.toLowerCase().split(/[\s,]+/).filter((entry) => entry !== "").some((entry) => {
    if (entry === "*") return true
    const block = IpBlock.parse(entry.replace(/^\[(.*)\]$/, "$1"))
    if (block !== null) return IpBlock.anyHolds([block], host)
    const [, place = "", itsPort] = /^(.*?)(?::(\d{1,5}))?$/.exec(entry) ?? []
    if (itsPort !== undefined && Number(itsPort) !== port) return false
    const single = IpBlock.parse(place.replace(/^\[(.*)\]$/, "$1"))
    if (single !== null) return IpBlock.anyHolds([single], host)
    const suffix = place.replace(/^\*?\./, "").replace(/\.$/, "")
    return suffix !== "" && (name === suffix || name.endsWith(`.${suffix}`))
  })
}
