/** Addresses at which a node may be reached, and which of them to try in which order (RFC 8445, sections 5.1 and 6.1.2). */
import { Schema } from "effect"
import { Use } from "./InterfaceUse.ts"
import * as IpBytes from "./IpBytes.ts"
import { SocketAddr } from "./SocketAddr.ts"

/** On each side; a longer list from a peer is cut, so that it cannot make this host probe without end. */
export const MAX_CANDIDATES = 16

export const Kind = Schema.Literal("host", "srflx", "prflx", "port-mapped")
export type Kind = typeof Kind.Type

/** Where this host has a candidate from. `static`: from `udp.advertise` in the configuration. */
export const Origin = Schema.Struct({
  use: Schema.Union(Use, Schema.Literal("static")),
  /** The name of the network interface; absent for an address that no interface has. */
  interface: Schema.optional(Schema.String)
})
export type Origin = typeof Origin.Type

export const Candidate = Schema.Struct({
  kind: Kind,
  address: SocketAddr,
  /** Known on this host only; peers are never told. */
  origin: Schema.optional(Origin),
  /** RFC 8445, section 5.1.2.1. */
  priority: Schema.Int.pipe(Schema.between(1, 2 ** 31 - 1))
})
export type Candidate = typeof Candidate.Type

/** As it is told to the peer and to other actors. What comes from a peer goes through `accept`, too. */
export const CandidateList = Schema.Array(Candidate).pipe(Schema.maxItems(MAX_CANDIDATES))

/** Whether this side's translator has one outside port for all destinations, or (RFC 4787, section 4.1) another for some; IPv4. */
export const Mapping = Schema.Literal("steady", "varies")
export type Mapping = typeof Mapping.Type

/**
 * Type preferences (RFC 8445, section 5.1.2.2). A port mapping that the router confirmed is more certain than a reflexive address.
 */
const TYPE_PREFERENCE: Record<Kind, number> = { host: 126, prflx: 110, "port-mapped": 105, srflx: 100 }
/** A port mapping whose outside address is private leads into a second NAT only. */
const INNER_MAPPED_PREFERENCE = 90
/** Bridges for containers have the same addresses on most hosts. */
const VIRTUAL_PREFERENCE = 60
const LOOPBACK_PREFERENCE = 1
const COMPONENT = 1 // RFC 8445, section 5.1.2.1: RTP's number; we have one component only

/** `localPreference`: 0 to 65535, higher first among candidates of one kind. */
export const priorityOf = (kind: Kind, host: string, localPreference: number, use?: Origin["use"]): number =>
  preferenceOf(kind, host, use) * 2 ** 24 +
  Math.min(Math.max(Math.trunc(localPreference), 0), 65535) * 2 ** 8 +
  (256 - COMPONENT)

const preferenceOf = (kind: Kind, host: string, use: Origin["use"] | undefined): number => {
  if (isLoopback(host)) return LOOPBACK_PREFERENCE
  if (use === "virtual") return VIRTUAL_PREFERENCE
  return kind === "port-mapped" && isPrivate(host) ? INNER_MAPPED_PREFERENCE : TYPE_PREFERENCE[kind]
}

/** IPv6 first (RFC 8421: fewer translators on the way), then in the order of the system's list. */
export const localPreference = (host: string, index: number): number =>
  (familyOf(host) === 6 ? 60_000 : 30_000) - Math.min(Math.max(index, 0), 20_000)

export const make = (
  kind: Kind,
  address: SocketAddr,
  { index = 0, origin }: { readonly index?: number; readonly origin?: Origin } = {}
): Candidate => {
  const priority = priorityOf(kind, address.host, localPreference(address.host, index), origin?.use)
  return origin === undefined ? { kind, address, priority } : { kind, address, origin, priority }
}

/** IPv6 has a colon, IPv4 never. */
export const familyOf = (host: string): 4 | 6 => host.includes(":") ? 6 : 4

/** The first of each IP version, IPv4 first. */
export const firstOfEach = (addresses: ReadonlyArray<SocketAddr>): ReadonlyArray<SocketAddr> =>
  [4, 6].flatMap((family) => addresses.find(({ host }) => familyOf(host) === family) ?? [])

/** The IP versions in which there is one. */
export const familiesOf = (list: ReadonlyArray<Candidate>): ReadonlyArray<4 | 6> =>
  ([4, 6] as const).filter((family) => list.some(({ address }) => familyOf(address.host) === family))

/** Of hosts (literal) those of the given IP versions; all where there is none, since what is known may be wrong. */
export const reachable = (hosts: ReadonlyArray<string>, families: ReadonlyArray<4 | 6>): ReadonlyArray<string> => {
  const some = hosts.filter((host) => families.includes(familyOf(host)))
  return some.length > 0 ? some : hosts
}

const scratch = new Uint8Array(16)

/** The one spelling of a literal address (RFC 5952), which is the kernel's, too; null for other text. */
export const canonical = (host: string): string | null => {
  if (host.includes("%")) return null // with a zone it means something on one host only
  const length = IpBytes.parse(host, scratch)
  return length === 0 ? null : IpBytes.format(scratch, 0, length)
}

export const isLoopback = (host: string): boolean => {
  const length = IpBytes.parse(host, scratch)
  return length === 4 ? scratch[0] === 127 : length === 16 && isV6Loopback(scratch)
}

/** IPv4 that no packet crosses the internet with: private (RFC 1918), and inside a provider's translator (RFC 6598). */
export const isPrivate = (host: string): boolean => {
  if (IpBytes.parse(host, scratch) !== 4) return false
  const [a = 0, b = 0] = scratch
  return a === 10 || (a === 172 && (b & 0xf0) === 16) || (a === 192 && b === 168) || (a === 100 && (b & 0xc0) === 64)
}

/** IPv6 addresses of one site (fc00::/7, RFC 4193). */
export const isUniqueLocal = (host: string): boolean =>
  IpBytes.parse(host, scratch) === 16 && ((scratch[0] ?? 0) & 0xfe) === 0xfc

const isV6Loopback = (ip: Uint8Array): boolean => ip[15] === 1 && ip.subarray(0, 15).every((byte) => byte === 0)

/**
 * Whether packets to this address can reach one other host. Left out: unspecified, multicast, broadcast and reserved, "this
 * network" (0/8), link-local (a zone is needed, and 169.254.169.254 is where clouds keep secrets), IPv4 inside IPv6, and
 * loopback unless `allowLoopback`.
 */
export const isUsableHost = (host: string, allowLoopback: boolean): boolean => {
  if (host.includes("%")) return false
  const ip = new Uint8Array(16)
  const length = IpBytes.parse(host, ip)
  if (length === 0) return false
  return length === 4 ? isUsableV4(ip, allowLoopback) : isUsableV6(ip, allowLoopback)
}

const isUsableV4 = (ip: Uint8Array, allowLoopback: boolean): boolean => {
  const [a = 0, b = 0] = ip
  if (a === 127) return allowLoopback
  return a !== 0 && a < 224 && !(a === 169 && b === 254)
}

const isUsableV6 = (ip: Uint8Array, allowLoopback: boolean): boolean => {
  const [a = 0, b = 0] = ip
  if (isV6Loopback(ip)) return allowLoopback
  if (a === 0xff || (a === 0xfe && (b & 0xc0) === 0x80) || (a === 0xfe && (b & 0xc0) === 0xc0)) return false // site-local, too
  return a !== 0 // ::, ::/96 and ::ffff:0:0/96 are no addresses of hosts; nothing in 0::/8 is handed out
}

const portOk = (port: number): boolean => Number.isInteger(port) && port >= 1 && port <= 65535

/**
 * The candidate with its address in canonical spelling and its priority cut to the allowed range; `null` if the address cannot be
 * used. Never throws, whatever the peer sent.
 */
export const clean = (
  { address, kind, origin, priority }: Candidate,
  options: { readonly allowLoopback: boolean }
): Candidate | null => {
  const host = canonical(address.host)
  if (host === null || !portOk(address.port) || !isUsableHost(host, options.allowLoopback)) return null
  const allowed = Math.min(Math.max(Math.trunc(priority) || 1, 1), 2 ** 31 - 1)
  const place = { kind, address: { host, port: address.port }, priority: allowed }
  return origin === undefined ? place : { ...place, origin }
}

/**
 * The part of a list that is worth offering or probing: each usable address once, highest priority first, at most `MAX_CANDIDATES`.
 * Never throws, whatever the peer sent.
 */
export const accept = (
  list: ReadonlyArray<Candidate>,
  options: { readonly allowLoopback: boolean }
): ReadonlyArray<Candidate> => {
  const seen = new Map<string, Candidate>()
  for (const candidate of list.slice(0, 4 * MAX_CANDIDATES)) {
    const usable = clean(candidate, options)
    if (usable === null) continue
    const key = `${usable.address.host}|${usable.address.port}`
    const before = seen.get(key)
    if (before === undefined || before.priority < usable.priority) seen.set(key, usable)
  }
  return [...seen.values()].sort((a, b) => b.priority - a.priority).slice(0, MAX_CANDIDATES)
}

/** Loopback addresses mean nothing between hosts: they are offered only where the relay itself was reached by one. */
export const allowsLoopback = (relayHost: string): boolean => isLoopback(relayHost)

/** The list without `origin`, which would tell the peer more about this network than it needs. */
export const toPeer = (list: ReadonlyArray<Candidate>): ReadonlyArray<Candidate> =>
  list.map(({ address, kind, priority }) => ({ kind, address, priority }))

/** Same addresses with the same priorities, in the same order. */
export const sameList = (a: ReadonlyArray<Candidate>, b: ReadonlyArray<Candidate>): boolean =>
  a.length === b.length &&
  a.every((candidate, i) => {
    const other = b[i]!
    return candidate.kind === other.kind && candidate.priority === other.priority &&
      candidate.address.host === other.address.host && candidate.address.port === other.address.port
  })

/** One of our sockets and one address of the peer. */
export type Pair = { readonly family: 4 | 6; readonly remote: Candidate; readonly priority: bigint }

/** RFC 8445, section 6.1.2.3. `controlling`: the priority of the client's candidate, which makes the choice. */
export const pairPriority = (controlling: number, controlled: number): bigint =>
  (BigInt(Math.min(controlling, controlled)) << 32n) + 2n * BigInt(Math.max(controlling, controlled)) +
  (controlling > controlled ? 1n : 0n)

/** Bridge addresses of this host, by which only its own containers are reached. */
export const virtualHosts = (list: ReadonlyArray<Candidate>): ReadonlySet<string> =>
  new Set(list.filter(({ origin }) => origin?.use === "virtual").map(({ address }) => address.host))

const NONE: ReadonlySet<string> = new Set()
const isVirtual = ({ priority }: Candidate): boolean => Math.floor(priority / 2 ** 24) === VIRTUAL_PREFERENCE

/**
 * Pairs to probe, best first. All local candidates of a family share one socket, so after the pruning of RFC 8445, section
 * 6.1.2.4, each remote candidate is in one pair, with the best local one of its family. Loopback goes with loopback only. A bridge
 * address of the peer that this host's own bridge has too (`own`) is not probed: the probes would come to this host itself.
 */
export const pairs = (
  local: ReadonlyArray<Candidate>,
  remote: ReadonlyArray<Candidate>,
  role: "client" | "connector",
  own: ReadonlySet<string> = NONE
): ReadonlyArray<Pair> => {
  const out: Array<Pair> = []
  for (const candidate of remote) {
    if (own.has(candidate.address.host) && isVirtual(candidate)) continue
    const family = familyOf(candidate.address.host)
    const loopback = isLoopback(candidate.address.host)
    let best = 0
    for (const mine of local) {
      if (familyOf(mine.address.host) !== family || isLoopback(mine.address.host) !== loopback) continue
      best = Math.max(best, mine.priority)
    }
    if (best === 0) continue
    const priority = role === "client" ? pairPriority(best, candidate.priority) : pairPriority(candidate.priority, best)
    out.push({ family, remote: candidate, priority })
  }
  return out.sort((a, b) => (a.priority < b.priority ? 1 : a.priority > b.priority ? -1 : 0))
}
