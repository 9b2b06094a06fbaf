/**
 * Finds the resources that a requested host may mean. Access is the sum of what is allowed: every
 * resource that matches may permit a port, and the most specific of those that do decides what is
 * dialled.
 */
import * as HostName from "../bytes/HostName.ts"
import * as IpBytes from "../bytes/IpBytes.ts"
import type { Resource } from "./Documents.ts"

export type Protocol = "tcp" | "udp"

/** A resource that a host may mean. */
export interface Match {
  readonly resource: Resource
  /**
   * Host that the connector dials: the resource's address, or the requested host if the address is
   * a pattern.
   */
  readonly dialHost: string
  /** Higher is more specific. */
  readonly rank: number
}

const NAME_RANK = 4000
const ADDRESS_RANK = 3000
const WILDCARD_RANK = 2000 // plus the length of the suffix
const CIDR_RANK = 1000 // plus the bits of the prefix

/**
 * Returns every resource that the host may mean, most specific first. Equal ones keep their order.
 * Never throws.
 */
export const matches = (resources: ReadonlyArray<Resource>, host: string): ReadonlyArray<Match> => {
  const wanted = normalize(host)
  if (wanted === null) return []
  return resources
    .map((resource) => matchOne(resource, wanted))
    .filter((match) => match !== null)
    .toSorted((left, right) => right.rank - left.rank)
}

/**
 * Returns the most specific match that lists the port. `matches` distinguishes an unknown host from
 * an unlisted port.
 */
export const find = (
  resources: ReadonlyArray<Resource>,
  host: string,
  protocol: Protocol,
  port: number
): Match | undefined => matches(resources, host).find(({ resource }) => listsPort(resource, protocol, port))

/** Whether a resource permits the port. */
export const listsPort = (resource: Resource, protocol: Protocol, port: number): boolean =>
  Number.isInteger(port) && resource[protocol].some(({ from, to }) => from <= port && port <= to)

interface Wanted {
  /** The host in lower case, as A-labels, without a dot at the end. */
  readonly name: string
  /**
   * Whether there was a dot at the end. The connector's search list is not used for such a name.
   */
  readonly absolute: boolean
  /**
   * 4 or 16 bytes of an IP literal, `null` for a name. An IPv4-mapped IPv6 address counts as the
   * IPv4 address that it reaches.
   */
  readonly ip: Uint8Array | null
}

const normalize = (host: string): Wanted | null => {
  const bare = host.startsWith("[") && host.endsWith("]") ? host.slice(1, -1) : host
  // A zone names an interface of another machine.
  if (bare === "" || bare.length > 255 || bare.includes("%")) return null
  const ascii = HostName.toAscii(bare)?.toLowerCase()
  if (ascii === undefined) return null
  const name = ascii.replace(/(?<=[^.])\.$/, "")
  return { name, absolute: name !== ascii, ip: ipOf(name) }
}

const ipOf = (text: string): Uint8Array | null => {
  const bytes = new Uint8Array(16)
  const length = IpBytes.parse(text, bytes)
  if (length === 0) return null
  const mapped = length === 16 && bytes.subarray(0, 10).every((byte) => byte === 0) && bytes[10] === 255 &&
    bytes[11] === 255
  return mapped ? bytes.slice(12) : bytes.slice(0, length)
}

const matchOne = (resource: Resource, wanted: Wanted): Match | null => {
  const address = resource.address.toLowerCase()
  if (wanted.ip === null && resource.name === wanted.name) {
    return { resource, dialHost: resource.address, rank: NAME_RANK }
  }
  if (address.includes("/")) return matchCidr(resource, address, wanted)
  if (address.startsWith("*.")) {
    const suffix = address.slice(1).replace(/\.$/, "")
    const fits = wanted.ip === null && wanted.name.endsWith(suffix) && isName(wanted.name)
    const dot = wanted.absolute || address.endsWith(".") ? "." : ""
    return fits ? { resource, dialHost: `${wanted.name}${dot}`, rank: WILDCARD_RANK + suffix.length } : null
  }
  const known = normalize(address)
  const same = known !== null && (known.ip === null || wanted.ip === null
    ? known.ip === wanted.ip && known.name === wanted.name
    : equalBits(known.ip, wanted.ip, known.ip.length * 8))
  return same ? { resource, dialHost: resource.address, rank: ADDRESS_RANK } : null
}

const matchCidr = (resource: Resource, cidr: string, wanted: Wanted): Match | null => {
  const parts = /^([0-9a-f.:]+)\/(\d{1,3})$/.exec(cidr)
  const base = ipOf(parts?.[1] ?? "")
  const bits = Number(parts?.[2])
  if (wanted.ip === null || base === null || bits > base.length * 8 || !equalBits(base, wanted.ip, bits)) return null
  return { resource, dialHost: IpBytes.format(wanted.ip, 0, wanted.ip.length === 4 ? 4 : 16), rank: CIDR_RANK + bits }
}

const equalBits = (left: Uint8Array, right: Uint8Array, bits: number): boolean => {
  if (left.length !== right.length) return false
  const whole = bits >> 3
  for (let at = 0; at < whole; at++) if (left[at] !== right[at]) return false
  const mask = (0xff00 >> (bits & 7)) & 255
  return ((left[whole] ?? 0) & mask) === ((right[whole] ?? 0) & mask)
}

/**
 * Whether the labels consist of letters, digits, "-" and "_" only. A wildcard must not pass on
 * anything that a resolver could read in another way.
 */
const isName = (text: string): boolean => text.split(".").every((label) => /^[a-z0-9_-]{1,63}$/.test(label))
