/** Writes the few parts of DER (ITU-T X.690) that a certificate needs. Each function gives one whole element. */

type Bytes = Uint8Array

const concat = (parts: ReadonlyArray<Bytes>): Bytes => {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}

/** `content` has less than 65,536 bytes. */
export const element = (tag: number, ...content: ReadonlyArray<Bytes>): Bytes => {
  const body = concat(content)
  const { length } = body
  const head = length < 128
    ? [tag, length]
    : length < 256
    ? [tag, 0x81, length]
    : [tag, 0x82, length >> 8, length & 255]
  return concat([Uint8Array.from(head), body])
}

export const sequence = (...items: ReadonlyArray<Bytes>): Bytes => element(0x30, ...items)
export const set = (...items: ReadonlyArray<Bytes>): Bytes => element(0x31, ...items)
/** `[tag] EXPLICIT`. */
export const explicit = (tag: number, content: Bytes): Bytes => element(0xa0 | tag, content)
/** `[tag] IMPLICIT` of a primitive type. */
export const implicit = (tag: number, content: Bytes): Bytes => element(0x80 | tag, content)

/** Big-endian and positive; the first bit of `magnitude` may be set. */
export const integer = (magnitude: Bytes): Bytes => {
  const from = magnitude.findIndex((byte) => byte !== 0)
  const bytes = from === -1 ? Uint8Array.of(0) : magnitude.subarray(from)
  return element(0x02, (bytes[0] ?? 0) > 127 ? Uint8Array.of(0) : Uint8Array.of(), bytes)
}

export const boolean = (value: boolean): Bytes => element(0x01, Uint8Array.of(value ? 255 : 0))
export const octets = (content: Bytes): Bytes => element(0x04, content)
/** Whole bytes unless `unused` of the last one's bits do not count. */
export const bits = (content: Bytes, unused = 0): Bytes => element(0x03, Uint8Array.of(unused), content)
export const utf8 = (text: string): Bytes => element(0x0c, new TextEncoder().encode(text))

/** "2.5.29.17" and the like. */
export const oid = (dotted: string): Bytes => {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number)
  return element(0x06, Uint8Array.from([first * 40 + second, ...rest.flatMap(base128)]))
}

const base128 = (value: number): Array<number> => {
  const groups = [value & 127]
  for (let left = value >>> 7; left > 0; left >>>= 7) groups.unshift((left & 127) | 128)
  return groups
}

/** Of an ISO 8601 text in UTC; UTCTime before 2050, GeneralizedTime after (RFC 5280, section 4.1.2.5). */
export const time = (iso: string): Bytes => {
  const digits = `${iso.slice(0, 19).replace(/\D/g, "")}Z`
  return Number(iso.slice(0, 4)) < 2050
    ? element(0x17, new TextEncoder().encode(digits.slice(2)))
    : element(0x18, new TextEncoder().encode(digits))
}
