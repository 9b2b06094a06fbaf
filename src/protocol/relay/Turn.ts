/**
 * TURN messages on the wire (RFC 8656, sections 17 and 18; ChannelData: section 12.4), on top of
 * `Stun`, with what long-term credentials add to a message (RFC 8489, sections 9.2 and 14). The
 * module is pure: whoever has a key computes the MAC.
 */
import { Either } from "effect"
import type { SocketAddr } from "../bytes/SocketAddr.ts"
import * as Stun from "../nat/Stun.ts"

/** Methods of messages (RFC 8656, section 17). */
export const Method = {
  binding: 1,
  allocate: 3,
  refresh: 4,
  send: 6,
  data: 7,
  createPermission: 8,
  channelBind: 9
} as const
/** Classes of messages, as bits of the type (RFC 8489, section 5). */
export const Class = { request: 0x000, indication: 0x010, success: 0x100, error: 0x110 } as const
export type Class = (typeof Class)[keyof typeof Class]

export const FIRST_CHANNEL = 0x4000
/**
 * Last channel number. It is that of RFC 5766, because its clients, such as coturn's, choose among
 * all of these. RFC 8656 ends at 0x4fff, to leave room for other protocols.
 */
export const LAST_CHANNEL = 0x7fff
export const CHANNEL_HEAD_BYTES = 4
export const UDP = 17

const Attr = {
  username: 0x0006,
  messageIntegrity: 0x0008,
  errorCode: 0x0009,
  unknown: 0x000a,
  channelNumber: 0x000c,
  lifetime: 0x000d,
  peerAddress: 0x0012,
  data: 0x0013,
  realm: 0x0014,
  nonce: 0x0015,
  relayedAddress: 0x0016,
  requestedFamily: 0x0017,
  evenPort: 0x0018,
  requestedTransport: 0x0019,
  messageIntegritySha256: 0x001c,
  passwordAlgorithm: 0x001d,
  mappedAddress: 0x0020,
  reservation: 0x0022,
  passwordAlgorithms: 0x8002,
  software: 0x8022,
  fingerprint: 0x8028
} as const

/** Numbers of password algorithms (RFC 8489, section 18.5). */
export const PasswordAlgorithm = { md5: 1, sha256: 2 } as const
/** Value of PASSWORD-ALGORITHMS that we offer: SHA-256, then MD5, without parameters. */
export const OFFERED_ALGORITHMS = Uint8Array.of(0, 2, 0, 0, 0, 1, 0, 0)

export const SHA1_BYTES = 20
export const SHA256_BYTES = 32
/** Longest user name, in bytes (RFC 8489, section 14.3: below 509). */
const MAX_USERNAME_BYTES = 508
/**
 * Longest realm or nonce, in bytes (RFC 8489, section 14.9: below 128 characters, at most 763
 * bytes).
 */
const MAX_QUOTED_BYTES = 763
/** Most peers in one message. A CreatePermission with more is refused. */
export const MAX_PEERS = 16

export type Rejected = "NotStun" | "BadType" | "BadLength" | "BadFingerprint" | "BadAttribute"

/** Positions of a message's MACs. Each covers the bytes before its position. 0 if there is none. */
export interface Macs {
  readonly sha1At: number
  readonly sha256At: number
  /** Length of the SHA-256 MAC, 16 to 32, because it may be truncated. */
  readonly sha256Bytes: number
}

/**
 * A decoded message. Absent attributes are `null`. Of several attributes of one type the first
 * counts. Attributes after a MAC are ignored.
 */
export interface Message {
  readonly method: number
  readonly class: Class
  readonly txId: Uint8Array
  readonly username: string | null
  readonly realm: string | null
  readonly nonce: string | null
  readonly macs: Macs
  readonly passwordAlgorithm: number | null
  readonly passwordAlgorithms: Uint8Array | null
  readonly fingerprint: boolean
  /** Lifetime in seconds. */
  readonly lifetime: number | null
  readonly channel: number | null
  /** Addresses of peers. Their ports may be 0, because permissions have none. */
  readonly peers: ReadonlyArray<SocketAddr>
  /** Bytes of the message that was decoded, not a copy. */
  readonly data: Uint8Array | null
  readonly transport: number | null
  readonly family: 4 | 6 | "other" | null
  /** Request for an even port. `reserve` asks to keep the next port, too. */
  readonly evenPort: { readonly reserve: boolean } | null
  readonly reservation: boolean
  readonly relayed: SocketAddr | null
  readonly mapped: SocketAddr | null
  readonly error: { readonly code: number; readonly reason: string } | null
  /** Comprehension-required attributes that are unknown here. The answer to them is error 420. */
  readonly unknown: ReadonlyArray<number>
}
type Mutable<A> = { -readonly [K in keyof A]: A[K] }
type Reading = Mutable<Omit<Message, "macs" | "peers" | "unknown">> & {
  readonly macs: Mutable<Macs>
  readonly peers: Array<SocketAddr>
  readonly unknown: Array<number>
}

const utf8 = new TextDecoder()
const text = new TextEncoder()

// --- Decoding

/** Decodes one datagram, or one message cut out of a stream. Never throws, whatever the bytes. */
export const decode = (bytes: Uint8Array): Either.Either<Message, Rejected> => {
  if (bytes.length < Stun.HEADER_BYTES || bytes[0]! > 3) return Either.left("NotStun")
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (view.getUint32(4) !== Stun.MAGIC_COOKIE) return Either.left("NotStun")
  const type = view.getUint16(0)
  if ((type & ~0x011f) !== 0) return Either.left("BadType")
  const end = Stun.HEADER_BYTES + view.getUint16(2)
  if (end !== bytes.length || (end & 3) !== 0) return Either.left("BadLength")
  const read = empty(type & 0x0f, (type & 0x0110) as Class, bytes.slice(8, Stun.HEADER_BYTES))
  for (let at = Stun.HEADER_BYTES; at < end;) {
    const length = at + 4 > end ? end : view.getUint16(at + 2)
    if (at + 4 + length > end) return Either.left("BadLength")
    const rejected = readAttribute(view, at, length, end, read)
    if (rejected !== null) return Either.left(rejected)
    at += 4 + ((length + 3) & ~3)
  }
  return Either.right(read)
}

const empty = (method: number, cls: Class, txId: Uint8Array): Reading => ({
  method,
  class: cls,
  txId,
  username: null,
  realm: null,
  nonce: null,
  macs: { sha1At: 0, sha256At: 0, sha256Bytes: 0 },
  passwordAlgorithm: null,
  passwordAlgorithms: null,
  fingerprint: false,
  lifetime: null,
  channel: null,
  peers: [],
  data: null,
  transport: null,
  family: null,
  evenPort: null,
  reservation: false,
  relayed: null,
  mapped: null,
  error: null,
  unknown: []
})

/** Reads the attribute at `at`, whose value lies within `end`. */
const readAttribute = (view: DataView, at: number, length: number, end: number, into: Reading): Rejected | null => {
  const type = view.getUint16(at)
  const value = at + 4
  if (type === Attr.fingerprint) {
    if (length !== 4 || value + 4 !== end || view.getUint32(value) !== Stun.fingerprint(view, at)) {
      return "BadFingerprint"
    }
    into.fingerprint = true
    return null
  }
  const { macs } = into
  if (macs.sha256At !== 0) return null
  if (type === Attr.messageIntegritySha256) {
    if (length < 16 || length > SHA256_BYTES || (length & 3) !== 0) return "BadAttribute"
    macs.sha256At = at
    macs.sha256Bytes = length
    return null
  }
  if (macs.sha1At !== 0) return null
  if (type === Attr.messageIntegrity) {
    if (length !== SHA1_BYTES) return "BadAttribute"
    macs.sha1At = at
    return null
  }
  return readValue(view, type, value, length, into) ? null : "BadAttribute"
}

const readValue = (view: DataView, type: number, at: number, length: number, into: Reading): boolean => {
  switch (type) {
    case Attr.username:
      return (into.username ??= textAt(view, at, length, MAX_USERNAME_BYTES)) !== null
    case Attr.realm:
      return (into.realm ??= textAt(view, at, length, MAX_QUOTED_BYTES)) !== null
    case Attr.nonce:
      return (into.nonce ??= textAt(view, at, length, MAX_QUOTED_BYTES)) !== null
    case Attr.passwordAlgorithm:
      if (length < 4) return false
      into.passwordAlgorithm ??= view.getUint16(at)
      return true
    case Attr.passwordAlgorithms:
      into.passwordAlgorithms ??= bytesAt(view, at, length)
      return true
    case Attr.lifetime:
      if (length !== 4) return false
      into.lifetime ??= view.getUint32(at)
      return true
    case Attr.channelNumber:
      if (length !== 4) return false
      into.channel ??= view.getUint16(at)
      return true
    case Attr.peerAddress: {
      const peer = Stun.readAddress(view, at, length, true, 0)
      if (peer === null || into.peers.length === MAX_PEERS) return false
      into.peers.push(peer)
      return true
    }
    case Attr.data:
      into.data ??= bytesAt(view, at, length)
      return true
    case Attr.requestedTransport:
      if (length !== 4) return false
      into.transport ??= view.getUint8(at)
      return true
    case Attr.requestedFamily: {
      if (length !== 4) return false
      const family = view.getUint8(at)
      into.family ??= family === 1 ? 4 : family === 2 ? 6 : "other"
      return true
    }
    case Attr.evenPort:
      if (length < 1) return false
      into.evenPort ??= { reserve: (view.getUint8(at) & 0x80) !== 0 }
      return true
    case Attr.reservation:
      return (into.reservation = length === 8)
    case Attr.relayedAddress:
      return (into.relayed ??= Stun.readAddress(view, at, length, true)) !== null
    case Attr.mappedAddress:
      return (into.mapped ??= Stun.readAddress(view, at, length, true)) !== null
    case Attr.errorCode:
      if (length < 4) return false
      into.error ??= Stun.readError(view, at, length)
      return true
    default:
      if (type < 0x8000 && type !== Attr.unknown) into.unknown.push(type)
      return true
  }
}

const bytesAt = (view: DataView, at: number, length: number): Uint8Array =>
  new Uint8Array(view.buffer, view.byteOffset + at, length)

const textAt = (view: DataView, at: number, length: number, most: number): string | null =>
  length === 0 || length > most ? null : utf8.decode(bytesAt(view, at, length))

/**
 * Returns the bytes that a MAC of `macBytes` at `at` covers. The length in their header ends with
 * that attribute (RFC 8489, section 14.5).
 */
export const macInput = (bytes: Uint8Array, at: number, macBytes: number): Uint8Array => {
  const input = bytes.slice(0, at)
  const length = at + 4 + macBytes - Stun.HEADER_BYTES
  input[2] = length >>> 8
  input[3] = length & 255
  return input
}

// --- Encoding

/**
 * Computes the MAC of a message that is being encoded. `macBytes` is 20 (MESSAGE-INTEGRITY) or 32
 * (MESSAGE-INTEGRITY-SHA256).
 */
export interface Signer {
  readonly macBytes: typeof SHA1_BYTES | typeof SHA256_BYTES
  readonly mac: (input: Uint8Array) => Uint8Array
}

/** Attributes of a message to encode. Absent ones are not written. */
export interface Fields {
  readonly error?: number | undefined
  readonly unknown?: ReadonlyArray<number> | undefined
  /** User name, as the server gave it with the credentials. */
  readonly username?: string | undefined
  readonly realm?: string | undefined
  readonly nonce?: string | undefined
  readonly passwordAlgorithms?: Uint8Array | undefined
  readonly passwordAlgorithm?: number | undefined
  /** Lifetime of the allocation, in seconds. */
  readonly lifetime?: number | undefined
  readonly channel?: number | undefined
  readonly transport?: number | undefined
  readonly family?: 4 | 6 | undefined
  readonly evenPort?: { readonly reserve: boolean } | undefined
  readonly peers?: ReadonlyArray<SocketAddr> | undefined
  readonly data?: Uint8Array | undefined
  readonly relayed?: SocketAddr | undefined
  readonly mapped?: SocketAddr | undefined
}

/**
 * Room beside `data` in one message, in bytes: text attributes at their longest, {@link MAX_PEERS}
 * addresses, MACs.
 */
const ROOM_BYTES = 3072
/** Most unknown attributes that an error names. */
const MAX_UNKNOWN_TOLD = 16

/** Encodes a message, with a MAC if there is a signer, and FINGERPRINT if asked for. */
export const encode = (
  method: number,
  cls: Class,
  txId: Uint8Array,
  fields: Fields,
  options: { readonly signer?: Signer | undefined; readonly fingerprint?: boolean } = {}
): Uint8Array => {
  const w = new Stun.Writer(method | cls, txId, ROOM_BYTES + (fields.data?.length ?? 0))
  writeCodes(w, fields)
  if (fields.username !== undefined) writeBytes(w, Attr.username, text.encode(fields.username))
  if (fields.realm !== undefined) writeBytes(w, Attr.realm, text.encode(fields.realm))
  if (fields.nonce !== undefined) writeBytes(w, Attr.nonce, text.encode(fields.nonce))
  if (fields.passwordAlgorithms !== undefined) writeBytes(w, Attr.passwordAlgorithms, fields.passwordAlgorithms)
  for (const peer of fields.peers ?? []) w.address(Attr.peerAddress, peer, true)
  if (fields.relayed !== undefined) w.address(Attr.relayedAddress, fields.relayed, true)
  if (fields.mapped !== undefined) w.address(Attr.mappedAddress, fields.mapped, true)
  if (fields.data !== undefined) writeBytes(w, Attr.data, fields.data)
  const { signer } = options
  if (signer !== undefined) {
    const { macBytes } = signer
    const mac = signer.mac(macInput(w.bytes, w.at, macBytes))
    writeBytes(w, macBytes === SHA1_BYTES ? Attr.messageIntegrity : Attr.messageIntegritySha256, mac)
  }
  if (options.fingerprint === true) return w.finish()
  w.u16(2, w.at - Stun.HEADER_BYTES)
  return w.bytes.slice(0, w.at)
}

const writeCodes = (w: Stun.Writer, fields: Fields): void => {
  const { channel, error, evenPort, family, lifetime, passwordAlgorithm, transport } = fields
  const unknown = (fields.unknown ?? []).slice(0, MAX_UNKNOWN_TOLD)
  if (error !== undefined) w.u32(w.attribute(Attr.errorCode, 4), (Math.floor(error / 100) << 8) | (error % 100))
  if (unknown.length > 0) {
    const at = w.attribute(Attr.unknown, 2 * unknown.length)
    for (const [i, type] of unknown.entries()) w.u16(at + 2 * i, type)
  }
  if (lifetime !== undefined) w.u32(w.attribute(Attr.lifetime, 4), lifetime)
  if (channel !== undefined) w.u16(w.attribute(Attr.channelNumber, 4), channel)
  if (transport !== undefined) w.bytes[w.attribute(Attr.requestedTransport, 4)] = transport
  if (family !== undefined) w.bytes[w.attribute(Attr.requestedFamily, 4)] = family === 4 ? 1 : 2
  if (evenPort !== undefined) w.bytes[w.attribute(Attr.evenPort, 1)] = evenPort.reserve ? 0x80 : 0
  if (passwordAlgorithm !== undefined) w.u16(w.attribute(Attr.passwordAlgorithm, 4), passwordAlgorithm)
}

const writeBytes = (w: Stun.Writer, type: number, bytes: Uint8Array): void => {
  w.bytes.set(bytes, w.attribute(type, bytes.length))
}

// --- ChannelData and streams

/** Encodes ChannelData. `padded`: whether to pad it to four bytes, as is needed over a stream. */
export const encodeChannelData = (channel: number, data: Uint8Array, padded: boolean): Uint8Array => {
  const length = CHANNEL_HEAD_BYTES + data.length
  const bytes = new Uint8Array(padded ? (length + 3) & ~3 : length)
  bytes[0] = channel >>> 8
  bytes[1] = channel & 255
  bytes[2] = data.length >>> 8
  bytes[3] = data.length & 255
  bytes.set(data, CHANNEL_HEAD_BYTES)
  return bytes
}

/** A decoded ChannelData message. */
export interface ChannelData {
  readonly channel: number
  /** Bytes of the message that was decoded, not a copy. */
  readonly data: Uint8Array
}

/**
 * Decodes ChannelData. `null` if the bytes are something else. Padding after the data is ignored.
 */
export const decodeChannelData = (bytes: Uint8Array): ChannelData | null => {
  if (bytes.length < CHANNEL_HEAD_BYTES) return null
  const channel = (bytes[0]! << 8) | bytes[1]!
  const length = (bytes[2]! << 8) | bytes[3]!
  if (channel < FIRST_CHANNEL || channel > LAST_CHANNEL || CHANNEL_HEAD_BYTES + length > bytes.length) return null
  return { channel, data: bytes.subarray(CHANNEL_HEAD_BYTES, CHANNEL_HEAD_BYTES + length) }
}

/**
 * Returns the length of the next message of a stream, in bytes. 0 if more bytes are needed to tell,
 * -1 if the bytes are not TURN.
 */
export const streamLength = (bytes: Uint8Array): number => {
  if (bytes.length < 4) return 0
  const length = (bytes[2]! << 8) | bytes[3]!
  const channel = (bytes[0]! << 8) | bytes[1]!
  if (channel >= FIRST_CHANNEL && channel <= LAST_CHANNEL) return CHANNEL_HEAD_BYTES + ((length + 3) & ~3)
  return bytes[0]! > 3 || (length & 3) !== 0 ? -1 : Stun.HEADER_BYTES + length
}
