/**
 * Addresses to which a TURN server may send for others. By default only public ones are permitted.
 * An address that is private, local or special (IANA's registries of special-purpose addresses), or
 * belongs to the server itself, must be listed.
 */
import * as IpBlock from "../bytes/IpBlock.ts"
import * as IpBytes from "../bytes/IpBytes.ts"

/** Whether the text is one address, or a CIDR that contains only one. */
export const isSingle = (text: string): boolean => {
  const block = IpBlock.parse(text)
  return block !== null && block.bits === block.ip.length * 8
}

/**
 * Returns the address in one notation, so that texts can be compared. An IPv4-mapped address
 * becomes the IPv4 address. `null` if the text is not an address.
 */
export const canonical = (host: string): string | null => {
  const ip = IpBlock.bytesOf(host)
  return ip === null ? null : IpBytes.format(ip, 0, ip.length === 4 ? 4 : 16)
}

/** Returns the address block that one customer usually holds: an IPv4 address, or a /64. */
export const prefix = (host: string): string => {
  const ip = IpBlock.bytesOf(host)
  if (ip === null) return host
  if (ip.length === 4) return IpBytes.format(ip, 0, 4)
  return IpBytes.format(ip.fill(0, 8), 0, 16)
}

const SPECIAL = [
  ["0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"],
  ["192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"],
  ["224.0.0.0/4", "240.0.0.0/4"],
  // IPv6 outside 2000::/3 is not public. Inside it, these are not: protocol assignments and Teredo,
  // documentation, 6to4 (leads to any IPv4).
  ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"]
].flat().map((text) => IpBlock.parse(text)!)
const GLOBAL_V6 = IpBlock.parse("2000::/3")!

/**
 * Makes the check whether the server may send to an address. A block in `allowed` permits the
 * addresses in it. One of the server's `own` addresses is permitted only if it is listed by itself.
 */
export const make = (options: { readonly allowed: ReadonlyArray<string>; readonly own: ReadonlyArray<string> }) => {
  const allowed = options.allowed.map(IpBlock.parse).filter((block) => block !== null)
  const own = new Set(options.own.map(canonical))
  return (host: string): boolean => {
    const ip = IpBlock.bytesOf(host)
    if (ip === null) return false
    const isOwn = own.has(IpBytes.format(ip, 0, ip.length === 4 ? 4 : 16))
    if (allowed.some((block) => IpBlock.holds(block, ip) && (!isOwn || block.bits === ip.length * 8))) return true
    return !isOwn && !SPECIAL.some((block) => IpBlock.holds(block, ip)) &&
      (ip.length === 4 || IpBlock.holds(GLOBAL_V6, ip))
  }
}
