/**
 * Checks a MessagePack message before it is decoded.
 *
 * The decoder allocates an array of whatever length a message claims (33 million entries from five
 * bytes). It also supports extensions that build regular expressions, errors, sets and shared
 * references. A message passes if the lengths it claims fit into its own length, and its only
 * extensions are `undefined` and timestamps.
 */

/**
 * Bytes that follow the token, for the tokens 0xc0 to 0xd8. -1: refused. -2: a length field
 * follows.
 */
const FIXED: ReadonlyArray<number> = [
  0,
  -1,
  0,
  0,
  -2,
  -2,
  -2,
  -1,
  -1,
  -1,
  4,
  8,
  1,
  2,
  4,
  8,
  1,
  2,
  4,
  8,
  2,
  -1,
  5,
  9,
  -1
]
const UNDEFINED_EXTENSION = 0
const TIMESTAMP_EXTENSION = 0xff

/** Whether `bytes` is exactly one MessagePack value. Takes linear time and stores nothing. */
export const isOneValue = (bytes: Uint8Array): boolean => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  let at = 0
  let needed = 1 // values still expected: each takes at least one byte
  while (needed > 0) {
    if (needed > bytes.length - at) return false
    const token = bytes[at++]!
    needed--
    if (token < 0x80 || token >= 0xe0) continue // small integers
    if (token < 0x90) needed += 2 * (token & 15)
    else if (token < 0xa0) needed += token & 15
    else if (token < 0xc0) at += token & 31
    else if (token >= 0xdc) {
      const wide = (token & 1) === 1
      if (at + (wide ? 4 : 2) > bytes.length) return false
      needed += (token >= 0xde ? 2 : 1) * (wide ? view.getUint32(at) : view.getUint16(at))
      at += wide ? 4 : 2
    } else {
      const skip = skipOf(token, view, at)
      if (skip < 0) return false
      at += skip
    }
    if (at > bytes.length) return false
  }
  return at === bytes.length
}

/** Bytes that follow the token of a scalar, a string or binary data. -1 if it is refused. */
const skipOf = (token: number, view: DataView, at: number): number => {
  const left = view.byteLength - at
  const fixed = FIXED[token - 0xc0] ?? -2
  if (fixed !== -2) {
    if (token < 0xd4 || fixed === -1) return fixed
    const type = left > 0 ? view.getUint8(at) : -1
    return type === TIMESTAMP_EXTENSION || (token === 0xd4 && type === UNDEFINED_EXTENSION) ? fixed : -1
  }
  const size = token === 0xc4 || token === 0xd9 ? 1 : token === 0xc5 || token === 0xda ? 2 : 4
  if (left < size) return -1
  return size + (size === 1 ? view.getUint8(at) : size === 2 ? view.getUint16(at) : view.getUint32(at))
}
