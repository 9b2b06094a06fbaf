/**
 * Choice of the addresses of this host that are offered to peers. A list holds
 * `Candidate.MAX_CANDIDATES`, and hosts with containers, virtual machines or temporary IPv6
 * addresses have more addresses than that. The addresses by which strangers most likely reach this
 * host come first, and the others share the rest by budgets.
 */
import * as IpBytes from "../bytes/IpBytes.ts"
import { familyOf } from "../bytes/SocketAddr.ts"
import * as Candidate from "./Candidate.ts"
import type { Use } from "./InterfaceUse.ts"

/**
 * Most reflexive addresses in one list. A symmetric NAT gives a different one for each STUN server,
 * and two of them tell as much as ten.
 */
export const MAX_REFLEXIVE = 4
/** Most addresses of interfaces that the configuration prefers. */
export const MAX_PREFERRED = 4
/**
 * Most public IPv6 addresses beside the one that packets to the internet leave with. This host
 * sends with that one, whichever address the peer tries.
 */
export const MAX_IPV6 = 4
/**
 * Most IPv6 addresses in one /64. They share one interface, which has a stable and a temporary one.
 */
export const MAX_IN_PREFIX = 2
/**
 * Most addresses of bridges for containers and virtual machines, which other hosts seldom reach.
 */
export const MAX_VIRTUAL = 2
/** Most addresses that are reported as left out. A host may have hundreds. */
export const MAX_LEFT_OUT = 64

/** Result of {@link choose}. */
export type Choice = {
  /** Addresses to offer, highest priority first, at most `Candidate.MAX_CANDIDATES`. */
  readonly candidates: ReadonlyArray<Candidate.Candidate>
  /** Usable addresses of this host that are not offered, at most `MAX_LEFT_OUT`. */
  readonly leftOut: ReadonlyArray<Candidate.Candidate>
}

type Group = "outward" | "static" | "reflexive" | "mapped" | "preferred" | "ipv6" | "lan" | "loopback" | "virtual"

/** Groups of addresses, best first, each with the most addresses that it may have. */
const GROUPS: ReadonlyArray<readonly [Group, number]> = [
  ["outward", Candidate.MAX_CANDIDATES],
  ["static", Candidate.MAX_CANDIDATES],
  ["reflexive", MAX_REFLEXIVE],
  ["mapped", Candidate.MAX_CANDIDATES],
  ["preferred", MAX_PREFERRED],
  ["ipv6", MAX_IPV6],
  ["lan", Candidate.MAX_CANDIDATES],
  ["loopback", Candidate.MAX_CANDIDATES],
  ["virtual", MAX_VIRTUAL]
]

/**
 * Chooses the addresses to offer. Within a group the order of `found` counts, but both IP versions
 * have their first address before either has its second.
 */
export const choose = (
  found: ReadonlyArray<Candidate.Candidate>,
  options: { readonly allowLoopback: boolean }
): Choice => {
  const groups = new Map<Group, Array<Candidate.Candidate>>()
  const leftOut: Array<Candidate.Candidate> = []
  for (const candidate of found) {
    const clean = Candidate.clean(candidate, options)
    if (clean === null) continue
    const group = groupOf(clean)
    if (group === null) leftOut.push(clean)
    else groups.set(group, [...groups.get(group) ?? [], clean])
  }
  const chosen = new Map<string, Candidate.Candidate>()
  const inPrefix = new Map<string, number>()
  for (const [group, most] of GROUPS) {
    let count = 0
    for (const candidate of inTurns(groups.get(group) ?? [])) {
      const key = keyOf(candidate)
      const before = chosen.get(key)
      if (before !== undefined) {
        // A STUN server saw one of this host's own addresses: there is no NAT, and it is a host
        // candidate.
        if (before.priority < candidate.priority) chosen.set(key, candidate)
        continue
      }
      const prefix = prefixOf(candidate.address.host)
      const crowded = group === "ipv6" && (inPrefix.get(prefix) ?? 0) >= MAX_IN_PREFIX
      if (crowded || count >= most || chosen.size >= Candidate.MAX_CANDIDATES) {
        leftOut.push(candidate)
        continue
      }
      count++
      chosen.set(key, candidate)
      inPrefix.set(prefix, (inPrefix.get(prefix) ?? 0) + 1)
    }
  }
  return {
    candidates: Candidate.accept([...chosen.values()], options),
    leftOut: leftOut.filter((candidate) => !chosen.has(keyOf(candidate))).slice(0, MAX_LEFT_OUT)
  }
}

const keyOf = ({ address }: Candidate.Candidate): string => `${address.host}|${address.port}`

const BY_USE: Record<Use, Group | null> = {
  outward: "outward",
  preferred: "preferred",
  lan: "lan",
  loopback: "loopback",
  virtual: "virtual",
  tunnel: null,
  excluded: null
}

/** Returns the group of a candidate. `null` if it is not offered at all. */
const groupOf = ({ address: { host }, kind, origin }: Candidate.Candidate): Group | null => {
  if (kind === "srflx" || kind === "prflx") return "reflexive"
  if (kind === "port-mapped") return origin?.use === "static" ? "static" : "mapped"
  const group = origin === undefined || origin.use === "static" ? "lan" : BY_USE[origin.use]
  return group === "lan" && familyOf(host) === 6 && !Candidate.isUniqueLocal(host) ? "ipv6" : group
}

/** Returns the first address of each IP version, then all others in their order. */
const inTurns = (list: ReadonlyArray<Candidate.Candidate>): ReadonlyArray<Candidate.Candidate> => {
  const first = ([4, 6] as const).flatMap((family) =>
    list.find(({ address }) => familyOf(address.host) === family) ?? []
  )
  return [...first, ...list.filter((candidate) => !first.includes(candidate))]
}

const scratch = new Uint8Array(16)
/** The /64 of an IPv6 address. An IPv4 address stands for itself. */
const prefixOf = (host: string): string =>
  IpBytes.parse(host, scratch) === 16 ? IpBytes.format(scratch.fill(0, 8), 0, 16) : host
