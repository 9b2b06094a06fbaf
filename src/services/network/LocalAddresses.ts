/**
 * The addresses of this machine. The system reports them by netlink (`os.networkInterfaces`). If
 * netlink is forbidden, as by `RestrictAddressFamilies` in a systemd unit, Linux still shows them
 * in `/proc/net`.
 */
import { readFileSync } from "node:fs"
import { type NetworkInterfaceInfo, networkInterfaces } from "node:os"
import * as IpBytes from "../../protocol/bytes/IpBytes.ts"

/** Addresses by interface name, as `os.networkInterfaces` returns them. */
export type Interfaces = NodeJS.Dict<Array<NetworkInterfaceInfo>>
/**
 * How the addresses were read. `unseen`: neither way works, so nothing is known about this
 * machine's addresses.
 */
export type Source = "netlink" | "proc" | "unseen"
/** Addresses that were found, and how they were read. */
export interface Seen {
  readonly interfaces: Interfaces
  readonly source: Source
}

/** Functions that read from the system. Tests replace them. */
export interface Ways {
  readonly netlink: () => Interfaces
  /** Returns the text of a file. Throws if there is none. */
  readonly file: (path: string) => string
}

const SYSTEM: Ways = { netlink: networkInterfaces, file: (path) => readFileSync(path, "utf8") }

/**
 * Reads this machine's addresses. Never throws. It takes about 60 µs on a machine with few
 * interfaces.
 */
export const see = (ways: Ways = SYSTEM): Seen => {
  try {
    return { interfaces: ways.netlink(), source: "netlink" }
  } catch {
    const interfaces = fromProc(ways.file)
    return interfaces === null ? { interfaces: {}, source: "unseen" } : { interfaces, source: "proc" }
  }
}

/**
 * Returns the addresses by interface, as `os.networkInterfaces` does. If netlink is forbidden, it
 * reads `/proc/net`. It leaves out IPv6 addresses that cannot be used: those whose duplicate
 * detection has not ended, or has found a duplicate. Throws if neither way works.
 */
export const interfaces = (ways: Ways = SYSTEM): Interfaces => {
  const { interfaces, source } = see(ways)
  if (source === "unseen") return ways.netlink()
  return source === "netlink" && hasGlobalIpv6(interfaces) ? withoutUnusable(interfaces, ways.file) : interfaces
}

const hasGlobalIpv6 = (interfaces: Interfaces): boolean =>
  Object.values(interfaces).some((infos) =>
    infos?.some(({ address, family, internal }) => family === "IPv6" && !internal && !address.startsWith("fe80:"))
  )

const withoutUnusable = (interfaces: Interfaces, file: Ways["file"]): Interfaces => {
  const text = textOf(file, INET6)
  if (text === null) return interfaces
  const unusable = new Set(inet6Of(text).filter(({ usable }) => !usable).map(({ address }) => address))
  if (unusable.size === 0) return interfaces
  return Object.fromEntries(
    Object.entries(interfaces).map(([name, infos]) => [name, infos?.filter(({ address }) => !unusable.has(address))])
  )
}

/** Stands for the interface of an IPv4 address, which `/proc/net/fib_trie` does not name. */
const UNKNOWN_INTERFACE = "ipv4"
/** Flag in `/proc/net/if_inet6`: another host has this address, so it cannot be used. */
const DAD_FAILED = 0x08
/**
 * Flag in `/proc/net/if_inet6`: duplicate detection is still running, so the address cannot be
 * bound yet.
 */
const TENTATIVE = 0x40

const INET6 = "/proc/net/if_inet6"

const textOf = (file: Ways["file"], path: string): string | null => {
  try {
    return file(path)
  } catch {
    return null
  }
}

/** Parses `/proc/net/if_inet6`. */
const inet6Of = (text: string) =>
  text.split("\n").flatMap((line) => {
    const [hex = "", index = "", , , flags = "", name = ""] = line.trim().split(/\s+/)
    const bytes = Uint8Array.from(hex.match(/../g) ?? [], (two) => Number.parseInt(two, 16))
    if (bytes.length !== 16) return []
    const usable = (Number.parseInt(flags, 16) & (DAD_FAILED | TENTATIVE)) === 0
    return [{ name, address: IpBytes.format(bytes, 0, 16), scopeid: Number.parseInt(index, 16), usable }]
  })

const fromProc = (file: Ways["file"]): Interfaces | null => {
  const trie = textOf(file, "/proc/net/fib_trie")
  if (trie === null) return null
  const found: Interfaces = {}
  const add = (name: string, address: string, family: "IPv4" | "IPv6", internal: boolean, scopeid = 0) => {
    const common = { address, netmask: "", mac: "", internal, cidr: null }
    ;(found[name] ??= []).push(family === "IPv4" ? { ...common, family } : { ...common, family, scopeid })
  }
  for (const host of new Set(localOfTrie(trie))) {
    const internal = host.startsWith("127.")
    add(internal ? "lo" : UNKNOWN_INTERFACE, host, "IPv4", internal)
  }
  for (const { address, name, scopeid, usable } of inet6Of(textOf(file, INET6) ?? "")) {
    if (usable) add(name, address, "IPv6", name === "lo", scopeid)
  }
  return found
}

/**
 * Finds this host's addresses in `/proc/net/fib_trie`. An address is on the line before the one
 * that marks it as local: `|-- 192.0.2.1`, then `/32 host LOCAL`.
 */
const localOfTrie = (text: string): ReadonlyArray<string> => {
  const found: Array<string> = []
  let last = ""
  for (const line of text.split("\n")) {
    const address = /\|-- (\d+\.\d+\.\d+\.\d+)/.exec(line)?.[1]
    if (address !== undefined) last = address
    else if (line.includes("/32 host LOCAL") && last !== "") found.push(last)
  }
  return found
}
