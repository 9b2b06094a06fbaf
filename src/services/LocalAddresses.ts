/**
 * The addresses of this machine. The system tells them by netlink (`os.networkInterfaces`). Where netlink is refused, as by
 * `RestrictAddressFamilies` of a systemd unit, Linux also shows them in `/proc/net`.
 */
import { readFileSync } from "node:fs"
import { type NetworkInterfaceInfo, networkInterfaces } from "node:os"
import * as IpBytes from "../protocol/IpBytes.ts"

export type Interfaces = NodeJS.Dict<Array<NetworkInterfaceInfo>>
/** `unseen`: neither way works, so nothing is known about this machine's addresses. */
export type Source = "netlink" | "proc" | "unseen"
export interface Seen {
  readonly interfaces: Interfaces
  readonly source: Source
}

/** How the system is asked. Tests replace it. */
export interface Ways {
  readonly netlink: () => Interfaces
  /** The text of a file; throws if there is none. */
  readonly file: (path: string) => string
}

const SYSTEM: Ways = { netlink: networkInterfaces, file: (path) => readFileSync(path, "utf8") }

/** Never throws. Reading costs about 60 µs on a machine with few interfaces. */
export const see = (ways: Ways = SYSTEM): Seen => {
  try {
    return { interfaces: ways.netlink(), source: "netlink" }
  } catch {
    const interfaces = fromProc(ways.file)
    return interfaces === null ? { interfaces: {}, source: "unseen" } : { interfaces, source: "proc" }
  }
}

/** As `os.networkInterfaces`, but from `/proc/net` where netlink is refused. Throws where nothing can be seen. */
export const interfaces = (): Interfaces => {
  const seen = see()
  return seen.source === "unseen" ? networkInterfaces() : seen.interfaces
}

/** The interface of an IPv4 address is not told there. */
const UNKNOWN_INTERFACE = "ipv4"
/** Flags of `/proc/net/if_inet6`: the address cannot be bound yet, or another host has it. */
const DAD_FAILED = 0x08
const TENTATIVE = 0x40

const fromProc = (file: Ways["file"]): Interfaces | null => {
  const texts = ["/proc/net/fib_trie", "/proc/net/if_inet6"].map((path) => {
    try {
      return file(path)
    } catch {
      return null
    }
  })
  if (texts[0] === null) return null
  const found: Interfaces = {}
  const add = (name: string, address: string, family: "IPv4" | "IPv6", internal: boolean, scopeid = 0) => {
    const common = { address, netmask: "", mac: "", internal, cidr: null }
    ;(found[name] ??= []).push(family === "IPv4" ? { ...common, family } : { ...common, family, scopeid })
  }
  for (const host of new Set(localOfTrie(texts[0] ?? ""))) {
    const internal = host.startsWith("127.")
    add(internal ? "lo" : UNKNOWN_INTERFACE, host, "IPv4", internal)
  }
  for (const line of (texts[1] ?? "").split("\n")) {
    const [hex = "", index = "", , , flags = "", name = ""] = line.trim().split(/\s+/)
    const bytes = Uint8Array.from(hex.match(/../g) ?? [], (two) => Number.parseInt(two, 16))
    if (bytes.length !== 16 || (Number.parseInt(flags, 16) & (DAD_FAILED | TENTATIVE)) !== 0) continue
    add(name, IpBytes.format(bytes, 0, 16), "IPv6", name === "lo", Number.parseInt(index, 16))
  }
  return found
}

/** An address stands before the line that says it is this host's: `|-- 192.0.2.1`, then `/32 host LOCAL`. */
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
