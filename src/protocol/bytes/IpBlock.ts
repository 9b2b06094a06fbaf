/** Blocks of IP addresses, as people list them: one address, or a CIDR. */
import * as IpBytes from "./IpBytes.ts"

/** A block of addresses: those whose first `bits` bits are the same as `ip`'s. */
export interface IpBlock {
  /** Address of 4 or 16 bytes. */
  readonly ip: Uint8Array
  /** Number of leading bits that all addresses of the block share. */
  readonly bits: number
}

/**
 * Returns the 4 or 16 bytes of an address. An IPv4-mapped address gives 4. `null` if the text is
 * not an address, or has a zone.
 */
export const bytesOf = (text: string): Uint8Array | null => {
  const bytes = new Uint8Array(16)
  const length = text.includes("%") ? 0 : IpBytes.parse(text, bytes)
  if (length === 0) return null
  const mapped = length === 16 && bytes[10] === 255 && bytes[11] === 255 && bytes.subarray(0, 10).every((b) => b === 0)
  return mapped ? bytes.slice(12) : bytes.slice(0, length)
}

/** Parses an address or a CIDR. `null` if the text is neither. */
export const parse = (text: string): IpBlock | null => {
  const parts = /^([0-9a-fA-F.:]+)(?:\/(\d{1,3}))?$/.exec(text)
  const ip = parts === null ? null : bytesOf(parts[1]!)
  if (parts === null || ip === null) return null
  const bits = parts[2] === undefined ? ip.length * 8 : Number(parts[2])
  return bits > ip.length * 8 ? null : { ip, bits }
}

/** Whether the block contains the address of 4 or 16 bytes. */
export const holds = ({ bits, ip: prefix }: IpBlock, ip: Uint8Array): boolean => {
  if (prefix.length !== ip.length) return false
  for (let bit = 0; bit < bits; bit += 8) {
    const mask = bits - bit >= 8 ? 255 : 255 << (8 - bits + bit) & 255
    if (((prefix[bit >> 3]! ^ ip[bit >> 3]!) & mask) !== 0) return false
  }
  return true
}

/** Whether one of `blocks` holds the address. `false` if `host` is a name. */
export const anyHolds = (blocks: ReadonlyArray<IpBlock>, host: string): boolean => {
  const ip = bytesOf(host)
  return ip !== null && blocks.some((block) => holds(block, ip))
}
