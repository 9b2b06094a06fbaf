/**
 * Signatures, hashes and random bytes, based on `node:crypto`. Hot paths use the plain functions;
 * the service is for randomness that tests must control.
 */
import { Context, Effect, Layer } from "effect"
import { Buffer } from "node:buffer"
import {
  createHash,
  createHmac,
  createPublicKey,
  hkdfSync,
  type KeyObject,
  randomBytes as nodeRandomBytes,
  sign as nodeSign,
  timingSafeEqual,
  verify as nodeVerify
} from "node:crypto"

/** SubjectPublicKeyInfo of an Ed25519 key, without the key at its end (RFC 8410, section 4). */
const SPKI_HEAD = Buffer.from("302a300506032b6570032100", "hex")
const PUBLIC_KEY_BYTES = 32

/** Encodes a raw Ed25519 public key as DER (SubjectPublicKeyInfo). */
export const spkiOf = (publicKey: Uint8Array): Buffer => Buffer.concat([SPKI_HEAD, publicKey])

/**
 * Returns the 32 raw bytes of an Ed25519 public key, or of a private key's public half. `null` for
 * another kind of key.
 */
export const rawPublicKey = (key: KeyObject): Uint8Array | null => {
  if (key.asymmetricKeyType !== "ed25519") return null
  const spki = (key.type === "private" ? createPublicKey(key) : key).export({ format: "der", type: "spki" })
  return Uint8Array.from(spki.subarray(SPKI_HEAD.length))
}

/** Signs with Ed25519 (RFC 8032). `privateKey` must be an Ed25519 key. */
export const sign = (privateKey: KeyObject, message: Uint8Array): Uint8Array =>
  Uint8Array.from(nodeSign(null, message, privateKey))

/**
 * Points of small order, low byte first, without the sign bit. Under such a key anybody can sign
 * anything, and OpenSSL accepts them. The list is the same as in libsodium's
 * `ge25519_has_small_order`.
 */
const SMALL_ORDER = new Set([
  "00".repeat(32),
  `01${"00".repeat(31)}`,
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  `ec${"ff".repeat(30)}7f`,
  `ed${"ff".repeat(30)}7f`,
  `ee${"ff".repeat(30)}7f`
])

const hasSmallOrder = (publicKey: Uint8Array): boolean => {
  const bytes = Buffer.from(publicKey)
  bytes[31] = (bytes[31] ?? 0) & 0x7f
  return SMALL_ORDER.has(bytes.toString("hex"))
}

/**
 * Verifies an Ed25519 signature. Returns `false` if the signature is wrong, and if the key is
 * malformed or has small order. Never throws.
 */
export const verify = (publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean => {
  if (publicKey.length !== PUBLIC_KEY_BYTES || signature.length !== 64 || hasSmallOrder(publicKey)) return false
  try {
    const key = createPublicKey({ key: spkiOf(publicKey), format: "der", type: "spki" })
    return nodeVerify(null, message, key, signature)
  } catch {
    return false
  }
}

/** Returns this many unpredictable bytes. */
export const randomBytes = (length: number): Uint8Array => Uint8Array.from(nodeRandomBytes(length))
/** Returns this many random bytes as lower-case hex, two digits for each byte. */
export const randomHex = (bytes: number): string => nodeRandomBytes(bytes).toString("hex")

export const sha256 = (...parts: ReadonlyArray<Uint8Array | string>): Uint8Array => {
  const hash = createHash("sha256")
  for (const part of parts) hash.update(part)
  return Uint8Array.from(hash.digest())
}

export const hmacSha256 = (key: Uint8Array, message: Uint8Array): Uint8Array =>
  Uint8Array.from(createHmac("sha256", key).update(message).digest())

/**
 * Computes HMAC-SHA1, which STUN requires for MESSAGE-INTEGRITY. Our own protocols do not use it.
 */
export const hmacSha1 = (key: Uint8Array, message: Uint8Array): Uint8Array =>
  Uint8Array.from(createHmac("sha1", key).update(message).digest())

/**
 * Computes MD5, which STUN requires for the key of its long-term credentials. Our own protocols do
 * not use it.
 */
export const md5 = (text: string): Uint8Array => Uint8Array.from(createHash("md5").update(text).digest())

/** Derives a key by HKDF-SHA256 (RFC 5869). `length` is at most 8160 bytes. */
export const hkdfSha256 = (
  secret: Uint8Array,
  salt: Uint8Array,
  info: Uint8Array | string,
  length: number
): Uint8Array => new Uint8Array(hkdfSync("sha256", secret, salt, info, length))

/** Compares two byte strings, in constant time if their lengths are equal. */
export const equal = (left: Uint8Array, right: Uint8Array): boolean =>
  left.length === right.length && timingSafeEqual(left, right)

/** Random bytes as a service, so that tests can control them. */
export class Crypto extends Context.Tag("sallyport/services/Crypto")<Crypto, {
  /** Returns this many unpredictable bytes. */
  readonly randomBytes: (length: number) => Effect.Effect<Uint8Array>
  /** Returns this many random bytes as lower-case hex, two digits for each byte. */
  readonly randomHex: (bytes: number) => Effect.Effect<string>
}>() {}

export const layer: Layer.Layer<Crypto> = Layer.succeed(Crypto, {
  randomBytes: (length) => Effect.sync(() => randomBytes(length)),
  randomHex: (bytes) => Effect.sync(() => randomHex(bytes))
})
