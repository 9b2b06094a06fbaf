/**
 * The text that an administrator gives to a new node, as one line: `sp1_` and base64url of
 *
 *     length u16 of all that follows | crc32 u32 of what follows it | flags u8 | httpsPort u16 |
 *     authority key 32 | [TLS key 32] | id 8 | secret 16 | host
 *
 * Whoever holds it can become that node, once. The length distinguishes an incomplete copy from a
 * mistyped one.
 */
import { Either, Encoding, Redacted } from "effect"
import { BYTES as KEY_BYTES, fromBytes, type NodeKey, toBytes } from "./NodeKey.ts"

export const PREFIX = "sp1_"
export const ID_BYTES = 8
export const SECRET_BYTES = 16
/** Longest text that is examined, in characters. */
const MAX_CHARS = 1024
const MAX_HOST_BYTES = 255

/**
 * How a node authenticates the relay. `Pin`: by the key that signs the relay's certificates. `Ca`:
 * by the public certificate authorities. `Proxied`: also by those, but the certificate belongs to a
 * reverse proxy, which ends TLS in front of the relay.
 */
export type RelayTrust =
  | { readonly _tag: "Pin"; readonly key: NodeKey }
  | { readonly _tag: "Ca" }
  | { readonly _tag: "Proxied" }

/** Contents of an enrolment token. */
export interface EnrolmentToken {
  /** Host of the relay: a name or an IP literal, without brackets. */
  readonly host: string
  readonly httpsPort: number
  readonly tls: RelayTrust
  readonly authorityKey: NodeKey
  /** 16 hex characters. It is not secret. */
  readonly id: string
  /** 22 characters of base64url. */
  readonly secret: Redacted.Redacted
}

/** Reason why a text is not a usable token. */
export interface BadToken {
  readonly _tag: "BadToken"
  readonly reason: "empty" | "not_a_token" | "wrong_version" | "truncated" | "altered" | "malformed"
  /** Text for people. It contains nothing of the token. */
  readonly message: string
}

const HEAD_BYTES = 6 // length and checksum
/** Values of the flags byte. */
const TRUST = { Ca: 0, Pin: 1, Proxied: 2 } as const
const FIXED_BYTES = 3 + KEY_BYTES + ID_BYTES + SECRET_BYTES

/**
 * Encodes a token. Throws a `RangeError` for parts of the wrong size, which is the caller's
 * mistake.
 */
export const encode = (token: EnrolmentToken): string => {
  const host = new TextEncoder().encode(token.host)
  const id = Either.getOrThrow(Encoding.decodeHex(token.id))
  const secret = Either.getOrElse(Encoding.decodeBase64Url(Redacted.value(token.secret)), () => new Uint8Array(0))
  if (host.length === 0 || host.length > MAX_HOST_BYTES) throw new RangeError("a host has 1 to 255 bytes")
  if (id.length !== ID_BYTES || secret.length !== SECRET_BYTES) throw new RangeError("id or secret of the wrong length")
  if (!isPort(token.httpsPort)) throw new RangeError("a port is 1 to 65535")
  const pin = token.tls._tag === "Pin" ? toBytes(token.tls.key) : new Uint8Array(0)
  const body = new Uint8Array(HEAD_BYTES + FIXED_BYTES + pin.length + host.length)
  const view = new DataView(body.buffer)
  view.setUint16(0, body.length - 2)
  view.setUint8(HEAD_BYTES, TRUST[token.tls._tag])
  view.setUint16(HEAD_BYTES + 1, token.httpsPort)
  let at = HEAD_BYTES + 3
  for (const part of [toBytes(token.authorityKey), pin, id, secret, host]) {
    body.set(part, at)
    at += part.length
  }
  view.setUint32(2, crc32(body.subarray(HEAD_BYTES)))
  return PREFIX + Encoding.encodeBase64Url(body)
}

/**
 * Parses a token. White space anywhere is ignored, because terminals and mail programs wrap lines.
 * Never throws.
 */
export const parse = (text: string): Either.Either<EnrolmentToken, BadToken> => {
  const line = text.length > 2 * MAX_CHARS ? text : text.replace(/\s+/g, "")
  if (line === "") return bad("empty", "the enrolment token is empty")
  const version = /^sp(\d{1,3})_/.exec(line)?.[1]
  if (version === undefined || line.length > MAX_CHARS) {
    return bad("not_a_token", `this is not an enrolment token, which would begin with ${PREFIX}`)
  }
  if (version !== "1") {
    return bad("wrong_version", "this enrolment token is of another version; run the same version here as at the relay")
  }
  const bytes = bytesOf(line.slice(PREFIX.length))
  if (bytes === null) {
    return bad("malformed", "the enrolment token contains characters that no token has; copy the whole token again")
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const missing = bytes.length < 2 ? 1 : view.getUint16(0) + 2 - bytes.length
  if (missing > 0) {
    return bad("truncated", "the end of the enrolment token is missing; copy the whole token again")
  }
  if (missing < 0) return bad("altered", "there is other text after the enrolment token; copy only the token")
  if (bytes.length < HEAD_BYTES || view.getUint32(2) !== crc32(bytes.subarray(HEAD_BYTES))) {
    return bad("altered", "the enrolment token has a wrong character; copy it again, do not type it")
  }
  return read(bytes, view)
}

const read = (bytes: Uint8Array, view: DataView): Either.Either<EnrolmentToken, BadToken> => {
  const flags = bytes[HEAD_BYTES] ?? 0
  const pinBytes = flags === TRUST.Pin ? KEY_BYTES : 0
  if (flags > TRUST.Proxied || bytes.length <= HEAD_BYTES + FIXED_BYTES + pinBytes) return malformed()
  let at = HEAD_BYTES + 3
  const take = (length: number) => bytes.slice(at, at += length)
  const authorityKey = fromBytes(take(KEY_BYTES))
  const tls: RelayTrust = flags === TRUST.Pin
    ? { _tag: "Pin", key: fromBytes(take(KEY_BYTES)) }
    : { _tag: flags === TRUST.Ca ? "Ca" : "Proxied" }
  const id = Encoding.encodeHex(take(ID_BYTES))
  const secret = Redacted.make(Encoding.encodeBase64Url(take(SECRET_BYTES)))
  const host = hostOf(bytes.subarray(at))
  const httpsPort = view.getUint16(HEAD_BYTES + 1)
  if (host === null || !isPort(httpsPort)) return malformed()
  return Either.right({ host, httpsPort, tls, authorityKey, id, secret })
}

const malformed = () => bad("malformed", "the enrolment token cannot be read; create a new one at the relay")

const bad = (reason: BadToken["reason"], message: string) =>
  Either.left<BadToken>({ _tag: "BadToken", reason, message })

const isPort = (port: number) => Number.isInteger(port) && port >= 1 && port <= 65_535

/** Decodes base64url. `null` for other text. An incomplete text gives the bytes that are whole. */
const bytesOf = (text: string): Uint8Array | null => {
  if (!/^[A-Za-z0-9_-]*$/.test(text)) return null
  const whole = text.length % 4 === 1 ? text.slice(0, -1) : text
  return Either.getOrNull(Encoding.decodeBase64Url(whole))
}

/**
 * Decodes the host. Only names and IP literals are accepted, because this text goes into messages
 * and to the resolver.
 */
const hostOf = (bytes: Uint8Array): string | null => {
  const text = String.fromCharCode(...bytes)
  return bytes.length <= MAX_HOST_BYTES && /^[A-Za-z0-9._:-]+$/.test(text) ? text : null
}

/** CRC-32 (IEEE 802.3), bit by bit, because a token is short. */
const crc32 = (bytes: Uint8Array): number => {
  let crc = -1
  for (const byte of bytes) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (0xedb88320 & -(crc & 1))
  }
  return ~crc >>> 0
}
