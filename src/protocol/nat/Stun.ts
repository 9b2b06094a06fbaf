/**
 * STUN Binding messages on the wire (RFC 8489, sections 5, 14 and 15; CHANGE-REQUEST,
 * RESPONSE-PORT, RESPONSE-ORIGIN and OTHER-ADDRESS are RFC 5780, section 7). The header has 20
 * bytes, big-endian:
 *
 *     type u16 | length of what follows u16 | magic cookie u32 | transaction id 12 bytes
 *
 * The module is pure: no clock, no socket, no randomness (the caller makes transaction ids).
 */
import { Either } from "effect"
import * as IpBytes from "../bytes/IpBytes.ts"
import type { SocketAddr } from "../bytes/SocketAddr.ts"

/** Length of the header, in bytes (RFC 8489, section 5). */
export const HEADER_BYTES = 20
/** Length of a transaction id, in bytes. */
export const TX_ID_BYTES = 12
export const MAGIC_COOKIE = 0x2112a442
/**
 * Size of our requests, in bytes. No answer of ours is longer (header 20, three IPv6 addresses 72,
 * FINGERPRINT 8), so a server that never sends more than it received can always answer.
 */
export const REQUEST_BYTES = 100

const BINDING_REQUEST = 0x0001
const BINDING_SUCCESS = 0x0101
const BINDING_ERROR = 0x0111

const CHANGE_REQUEST = 0x0003
const ERROR_CODE = 0x0009
const UNKNOWN_ATTRIBUTES = 0x000a
const XOR_MAPPED_ADDRESS = 0x0020
const RESPONSE_PORT = 0x0027
const SOFTWARE = 0x8022
const FINGERPRINT = 0x8028
const RESPONSE_ORIGIN = 0x802b
const OTHER_ADDRESS = 0x802c
/**
 * Optional attribute of our own: the second port, u16 and two zero bytes, of a server with one
 * address. Such a server may not send OTHER-ADDRESS (RFC 5780, section 7.4).
 */
const ALTERNATE_PORT = 0xff5a
/**
 * Attributes that are understood and ignored: MAPPED-ADDRESS, the credential attributes (we ask for
 * none), PADDING (RFC 5780).
 */
const PASSED_OVER: ReadonlySet<number> = new Set([0x01, 0x06, 0x08, 0x14, 0x15, 0x1c, 0x1d, 0x1e, 0x26])

const FINGERPRINT_BYTES = 8
const FINGERPRINT_XOR = 0x5354554e // RFC 8489, section 14.7
/** First of the attribute types that may be ignored if they are unknown (RFC 8489, section 14). */
const FIRST_OPTIONAL = 0x8000
/** Most unknown attributes of a request that the answer names. */
const MAX_UNKNOWN_TOLD = 16
const PADDING_TEXT = "sallyport"

/**
 * Reason why bytes are not a usable Binding message. It is data and not an exception, because stray
 * packets are ordinary on UDP.
 */
export type Rejected =
  | "NotStun"
  | "NotBinding"
  | "BadLength"
  | "BadFingerprint"
  | "BadAttribute"
  | "UnknownRequired"
  | "NoMappedAddress"

/** Change that a request asks for in the source address of the answer (CHANGE-REQUEST). */
export type Change = { readonly address: boolean; readonly port: boolean }

/** A Binding message. */
export type Message =
  | {
    readonly _tag: "Request"
    readonly txId: Uint8Array
    /** Asks the server to answer from its other IP address or port (RFC 5780). `null` if absent. */
    readonly change: Change | null
    /**
     * Asks the server to answer to this port of the sender's address (RFC 5780). `null` if absent.
     */
    readonly responsePort: number | null
    /** Comprehension-required attributes that are unknown here. The answer to them is error 420. */
    readonly unknown: ReadonlyArray<number>
  }
  | {
    readonly _tag: "Success"
    readonly txId: Uint8Array
    readonly mapped: SocketAddr
    /** Address from which the answer was sent (RESPONSE-ORIGIN, RFC 5780). `null` if not given. */
    readonly origin: SocketAddr | null
    /** Other address of the server (OTHER-ADDRESS, RFC 5780). `null` if not given. */
    readonly other: SocketAddr | null
    /** Second port of a server that has no other address. `null` if not given. */
    readonly alternatePort: number | null
  }
  | { readonly _tag: "Error"; readonly txId: Uint8Array; readonly code: number; readonly reason: string }
/** A Binding request. */
export type Request = Extract<Message, { _tag: "Request" }>
/** A success response to a Binding request. */
export type Success = Extract<Message, { _tag: "Success" }>

/** Returns lower-case hex, two characters per byte, to use transaction ids as keys. */
export const toHex = (bytes: Uint8Array): string => {
  let hex = ""
  for (const byte of bytes) hex += byte.toString(16).padStart(2, "0")
  return hex
}

/**
 * Returns the length of the whole STUN message that starts at `at`. 0 if none does. Allocates
 * nothing.
 */
export const lengthAt = (buf: Uint8Array, at: number): number => {
  if (at < 0 || at + HEADER_BYTES > buf.length || buf[at]! > 3) return 0
  if (buf[at + 4] !== 0x21 || buf[at + 5] !== 0x12 || buf[at + 6] !== 0xa4 || buf[at + 7] !== 0x42) return 0
  const length = HEADER_BYTES + ((buf[at + 2]! << 8) | buf[at + 3]!)
  return (length & 3) !== 0 || at + length > buf.length ? 0 : length
}

// --- Encoding

/** Builds a message of at most `capacity` bytes. `finish` adds FINGERPRINT and the length. */
export class Writer {
  readonly bytes: Uint8Array
  private readonly view: DataView
  at = HEADER_BYTES

  constructor(type: number, txId: Uint8Array, capacity = 1024) {
    this.bytes = new Uint8Array(capacity)
    this.view = new DataView(this.bytes.buffer)
    this.view.setUint16(0, type)
    this.view.setUint32(4, MAGIC_COOKIE)
    this.bytes.set(txId.subarray(0, TX_ID_BYTES), 8)
  }

  /** Reserves an attribute and returns where its value goes. */
  attribute(type: number, length: number): number {
    this.view.setUint16(this.at, type)
    this.view.setUint16(this.at + 2, length)
    const value = this.at + 4
    this.at = value + ((length + 3) & ~3)
    return value
  }

  u16(at: number, value: number): void {
    this.view.setUint16(at, value)
  }

  u32(at: number, value: number): void {
    this.view.setUint32(at, value >>> 0)
  }

  /** Writes an address. Writes nothing if the host is not a literal address. */
  address(type: number, addr: SocketAddr, xor: boolean): void {
    const ip = new Uint8Array(16)
    const length = IpBytes.parse(addr.host, ip)
    if (length === 0) return
    const at = this.attribute(type, 4 + length)
    this.bytes[at + 1] = length === 4 ? 1 : 2
    this.u16(at + 2, xor ? addr.port ^ (MAGIC_COOKIE >>> 16) : addr.port)
    for (let i = 0; i < length; i++) this.bytes[at + 4 + i] = ip[i]! ^ (xor ? this.bytes[4 + i]! : 0)
  }

  /** Adds FINGERPRINT and returns the message. */
  finish(): Uint8Array {
    const at = this.at
    this.u16(2, at + FINGERPRINT_BYTES - HEADER_BYTES) // the checksum covers the final length
    this.u32(this.attribute(FINGERPRINT, 4), (crc32(this.bytes, at) ^ FINGERPRINT_XOR) >>> 0)
    return this.bytes.slice(0, this.at)
  }
}

/**
 * Encodes a request, padded with SOFTWARE to `bytes` (at most 512) so that the answer is never
 * longer. PADDING is not used: it asks the server for an answer as long as the request (RFC 5780,
 * section 7.6), and servers without it refuse the request.
 */
export const encodeRequest = (options: {
  readonly txId: Uint8Array
  readonly bytes?: number
  readonly change?: Change | undefined
  readonly responsePort?: number | undefined
}): Uint8Array => {
  const writer = new Writer(BINDING_REQUEST, options.txId)
  const change = options.change
  if (change !== undefined) {
    writer.u32(writer.attribute(CHANGE_REQUEST, 4), (change.address ? 4 : 0) | (change.port ? 2 : 0))
  }
  // RFC 5780, section 7.5: a port and two bytes of padding.
  if (options.responsePort !== undefined) writer.u16(writer.attribute(RESPONSE_PORT, 4), options.responsePort)
  const room = Math.min(options.bytes ?? REQUEST_BYTES, 512) - writer.at - FINGERPRINT_BYTES - 4
  if (room > 0) {
    const at = writer.attribute(SOFTWARE, room)
    for (let i = 0; i < room; i++) {
      writer.bytes[at + i] = i < PADDING_TEXT.length ? PADDING_TEXT.charCodeAt(i) : 32
    }
  }
  return writer.finish()
}

/** Encodes a success response. */
export const encodeSuccess = (options: {
  readonly txId: Uint8Array
  readonly mapped: SocketAddr
  readonly origin?: SocketAddr
  readonly other?: SocketAddr | undefined
  readonly alternatePort?: number | undefined
}): Uint8Array => {
  const writer = new Writer(BINDING_SUCCESS, options.txId)
  writer.address(XOR_MAPPED_ADDRESS, options.mapped, true)
  if (options.origin !== undefined) writer.address(RESPONSE_ORIGIN, options.origin, false)
  if (options.other !== undefined) writer.address(OTHER_ADDRESS, options.other, false)
  if (options.alternatePort !== undefined) writer.u16(writer.attribute(ALTERNATE_PORT, 4), options.alternatePort)
  return writer.finish()
}

/**
 * Encodes an error. `code`: 300 to 699. `unknown`: the attributes for code 420. There is no reason
 * phrase, so that the answer stays short.
 */
export const encodeError = (options: {
  readonly txId: Uint8Array
  readonly code: number
  readonly unknown?: ReadonlyArray<number>
}): Uint8Array => {
  const writer = new Writer(BINDING_ERROR, options.txId)
  writer.u32(writer.attribute(ERROR_CODE, 4), (Math.floor(options.code / 100) << 8) | (options.code % 100))
  const unknown = (options.unknown ?? []).slice(0, MAX_UNKNOWN_TOLD)
  if (unknown.length > 0) {
    const at = writer.attribute(UNKNOWN_ATTRIBUTES, 2 * unknown.length)
    for (const [i, type] of unknown.entries()) writer.u16(at + 2 * i, type)
  }
  return writer.finish()
}

/** Addresses that a server reports about itself, and options for its answers. */
export type Server = {
  /** Address from which the answer is sent, as clients see it. Absent if it is not known. */
  readonly origin?: SocketAddr
  readonly other?: SocketAddr | undefined
  readonly alternatePort?: number | undefined
  /**
   * Whether the server obeys CHANGE-REQUEST for this request. If not, it answers a request that has
   * one with error 420.
   */
  readonly supportsChange?: boolean
  /**
   * Whether the answer may be longer than the request. Default: `false`, so that a forged request
   * gains nothing.
   */
  readonly allowLonger?: boolean
}

/**
 * Returns the answer to a request of `length` bytes. `null` if the request is too short for an
 * answer that is not longer (unless `allowLonger` is set).
 */
export const answer = (
  request: Request,
  length: number,
  mapped: SocketAddr,
  server: Server = {}
): Uint8Array | null => {
  const { change, txId } = request
  const unknown = change !== null && server.supportsChange !== true
    ? [CHANGE_REQUEST, ...request.unknown]
    : request.unknown
  const fits = (reply: Uint8Array) => server.allowLonger === true || reply.length <= length
  const full = unknown.length > 0
    ? encodeError({ txId, code: 420, unknown })
    : encodeSuccess({ ...server, txId, mapped })
  if (fits(full)) return full
  const short = unknown.length > 0 ? encodeError({ txId, code: 420 }) : encodeSuccess({ txId, mapped })
  return fits(short) ? short : null
}

// --- Decoding

type Attributes = {
  mapped: SocketAddr | null
  origin: SocketAddr | null
  other: SocketAddr | null
  alternatePort: number | null
  change: Change | null
  responsePort: number | null
  error: { readonly code: number; readonly reason: string } | null
  unknown: Array<number>
}

/**
 * Decodes one datagram, or one message cut out by `lengthAt`. Never throws, whatever the bytes.
 * FINGERPRINT may be absent; if it is there, it must be right and last.
 */
export const decode = (bytes: Uint8Array): Either.Either<Message, Rejected> => {
  if (bytes.length < HEADER_BYTES || bytes[0]! > 3) return Either.left("NotStun")
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (view.getUint32(4) !== MAGIC_COOKIE) return Either.left("NotStun")
  const type = view.getUint16(0)
  if (type !== BINDING_REQUEST && type !== BINDING_SUCCESS && type !== BINDING_ERROR) return Either.left("NotBinding")
  const end = HEADER_BYTES + view.getUint16(2)
  if (end !== bytes.length || (end & 3) !== 0) return Either.left("BadLength")
  const read: Attributes = {
    mapped: null,
    origin: null,
    other: null,
    alternatePort: null,
    change: null,
    responsePort: null,
    error: null,
    unknown: []
  }
  for (let at = HEADER_BYTES; at < end;) {
    if (at + 4 > end || at + 4 + view.getUint16(at + 2) > end) return Either.left("BadLength")
    const rejected = readAttribute(view, at, end, read)
    if (rejected !== null) return Either.left(rejected)
    at += 4 + ((view.getUint16(at + 2) + 3) & ~3)
  }
  return messageOf(type, bytes.slice(8, HEADER_BYTES), read)
}

const messageOf = (type: number, txId: Uint8Array, read: Attributes): Either.Either<Message, Rejected> => {
  if (type === BINDING_REQUEST) {
    const { change, responsePort, unknown } = read
    return Either.right({ _tag: "Request", txId, change, responsePort, unknown })
  }
  if (read.unknown.length > 0) return Either.left("UnknownRequired") // RFC 8489, section 6.3.3
  if (type === BINDING_ERROR) {
    return read.error === null ? Either.left("BadAttribute") : Either.right({ _tag: "Error", txId, ...read.error })
  }
  const { alternatePort, mapped, origin, other } = read
  return mapped === null
    ? Either.left("NoMappedAddress")
    : Either.right({ _tag: "Success", txId, mapped, origin, other, alternatePort })
}

/**
 * Reads the attribute at `at`, which lies within `end`. Of several of one type the first counts
 * (RFC 8489, section 14).
 */
const readAttribute = (view: DataView, at: number, end: number, into: Attributes): Rejected | null => {
  const type = view.getUint16(at)
  const length = view.getUint16(at + 2)
  const value = at + 4
  switch (type) {
    case XOR_MAPPED_ADDRESS:
      into.mapped ??= readAddress(view, value, length, true)
      return into.mapped === null ? "BadAttribute" : null
    case RESPONSE_ORIGIN:
      into.origin ??= readAddress(view, value, length, false)
      return null
    case OTHER_ADDRESS:
      into.other ??= readAddress(view, value, length, false)
      return null
    case ALTERNATE_PORT:
      if (length === 4) into.alternatePort ??= view.getUint16(value) || null
      return null
    case CHANGE_REQUEST:
      if (length !== 4) return "BadAttribute"
      into.change ??= { address: (view.getUint8(value + 3) & 4) !== 0, port: (view.getUint8(value + 3) & 2) !== 0 }
      return null
    case RESPONSE_PORT: // some clients count the padding in the length
      if ((length !== 2 && length !== 4) || view.getUint16(value) === 0) return "BadAttribute"
      into.responsePort ??= view.getUint16(value)
      return null
    case ERROR_CODE:
      if (length < 4) return "BadAttribute"
      into.error ??= readError(view, value, length)
      return null
    case FINGERPRINT:
      return length === 4 && value + 4 === end && view.getUint32(value) === fingerprint(view, at)
        ? null
        : "BadFingerprint"
    default:
      if (type < FIRST_OPTIONAL && type !== UNKNOWN_ATTRIBUTES && !PASSED_OVER.has(type)) into.unknown.push(type)
      return null
  }
}

/** Reads an address. `null` if it is not one, or if its port is below `minPort`. */
export const readAddress = (
  view: DataView,
  at: number,
  length: number,
  xor: boolean,
  minPort = 1
): SocketAddr | null => {
  if (length !== 8 && length !== 20) return null
  const ipLength = length === 8 ? 4 : 16
  if (view.getUint8(at + 1) !== (ipLength === 4 ? 1 : 2)) return null
  const port = view.getUint16(at + 2) ^ (xor ? MAGIC_COOKIE >>> 16 : 0)
  if (port < minPort) return null
  const ip = new Uint8Array(16)
  for (let i = 0; i < ipLength; i++) ip[i] = view.getUint8(at + 4 + i) ^ (xor ? view.getUint8(4 + i) : 0)
  return { host: IpBytes.format(ip, 0, ipLength), port }
}

/** Reads an ERROR-CODE attribute. */
export const readError = (view: DataView, at: number, length: number): { code: number; reason: string } => {
  let reason = ""
  // Only people see the reason, so everything but printable ASCII is left out.
  for (let i = 4; i < Math.min(length, 128); i++) {
    const c = view.getUint8(at + i)
    if (c >= 32 && c < 127) reason += String.fromCharCode(c)
  }
  return { code: (view.getUint8(at + 2) & 7) * 100 + view.getUint8(at + 3), reason }
}

/** Returns the right FINGERPRINT for the first `length` bytes, whose header already counts it. */
export const fingerprint = (view: DataView, length: number): number =>
  (crc32(new Uint8Array(view.buffer, view.byteOffset, length), length) ^ FINGERPRINT_XOR) >>> 0

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n
  for (let k = 0; k < 8; k++) c = (c & 1) !== 0 ? 0xedb88320 ^ (c >>> 1) : c >>> 1
  return c
})

/** The CRC-32 of ITU V.42 (as in Ethernet) over the first `length` bytes. */
const crc32 = (bytes: Uint8Array, length: number): number => {
  let crc = 0xffffffff
  for (let i = 0; i < length; i++) crc = CRC_TABLE[(crc ^ bytes[i]!) & 255]! ^ (crc >>> 8)
  return (crc ^ 0xffffffff) >>> 0
}
