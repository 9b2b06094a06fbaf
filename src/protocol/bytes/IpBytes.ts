/**
 * IP addresses between text and bytes, without a resolver. Text is read as in RFC 4291, section
 * 2.2, and written as in RFC 5952, which is how the kernel writes it.
 */

const DOT = 46
const COLON = 58
const PERCENT = 37

const groups = new Uint16Array(8) // scratch of `parseV6`; nothing here is re-entered

/**
 * Writes the address into `out` (at least 16 bytes) and returns how many bytes it took: 4, 16, or 0
 * for text that is not a literal address. A zone ("%eth0") is ignored. Allocates nothing.
 */
export const parse = (text: string, out: Uint8Array): 0 | 4 | 16 => {
  if (text.length > 64) return 0
  let end = text.length
  let isV6 = false
  for (let i = 0; i < end; i++) {
    const c = text.charCodeAt(i)
    if (c === COLON) isV6 = true
    if (c === PERCENT) end = i
  }
  if (isV6) return parseV6(text, end, out) ? 16 : 0
  return parseV4(text, 0, end, out, 0) ? 4 : 0
}

/** Returns the text of 4 or 16 bytes from `at`. */
export const format = (bytes: Uint8Array, at: number, length: 4 | 16): string => {
  if (length === 4) return `${bytes[at]}.${bytes[at + 1]}.${bytes[at + 2]}.${bytes[at + 3]}`
  const words = Array.from({ length: 8 }, (_, i) => ((bytes[at + 2 * i] ?? 0) << 8) | (bytes[at + 2 * i + 1] ?? 0))
  if (words[5] === 0xffff && words.slice(0, 5).every((w) => w === 0)) return `::ffff:${format(bytes, at + 12, 4)}`
  const gap = longestZeros(words)
  const hex = words.map((w) => w.toString(16))
  if (gap.length < 2) return hex.join(":")
  return `${hex.slice(0, gap.from).join(":")}::${hex.slice(gap.from + gap.length).join(":")}`
}

/** Returns the first of the longest runs of zero words. */
const longestZeros = (words: ReadonlyArray<number>): { from: number; length: number } => {
  let best = { from: 0, length: 0 }
  let from = 0
  for (let i = 0; i <= words.length; i++) {
    if (i < words.length && words[i] === 0) continue
    if (i - from > best.length) best = { from, length: i - from }
    from = i + 1
  }
  return best
}

const parseV4 = (text: string, from: number, end: number, out: Uint8Array, at: number): boolean => {
  let octet = 0
  let digits = 0
  let count = 0
  for (let i = from; i <= end; i++) {
    const c = i < end ? text.charCodeAt(i) : DOT
    if (c === DOT) {
      if (digits === 0 || count === 4) return false
      out[at + count++] = octet
      octet = digits = 0
    } else {
      if (c < 48 || c > 57 || ++digits > 3 || (digits > 1 && octet === 0)) return false
      octet = octet * 10 + c - 48
      if (octet > 255) return false
    }
  }
  return count === 4
}

const hexDigit = (c: number): number =>
  c >= 48 && c <= 57 ? c - 48 : c >= 97 && c <= 102 ? c - 87 : c >= 65 && c <= 70 ? c - 55 : -1

const parseV6 = (text: string, end: number, out: Uint8Array): boolean => {
  let count = 0 // groups read so far
  let gap = -1 // where "::" stands, in groups
  let i = 0
  if (text.charCodeAt(0) === COLON) {
    if (text.charCodeAt(1) !== COLON) return false
    gap = 0
    i = 2
  }
  while (i < end) {
    if (count === 8) return false
    let value = 0
    const from = i
    while (i < end && i - from < 5 && hexDigit(text.charCodeAt(i)) >= 0) {
      value = (value << 4) | hexDigit(text.charCodeAt(i++))
    }
    if (i < end && text.charCodeAt(i) === DOT) { // dotted tail
      if (count > 6 || !parseV4(text, from, end, out, 0)) return false
      groups[count++] = (out[0]! << 8) | out[1]!
      groups[count++] = (out[2]! << 8) | out[3]!
      i = end
      break
    }
    if (i === from || i - from > 4) return false
    groups[count++] = value
    if (i === end) break
    if (text.charCodeAt(i++) !== COLON) return false
    if (i < end && text.charCodeAt(i) === COLON) {
      if (gap >= 0) return false
      gap = count
      i++
    } else if (i === end) return false
  }
  if (gap < 0 ? count !== 8 : count > 7) return false
  const tail = gap < 0 ? 8 : 8 - (count - gap) // where the groups after "::" go
  for (let g = 0; g < 8; g++) {
    const word = gap < 0 || g < gap ? groups[g]! : g < tail ? 0 : groups[g - (8 - count)]!
    out[2 * g] = word >> 8
    out[2 * g + 1] = word & 255
  }
  return true
}
