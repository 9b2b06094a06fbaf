/**
 * To which addresses a TURN server may send for others. Only to public ones, by default: what is private, local or special
 * (IANA's registries of special-purpose addresses), or belongs to the server itself, must be listed.
 */
import * as IpBytes from "./IpBytes.ts"

export interface Block {
  /** 4 or 16. */
  readonly ip: Uint8Array
  readonly bits: number
}

/** 4 or 16 bytes; null for what is no literal address, or has a zone. */
const ipOf = (text: string): Uint8Array | null => {
  const bytes = new Uint8Array(16)
  const length = text.includes("%") ? 0 : IpBytes.parse(text, bytes)
  if (length === 0) return null
  const mapped = length === 16 && bytes[10] === 255 && bytes[11] === 255 && bytes.subarray(0, 10).every((b) => b === 0)
  return mapped ? bytes.slice(12) : bytes.slice(0, length)
}

/** An address or a CIDR; null for text that is neither. */
export const parseBlock = (text: string): Block | null => {
  const parts = /^([0-9a-fA-F.:]+)(?:\/(\d{1,3}))?$/.exec(text)
  const ip = parts === null ? null : ipOf(parts[1]!)
  if (parts === null || ip === null) return null
  const bits = parts[2] === undefined ? ip.length * 8 : Number(parts[2])
  return bits > ip.length * 8 ? null : { ip, bits }
}

/** Whether the text is one address, or a CIDR that holds one only. */
export const isSingle = (text: string): boolean => {
  const block = parseBlock(text)
  return block !== null && block.bits === block.ip.length * 8
}

/** A copy in one notation, so that texts can be compared: an IPv4-mapped address is the IPv4 address. Null: no address. */
export const canonical = (host: string): string | null => {
  const ip = ipOf(host)
  return ip === null ? null : IpBytes.format(ip, 0, ip.length === 4 ? 4 : 16)
}

/** What one customer usually holds: an IPv4 address, or a /64. */
export const prefix = (host: string): string => {
  const ip = ipOf(host)
  if (ip === null) return host
  if (ip.length === 4) return IpBytes.format(ip, 0, 4)
  return IpBytes.format(ip.fill(0, 8), 0, 16)
}

const SPECIAL = [
  ["0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"],
  ["192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"],
  ["224.0.0.0/4", "240.0.0.0/4"],
  // IPv6 outside 2000::/3 is not public; within it: protocol assignments and Teredo, documentation, 6to4 (leads to any IPv4).
  ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"]
].flat().map((text) => parseBlock(text)!)
const GLOBAL_V6 = parseBlock("2000::/3")!

/** A listed block permits what it holds, but of the server's `own` addresses only one that is listed by itself. */
export const make = (options: { readonly allowed: ReadonlyArray<string>; readonly own: ReadonlyArray<string> }) => {
  const allowed = options.allowed.map(parseBlock).filter((block) => block !== null)
  const own = new Set(options.own.map(canonical))
  return (host: string): boolean => {
    const ip = ipOf(host)
    if (ip === null) return false
    const isOwn = own.has(IpBytes.format(ip, 0, ip.length === 4 ? 4 : 16))
    if (allowed.some((block) => holds(block, ip) && (!isOwn || block.bits === ip.length * 8))) return true
    return !isOwn && !SPECIAL.some((block) => holds(block, ip)) && (ip.length === 4 || holds(GLOBAL_V6, ip))
  }
}

const holds = ({ bits, ip: prefix }: Block, ip: Uint8Array): boolean => {
  if (prefix.length !== ip.length) return false
  for (let bit = 0; bit < bits; bit += 8) {
    const mask = bits - bit >= 8 ? 255 : 255 << (8 - bits + bit) & 255
    if (((prefix[bit >> 3]! ^ ip[bit >> 3]!) & mask) !== 0) return false
  }
  return true
}
