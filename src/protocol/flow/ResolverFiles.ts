/**
 * Text of a host's resolver files: `resolv.conf(5)`, `hosts(5)` and the `hosts` line of
 * `nsswitch.conf(5)`. Lines that make no sense are skipped, as glibc does.
 */
import * as IpBytes from "../bytes/IpBytes.ts"

export interface Address {
  readonly address: string
  readonly family: 4 | 6
}

/** Settings from `resolv.conf`. */
export interface ResolvConf {
  /** Name servers in the order of the file. */
  readonly servers: ReadonlyArray<string>
  /** Domains that are appended to short names, without dots at either end. */
  readonly search: ReadonlyArray<string>
  /** A name with at least this many dots is asked as it is before the search list is tried. */
  readonly ndots: number
  /** Seconds that one try of one server may take. */
  readonly timeoutSeconds: number
  /** How often each server is tried. */
  readonly attempts: number
}

/** Settings if there is no file. As glibc does, it asks this host. */
const NO_FILE: ResolvConf = { servers: ["127.0.0.1"], search: [], ndots: 1, timeoutSeconds: 5, attempts: 2 }
/** Most servers that are used. glibc uses the first three (MAXNS). */
const MAX_SERVERS = 3
/**
 * Longest search list. glibc had this limit for many years; a longer list only delays names that do
 * not exist.
 */
const MAX_SEARCH = 6
/** Largest `ndots`, as in glibc (RES_MAXNDOTS). */
const MAX_NDOTS = 15

/** Parses `resolv.conf`. `text` is `null` if there is no such file. */
export const parseResolvConf = (text: string | null): ResolvConf => {
  if (text === null) return NO_FILE
  const servers: Array<string> = []
  let { attempts, ndots, search, timeoutSeconds } = NO_FILE
  for (const [key, ...values] of linesOf(text, /[#;].*$/)) {
    if (key === "nameserver" && values[0] !== undefined && familyOf(values[0]) !== null) servers.push(values[0])
    if (key === "search" || key === "domain") {
      search = values.map((domain) => domain.toLowerCase().replace(/^\.+|\.+$/g, "")).filter((domain) => domain !== "")
    }
    if (key !== "options") continue
    for (const option of values) {
      const [name, value] = option.split(":")
      const number = /^\d{1,6}$/.test(value ?? "") ? Number(value) : null
      if (number === null) continue
      if (name === "ndots") ndots = Math.min(number, MAX_NDOTS)
      if (name === "timeout") timeoutSeconds = Math.max(1, number)
      if (name === "attempts") attempts = Math.max(1, number)
    }
  }
  return {
    servers: servers.length === 0 ? NO_FILE.servers : servers.slice(0, MAX_SERVERS),
    search: search.slice(0, MAX_SEARCH),
    ndots,
    timeoutSeconds,
    attempts
  }
}

/** Addresses by name, in lower case and without a dot at the end. */
export type Hosts = ReadonlyMap<string, ReadonlyArray<Address>>

/** Parses `hosts`. `text` is `null` if there is no such file. */
export const parseHosts = (text: string | null): Hosts => {
  const hosts = new Map<string, Array<Address>>()
  for (const [text_, ...names] of linesOf(text ?? "", /#.*$/)) {
    const address = text_ ?? ""
    const family = familyOf(address)
    if (family === null) continue
    for (const name of names) {
      const key = name.toLowerCase().replace(/\.$/, "")
      const known = hosts.get(key) ?? []
      hosts.set(key, known)
      if (!known.some((other) => other.address === address)) known.push({ address, family })
    }
  }
  return hosts
}

/**
 * Returns the sources in the `hosts` line of `nsswitch.conf`, without `files` and `dns`: sallyport
 * reads those two itself and leaves the others to the C library.
 */
export const parseNsswitch = (text: string | null): ReadonlyArray<string> => {
  const line = linesOf(text ?? "", /#.*$/).find(([key]) => key?.toLowerCase() === "hosts:") ?? []
  const words = line.slice(1).join(" ").replace(/\[[^\]]*\]/g, " ").split(/\s+/)
  return words.filter((word) => word !== "" && word !== "files" && word !== "dns")
}

/**
 * Whether only the C library may be able to resolve this name. The system is asked after DNS has
 * answered that the name does not exist. `hostname` is this host's own name, in lower case.
 */
export const isForSystem = (sources: ReadonlyArray<string>, name: string, hostname: string): boolean =>
  sources.some((source) => {
    if (source.startsWith("mdns")) return name.endsWith(".local")
    if (source === "myhostname") return name === hostname || name === "_gateway" || name === "_outbound"
    return true
  })

/**
 * Returns the names to ask DNS for, in order. `name` has no dot at the end; `absolute` means that
 * it had one when it was asked for.
 */
export const candidates = ({ ndots, search }: ResolvConf, name: string, absolute: boolean): ReadonlyArray<string> => {
  if (absolute) return [name]
  const longer = search.map((domain) => `${name}.${domain}`).filter((text) => text.length <= MAX_NAME_CHARS)
  return name.split(".").length - 1 >= ndots ? [name, ...longer] : [...longer, name]
}

/** Longest DNS name, in characters. */
export const MAX_NAME_CHARS = 253

const room = new Uint8Array(16)
const familyOf = (text: string): 4 | 6 | null => {
  const [bare = "", zone] = text.split("%")
  const length = IpBytes.parse(bare, room)
  if (zone !== undefined && length !== 16) return null
  return length === 4 ? 4 : length === 16 ? 6 : null
}

const linesOf = (text: string, comment: RegExp): ReadonlyArray<ReadonlyArray<string>> =>
  text.split("\n").map((line) => line.replace(comment, "").trim().split(/\s+/)).filter(([first]) => first !== "")
