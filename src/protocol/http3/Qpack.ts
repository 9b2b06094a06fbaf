/**
 * Field sections of HTTP/3 (QPACK, RFC 9204) with the static table only. We announce a dynamic
 * table of 0 bytes, so that a peer may refer to nothing else, and no section waits for another
 * stream. Names and values are strings of bytes (Latin-1).
 */
import { Either } from "effect"
import * as Http3 from "./Http3.ts"
import * as Huffman from "./Huffman.ts"

type Field = readonly [string, string]

// RFC 9204, section 4.5: the first bits of a field line, above its first integer.
const INDEXED = 0x80
const NAME_REFERENCE = 0x40
const LITERAL_NAME = 0x20
const STATIC_INDEXED = 0x40
const STATIC_NAME = 0x10
const HUFFMAN_NAME = 0x08
const HUFFMAN_VALUE = 0x80
const NEGATIVE_BASE = 0x80

/** Bytes that each field adds to the size of a section (RFC 9114, section 4.2.2). */
const FIELD_OVERHEAD_BYTES = 32
/** Instruction that sets the dynamic table's capacity to 0 (RFC 9204, section 4.3.1). */
const SET_CAPACITY_TO_ZERO = 0x20
/**
 * Most continuation bytes of an integer. 62 bits take no more (RFC 9204, section 4.1.1), so further
 * ones could only be padding.
 */
const MAX_CONTINUATION_BYTES = 9
/**
 * Stands for a character that is not Latin-1: "?". Cut to a byte, the character could become a line
 * break.
 */
const NOT_LATIN1 = 0x3f

/**
 * Encodes fields as references to the static table if it has the field or its name, and otherwise
 * as literals without Huffman.
 */
export const encode = (fields: ReadonlyArray<Field>): Uint8Array => {
  const out = [0, 0] // Required Insert Count and Base: no reference to the dynamic table
  for (const [name, value] of fields) {
    const indexed = INDEX_OF_FIELD.get(fieldKey(name, value))
    const named = INDEX_OF_NAME.get(name)
    if (indexed !== undefined) {
      pushInteger(out, INDEXED | STATIC_INDEXED, 6, indexed)
    } else {
      if (named !== undefined) pushInteger(out, NAME_REFERENCE | STATIC_NAME, 4, named)
      else pushText(out, LITERAL_NAME, 3, name)
      pushText(out, 0, 7, value)
    }
  }
  return Uint8Array.from(out)
}

/**
 * Decodes one whole field section. A section whose size (RFC 9114, section 4.2.2) is above
 * `maxBytes` is a fault of its own: `excessiveLoad`.
 */
export const decode = (
  bytes: Uint8Array,
  maxBytes: number
): Either.Either<ReadonlyArray<Field>, Http3.Http3Fault> => {
  const count = readInteger(bytes, 0, 8)
  const base = count === null ? null : readInteger(bytes, count.end, 7)
  if (count === null || base === null) return failed("a field section without its prefix")
  // RFC 9204, section 4.5.1.2: with nothing inserted a negative base is invalid, and any other has
  // no meaning.
  if (count.value !== 0 || (bytes[count.end]! & NEGATIVE_BASE) !== 0) return failed("a dynamic table is required")
  const fields: Array<Field> = []
  let size = 0
  let at = base.end
  while (at < bytes.length) {
    const line = readLine(bytes, at)
    if (typeof line === "string") return failed(line)
    size += line.field[0].length + line.field[1].length + FIELD_OVERHEAD_BYTES
    if (size > maxBytes) {
      return Either.left(Http3.fault(Http3.ErrorCode.excessiveLoad, `a field section over ${maxBytes} bytes`))
    }
    fields.push(line.field)
    at = line.end
  }
  return Either.right(fields)
}

/**
 * Checks a piece of the peer's encoder stream. It may only say that the table's capacity is 0.
 * `null` if the piece is valid.
 */
export const encoderStreamFault = (bytes: Uint8Array): Http3.Http3Fault | null =>
  bytes.every((byte) => byte === SET_CAPACITY_TO_ZERO)
    ? null
    : Http3.fault(Http3.ErrorCode.qpackEncoderStream, "an insertion into a dynamic table of 0 bytes")

const failed = (message: string): Either.Either<never, Http3.Http3Fault> =>
  Either.left(Http3.fault(Http3.ErrorCode.qpackDecompression, message))

// --- Decoding

/** Reads a field line, or returns why there is none. */
const readLine = (bytes: Uint8Array, at: number): { readonly field: Field; readonly end: number } | string => {
  const first = bytes[at]!
  if ((first & INDEXED) !== 0) {
    const index = readInteger(bytes, at, 6)
    if (index === null) return CUT
    if ((first & STATIC_INDEXED) === 0) return DYNAMIC
    const field = STATIC_TABLE[index.value]
    return field === undefined ? BEYOND : { field, end: index.end }
  }
  const name = readName(bytes, at, first)
  if (typeof name === "string") return name
  const value = readText(bytes, name.end, 7, HUFFMAN_VALUE)
  return typeof value === "string" ? value : { field: [name.text, value.text], end: value.end }
}
const CUT = "a field section that ends inside a field"
const DYNAMIC = "a reference to the dynamic table"
const BEYOND = "a reference beyond the static table"

type Text = { readonly text: string; readonly end: number }

const readName = (bytes: Uint8Array, at: number, first: number): Text | string => {
  if ((first & NAME_REFERENCE) === 0) {
    return (first & LITERAL_NAME) === 0 ? DYNAMIC : readText(bytes, at, 3, HUFFMAN_NAME)
  }
  const index = readInteger(bytes, at, 4)
  if (index === null) return CUT
  if ((first & STATIC_NAME) === 0) return DYNAMIC
  const field = STATIC_TABLE[index.value]
  return field === undefined ? BEYOND : { text: field[0], end: index.end }
}

/** Reads a string (RFC 9204, section 4.1.2), or returns why there is none. */
const readText = (bytes: Uint8Array, at: number, prefixBits: number, huffman: number): Text | string => {
  const length = readInteger(bytes, at, prefixBits)
  if (length === null || length.value > bytes.length - length.end) return CUT
  const end = length.end + length.value
  if ((bytes[at]! & huffman) !== 0) {
    const text = Huffman.decode(bytes, length.end, end)
    return text === null ? "a bad Huffman code" : { text, end }
  }
  let text = ""
  for (let i = length.end; i < end; i++) text += String.fromCharCode(bytes[i]!)
  return { text, end }
}

/**
 * Reads an integer (RFC 7541, section 5.1). `null` if it is not complete, or too long. Values above
 * 2^53-1 read as at least that.
 */
const readInteger = (
  bytes: Uint8Array,
  at: number,
  prefixBits: number
): { readonly value: number; readonly end: number } | null => {
  const first = bytes[at]
  if (first === undefined) return null
  const max = (1 << prefixBits) - 1
  let value = first & max
  if (value < max) return { value, end: at + 1 }
  let scale = 1
  for (let i = at + 1; i <= at + MAX_CONTINUATION_BYTES; i++) {
    const byte = bytes[i]
    if (byte === undefined) return null
    value += (byte & 0x7f) * scale
    if (byte < 0x80) return { value, end: i + 1 }
    scale *= 128
  }
  return null
}

// --- Encoding

const pushInteger = (out: Array<number>, flags: number, prefixBits: number, value: number): void => {
  const max = (1 << prefixBits) - 1
  if (value < max) {
    out.push(flags | value)
    return
  }
  out.push(flags | max)
  let rest = value - max
  for (; rest >= 0x80; rest = Math.floor(rest / 128)) out.push((rest % 128) | 0x80)
  out.push(rest)
}

const pushText = (out: Array<number>, flags: number, prefixBits: number, text: string): void => {
  pushInteger(out, flags, prefixBits, text.length)
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i)
    out.push(char > 0xff ? NOT_LATIN1 : char)
  }
}

/**
 * Static table (RFC 9204, appendix A) in order: a name, and the values that it has in consecutive
 * entries.
 */
const STATIC_RUNS: ReadonlyArray<readonly [string, ...ReadonlyArray<string>]> = [
  [":authority", ""],
  [":path", "/"],
  ["age", "0"],
  ["content-disposition", ""],
  ["content-length", "0"],
  ["cookie", ""],
  ["date", ""],
  ["etag", ""],
  ["if-modified-since", ""],
  ["if-none-match", ""],
  ["last-modified", ""],
  ["link", ""],
  ["location", ""],
  ["referer", ""],
  ["set-cookie", ""],
  [":method", "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"],
  [":scheme", "http", "https"],
  [":status", "103", "200", "304", "404", "503"],
  ["accept", "*/*", "application/dns-message"],
  ["accept-encoding", "gzip, deflate, br"],
  ["accept-ranges", "bytes"],
  ["access-control-allow-headers", "cache-control", "content-type"],
  ["access-control-allow-origin", "*"],
  [
    "cache-control",
    "max-age=0",
    "max-age=2592000",
    "max-age=604800",
    "no-cache",
    "no-store",
    "public, max-age=31536000"
  ],
  ["content-encoding", "br", "gzip"],
  ["content-type", "application/dns-message", "application/javascript", "application/json"],
  ["content-type", "application/x-www-form-urlencoded", "image/gif", "image/jpeg", "image/png", "text/css"],
  ["content-type", "text/html; charset=utf-8", "text/plain", "text/plain;charset=utf-8"],
  ["range", "bytes=0-"],
  ["strict-transport-security", "max-age=31536000", "max-age=31536000; includesubdomains"],
  ["strict-transport-security", "max-age=31536000; includesubdomains; preload"],
  ["vary", "accept-encoding", "origin"],
  ["x-content-type-options", "nosniff"],
  ["x-xss-protection", "1; mode=block"],
  [":status", "100", "204", "206", "302", "400", "403", "421", "425", "500"],
  ["accept-language", ""],
  ["access-control-allow-credentials", "FALSE", "TRUE"],
  ["access-control-allow-headers", "*"],
  ["access-control-allow-methods", "get", "get, post, options", "options"],
  ["access-control-expose-headers", "content-length"],
  ["access-control-request-headers", "content-type"],
  ["access-control-request-method", "get", "post"],
  ["alt-svc", "clear"],
  ["authorization", ""],
  ["content-security-policy", "script-src 'none'; object-src 'none'; base-uri 'none'"],
  ["early-data", "1"],
  ["expect-ct", ""],
  ["forwarded", ""],
  ["if-range", ""],
  ["origin", ""],
  ["purpose", "prefetch"],
  ["server", ""],
  ["timing-allow-origin", "*"],
  ["upgrade-insecure-requests", "1"],
  ["user-agent", ""],
  ["x-forwarded-for", ""],
  ["x-frame-options", "deny", "sameorigin"]
]
const STATIC_TABLE = STATIC_RUNS.flatMap(([name, ...values]) => values.map((value): Field => [name, value]))
const fieldKey = (name: string, value: string): string => `${name.length} ${name}${value}`
const INDEX_OF_FIELD = new Map(STATIC_TABLE.map(([name, value], index) => [fieldKey(name, value), index]))
/** Index of the first entry of each name. */
const INDEX_OF_NAME = new Map(STATIC_TABLE.map(([name], index): [string, number] => [name, index]).toReversed())
