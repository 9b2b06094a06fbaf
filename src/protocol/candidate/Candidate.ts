/**
 * Addresses at which a node may be reached, and the order in which to try them (RFC 8445, sections
 * 5.1 and 6.1.2).
 */
import { Schema } from "effect"
import * as IpBytes from "../bytes/IpBytes.ts"
import { familyOf, SocketAddr } from "../bytes/SocketAddr.ts"
import { Use } from "./InterfaceUse.ts"

/**
 * Most candidates of each side. A longer list from a peer is cut, so that the peer cannot make this
 * host probe without end.
 */
export const MAX_CANDIDATES = 16

/**
 * Kind of a candidate: `host` is an address of the host itself, `srflx` one that a STUN server saw,
 * `prflx` one that the peer's packets showed, and `port-mapped` one that a router forwards.
 */
export const Kind = Schema.Literal("host", "srflx", "prflx", "port-mapped")
export type Kind = typeof Kind.Type

/** Source of a candidate on this host. `static`: from `udp.advertise` in the configuration. */
export const Origin = Schema.Struct({
  use: Schema.Union(Use, Schema.Literal("static")),
  /** Name of the network interface. Absent for an address that no interface has. */
  interface: Schema.optional(Schema.String)
})
export type Origin = typeof Origin.Type

/** An address at which a node may be reached. */
export const Candidate = Schema.Struct({
  kind: Kind,
  address: SocketAddr,
  /** Known on this host only. It is never sent to a peer. */
  origin: Schema.optional(Origin),
  /** Priority (RFC 8445, section 5.1.2.1); higher is better. */
  priority: Schema.Int.pipe(Schema.between(1, 2 ** 31 - 1))
})
export type Candidate = typeof Candidate.Type

/**
 * List of candidates, as it is sent to the peer and to other actors. A list from a peer must go
 * through `accept`, too.
 */
export const CandidateList = Schema.Array(Candidate).pipe(Schema.maxItems(MAX_CANDIDATES))

/**
 * How this side's NAT maps ports: `steady` if one outside port serves all destinations, `varies` if
 * some destinations see another port (RFC 4787, section 4.1). IPv4 only.
 */
export const Mapping = Schema.Literal("steady", "varies")
export type Mapping = typeof Mapping.Type

/**
 * Type preferences (RFC 8445, section 5.1.2.2). A port mapping that the router confirmed is more
 * certain than a reflexive address.
 */
const TYPE_PREFERENCE: Record<Kind, number> = { host: 126, prflx: 110, "port-mapped": 105, srflx: 100 }
/**
 * Type preference of a port mapping whose outside address is private. It leads only into a second
 * NAT.
 */
const INNER_MAPPED_PREFERENCE = 90
/** Type preference of addresses of bridges for containers, which are the same on most hosts. */
const VIRTUAL_PREFERENCE = 60
/** Type preference of loopback addresses. */
const LOOPBACK_PREFERENCE = 1
/**
 * Component id (RFC 8445, section 5.1.2.1). It is RTP's number, because a session has only one
 * component.
 */
const COMPONENT = 1

/**
 * Returns the priority of a candidate. `localPreference` is from 0 to 65535; a higher one comes
 * first among candidates of one kind.
 */
export const priorityOf = (kind: Kind, host: string, localPreference: number, use?: Origin["use"]): number =>
  preferenceOf(kind, host, use) * 2 ** 24 +
  Math.min(Math.max(Math.trunc(localPreference), 0), 65535) * 2 ** 8 +
  (256 - COMPONENT)

const preferenceOf = (kind: Kind, host: string, use: Origin["use"] | undefined): number => {
  if (isLoopback(host)) return LOOPBACK_PREFERENCE
  if (use === "virtual") return VIRTUAL_PREFERENCE
  return kind === "port-mapped" && isPrivate(host) ? INNER_MAPPED_PREFERENCE : TYPE_PREFERENCE[kind]
}

/**
 * Returns the local preference of an address. IPv6 comes first (RFC 8421), because fewer NATs are
 * involved. Within an IP version, the order of the system's list decides.
 */
export const localPreference = (host: string, index: number): number =>
  (familyOf(host) === 6 ? 60_000 : 30_000) - Math.min(Math.max(index, 0), 20_000)

/** Makes a candidate and computes its priority. `index` is its place among those of its kind. */
export const make = (
  kind: Kind,
  address: SocketAddr,
  { index = 0, origin }: { readonly index?: number; readonly origin?: Origin } = {}
): Candidate => {
  const priority = priorityOf(kind, address.host, localPreference(address.host, index), origin?.use)
  return origin === undefined ? { kind, address, priority } : { kind, address, origin, priority }
}

/** Returns the first address of each IP version, IPv4 first. */
export const firstOfEach = (addresses: ReadonlyArray<SocketAddr>): ReadonlyArray<SocketAddr> =>
  [4, 6].flatMap((family) => addresses.find(({ host }) => familyOf(host) === family) ?? [])

/** Returns the IP versions of which the list has a candidate. */
export const familiesOf = (list: ReadonlyArray<Candidate>): ReadonlyArray<4 | 6> =>
  ([4, 6] as const).filter((family) => list.some(({ address }) => familyOf(address.host) === family))

/**
 * Returns the literal hosts that have one of the given IP versions. If there are none, it returns
 * all, because the versions may be wrong.
 */
export const reachable = (hosts: ReadonlyArray<string>, families: ReadonlyArray<4 | 6>): ReadonlyArray<string> => {
  const some = hosts.filter((host) => families.includes(familyOf(host)))
  return some.length > 0 ? some : hosts
}

const scratch = new Uint8Array(16)

/**
 * Returns the one spelling of a literal address (RFC 5952), which is also the kernel's. `null` for
 * other text.
 */
export const canonical = (host: string): string | null => {
  if (host.includes("%")) return null // an address with a zone is valid on one host only
  const length = IpBytes.parse(host, scratch)
  return length === 0 ? null : IpBytes.format(scratch, 0, length)
}

/** Whether this is a loopback address (127/8 or ::1). */
export const isLoopback = (host: string): boolean => {
  const length = IpBytes.parse(host, scratch)
  return length === 4 ? scratch[0] === 127 : length === 16 && isV6Loopback(scratch)
}

/**
 * Whether this is an IPv4 address that is not routed on the internet: private (RFC 1918), or inside
 * a provider's NAT (RFC 6598).
 */
export const isPrivate = (host: string): boolean => {
  if (IpBytes.parse(host, scratch) !== 4) return false
  const [a = 0, b = 0] = scratch
  return a === 10 || (a === 172 && (b & 0xf0) === 16) || (a === 192 && b === 168) || (a === 100 && (b & 0xc0) === 64)
}

/** Whether this is an IPv6 address of one site (fc00::/7, RFC 4193). */
export const isUniqueLocal = (host: string): boolean =>
  IpBytes.parse(host, scratch) === 16 && ((scratch[0] ?? 0) & 0xfe) === 0xfc

const isV6Loopback = (ip: Uint8Array): boolean => ip[15] === 1 && ip.subarray(0, 15).every((byte) => byte === 0)

/**
 * Whether packets to this address can reach one other host. `false` for addresses that are
 * unspecified, multicast, broadcast or reserved, for "this network" (0/8), link-local addresses
 * (they need a zone, and 169.254.169.254 is where clouds keep secrets), IPv4 inside IPv6, and
 * loopback unless `allowLoopback` is set.
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
  // Multicast, link-local and site-local addresses.
  if (a === 0xff || (a === 0xfe && (b & 0xc0) === 0x80) || (a === 0xfe && (b & 0xc0) === 0xc0)) return false
  // ::, ::/96 and ::ffff:0:0/96 are not addresses of hosts, and nothing else in 0::/8 is assigned.
  return a !== 0
}

const portOk = (port: number): boolean => Number.isInteger(port) && port >= 1 && port <= 65535

/**
 * Returns the candidate with its address in canonical spelling and its priority cut to the allowed
 * range. `null` if the address cannot be used. Never throws, whatever the peer sent.
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
 * Returns the part of a list that is worth offering or probing: each usable address once, highest
 * priority first, at most {@link MAX_CANDIDATES}. Never throws, whatever the peer sent.
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

/**
 * Whether loopback addresses are offered. They mean nothing between hosts, so they are offered only
 * if the relay itself was reached by one.
 */
export const allowsLoopback = (relayHost: string): boolean => isLoopback(relayHost)

/**
 * Returns the list without `origin`, which would tell the peer more about this network than it
 * needs.
 */
export const toPeer = (list: ReadonlyArray<Candidate>): ReadonlyArray<Candidate> =>
  list.map(({ address, kind, priority }) => ({ kind, address, priority }))

/** Whether two lists have the same candidates in the same order. */
export const sameList = (a: ReadonlyArray<Candidate>, b: ReadonlyArray<Candidate>): boolean =>
  a.length === b.length &&
  a.every((candidate, i) => {
    const other = b[i]!
    return candidate.kind === other.kind && candidate.priority === other.priority &&
      candidate.address.host === other.address.host && candidate.address.port === other.address.port
  })

/** One local socket and one address of the peer, which are probed together. */
export type Pair = { readonly family: 4 | 6; readonly remote: Candidate; readonly priority: bigint }

/**
 * Returns the priority of a pair (RFC 8445, section 6.1.2.3). `controlling` is the priority of the
 * client's candidate, because the client makes the choice.
 */
export const pairPriority = (controlling: number, controlled: number): bigint =>
  (BigInt(Math.min(controlling, controlled)) << 32n) + 2n * BigInt(Math.max(controlling, controlled)) +
  (controlling > controlled ? 1n : 0n)

/** Returns the bridge addresses of this host, by which only its own containers are reached. */
export const virtualHosts = (list: ReadonlyArray<Candidate>): ReadonlySet<string> =>
  new Set(list.filter(({ origin }) => origin?.use === "virtual").map(({ address }) => address.host))

const NONE: ReadonlySet<string> = new Set()
const isVirtual = ({ priority }: Candidate): boolean => Math.floor(priority / 2 ** 24) === VIRTUAL_PREFERENCE

/**
 * Returns the pairs to probe, best first. All local candidates of an IP version share one socket.
 * After the pruning of RFC 8445, section 6.1.2.4, each remote candidate is therefore in one pair,
 * with the best local candidate of its IP version. Loopback addresses are paired only with each
 * other. A bridge address of the peer that a bridge of this host has, too (`own`), is not probed,
 * because the probes would come to this host itself.
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
