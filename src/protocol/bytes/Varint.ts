/**
 * Integers of QUIC (RFC 9000, section 16): the two top bits of the first byte say the length, 1, 2,
 * 4 or 8 bytes, big-endian. Integers that we write go up to 2^53-1, which no length, type or
 * identifier that we handle comes near. A peer's may go up to 2^62-1.
 */
const U32 = 2 ** 32

/** Returns the length in bytes of an integer from 0 to 2^53-1. */
export const sizeOf = (value: number): 1 | 2 | 4 | 8 =>
  value < 0x40 ? 1 : value < 0x4000 ? 2 : value < 0x4000_0000 ? 4 : 8

/**
 * Writes an integer from 0 to 2^53-1 and returns the offset after it. Bytes that do not fit `into`
 * are not written.
 */
export const write = (into: Uint8Array, at: number, value: number): number => {
  const size = sizeOf(value)
  let rest = value
  for (let i = size - 1; i >= 0; i--) {
    into[at + i] = rest % 256
    rest = Math.floor(rest / 256)
  }
  into[at] = into[at]! | (Math.log2(size) << 6)
  return at + size
}

/** Encodes an integer from 0 to 2^53-1 (RFC 9000, section 16). */
export const encode = (value: number): Uint8Array => {
  const out = new Uint8Array(sizeOf(value))
  write(out, 0, value)
  return out
}

/** Returns the length of the integer that begins with this byte. */
export const sizeFrom = (firstByte: number): number => 1 << (firstByte >>> 6)

/**
 * Reads an integer. `null` if it is not complete yet. Values above 2^53-1 read as
 * `Number.MAX_SAFE_INTEGER`.
 */
export const read = (bytes: Uint8Array, at: number): { readonly value: number; readonly end: number } | null => {
  const first = bytes[at]
  if (first === undefined) return null
  const end = at + sizeFrom(first)
  if (end > bytes.length) return null
  let value = first & 0x3f
  if (end - at < 8) {
    for (let i = at + 1; i < end; i++) value = value * 256 + bytes[i]!
    return { value, end }
  }
  const high = u32(bytes, at) & 0x3fff_ffff
  return { value: high >= 0x20_0000 ? Number.MAX_SAFE_INTEGER : high * U32 + u32(bytes, at + 4), end }
}

const u32 = (bytes: Uint8Array, at: number): number =>
  ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0
