/** Addresses as operators write them: `host:port`, `[::1]:443`, host names and IP literals. */
import { Either } from "effect"
import { isIP, isIPv6 } from "node:net"
import * as Candidate from "../../protocol/candidate/Candidate.ts"

/** A host and a port. */
export type HostPort = {
  /** A name or an IP literal, without brackets. */
  readonly host: string
  /** Port from 0 to 65535. 0 stands for any free port. */
  readonly port: number
}

/** Highest port number. */
export const MAX_PORT = 65_535

/** Parses `host:port`. A failure says what is wrong, in words that follow "found ...". */
export const parse = (text: string): Either.Either<HostPort, string> => {
  if (text.includes("://")) return Either.left("which is a URL")
  if (isIPv6(text)) return Either.left("whose IPv6 address is not in brackets")
  const colon = text.lastIndexOf(":")
  if (colon === -1) return Either.left("which has no port")
  const host = text.slice(0, colon)
  const port = text.slice(colon + 1)
  if (host === "") return Either.left("which has no host")
  if (!/^\d{1,6}$/.test(port) || Number(port) > MAX_PORT) return Either.left(`whose port is not 0 to ${MAX_PORT}`)
  const bare = host.startsWith("[") && host.endsWith("]") ? host.slice(1, -1) : host
  if (bare !== host && !isIPv6(bare)) return Either.left("whose brackets hold no IPv6 address")
  if (bare === host && host.includes(":")) return Either.left("whose IPv6 address is not in brackets")
  if (hostProblem(bare) !== null) return Either.left("whose host is neither a name nor an IP address")
  return Either.right({ host: bare, port: Number(port) })
}

/**
 * Parses an address at which peers reach this node from outside. `port` is 0 if the text has none,
 * which stands for the node's own port. A failure says what is wrong, in words that follow "found
 * ...".
 */
export const parseAdvertised = (text: string): Either.Either<HostPort, string> => {
  const parsed = isIP(text) === 0 ? parse(text) : Either.right({ host: text, port: 0 })
  return Either.flatMap(parsed, ({ host, port }) => {
    const literal = Candidate.canonical(host)
    if (literal === null) return Either.left("whose host is not an IP address")
    if (!Candidate.isUsableHost(literal, false)) return Either.left("at which other machines cannot reach this one")
    if (port === 0 && isIP(text) === 0) return Either.left(`whose port is not 1 to ${MAX_PORT}`)
    return Either.right({ host: literal, port })
  })
}

/**
 * Checks an IP literal or a DNS name (RFC 1123, 253 characters). Returns what is wrong, or `null`.
 */
export const hostProblem = (host: string): string | null => {
  if (isIP(host) !== 0) return null
  if (host.includes("://")) return "which is a URL"
  if (/:\d+$/.test(host)) return "which has a port"
  if (host.length > 253) return "which is too long for a name"
  const labels = host.split(".")
  if (!labels.every((label) => /^(?!-)[a-z0-9_-]{1,63}(?<!-)$/i.test(label))) {
    return "which is neither a name nor an IP address"
  }
  // A name whose last label is a number is a malformed IPv4 address (WHATWG URL, section 3.5).
  return /^\d+$/.test(labels.at(-1) ?? "") ? "which is not a valid IPv4 address" : null
}

/**
 * Checks the address of a resource: a host, `*.example.com`, or a CIDR such as `10.1.0.0/16`.
 * Returns what is wrong, or `null`.
 */
export const targetProblem = (address: string): string | null => {
  if (address.includes("://")) return "which is a URL"
  if (address.includes("%")) return "which names an interface of one machine"
  if (address.includes("/")) {
    const [base = "", bits = "", ...rest] = address.split("/")
    const most = isIPv6(base) ? 128 : 32
    const fits = isIP(base) !== 0 && /^\d{1,3}$/.test(bits) && Number(bits) <= most && rest.length === 0
    return fits ? null : "which is not a valid CIDR"
  }
  // A dot at the end keeps the connector from applying its DNS search list to the name.
  const bare = address.replace(/(?<=[^.])\.$/, "")
  if (isIP(bare) !== 0 && bare !== address) return "which is an IP address with a dot behind it"
  if (!address.includes("*")) return hostProblem(bare)
  const suffix = bare.slice(2)
  const fits = address.startsWith("*.") && isIP(suffix) === 0 && hostProblem(suffix) === null
  return fits ? null : "whose wildcard is not the whole first label of a name"
}

/** Whether only this machine can reach a socket that is bound to this host. */
export const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."))

/**
 * Whether this host stands for every address of this machine. No other machine can connect to it.
 */
export const isUnspecified = (host: string): boolean => /^(0\.0\.0\.0|(0{0,4}:){2,7}0{0,4})$/.test(host)
