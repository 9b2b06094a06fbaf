/**
 * Seals a session's path messages. Only the two ends can make, read or change one, and a replayed
 * one is rejected. Layout, big-endian:
 *
 * - byte 0x01
 * - hint, 8 bytes
 * - counter, u64
 * - ciphertext
 * - tag, 16 bytes
 *
 * The cipher is AES-128-GCM. The nonce is 4 zero bytes and the counter, and everything before the
 * ciphertext is authenticated as well. Keys and hints come from the session's secret by
 * HKDF-SHA256, one of each per direction, so neither side uses the other's nonces.
 */
import * as Crypto from "node:crypto"
import type { Role } from "../../protocol/path/PathRef.ts"

/** Length of a session's secret. */
export const SECRET_BYTES = 32
/** Length of the hint by which a message finds its session. */
export const HINT_BYTES = 8
/** Bytes before the ciphertext. */
export const HEAD_BYTES = 1 + HINT_BYTES + 8
/** Length of the authentication tag after the ciphertext. */
export const TAG_BYTES = 16
/** Bytes that sealing adds to a message. */
export const OVERHEAD_BYTES = HEAD_BYTES + TAG_BYTES
/** How far behind the newest counter a message may arrive, in messages. */
export const REPLAY_WINDOW = 64

const SEALED = 0x01
/** Last part of the label from which keys are derived. There is only this generation. */
const KEY_GENERATION = 0
const KEY_BYTES = 16
const NONCE_BYTES = 12
const ALGORITHM = "aes-128-gcm"

/**
 * Reason why a sealed message was not opened. `not_ours`: it has another first byte or hint.
 * `replayed`: it was received before, or is too old to tell. `forged`: it has the wrong key, was
 * changed, or is noise.
 */
export type Rejected = "too_short" | "not_ours" | "replayed" | "forged"

/** Options of {@link ProbeSeal}. */
export interface Options {
  /** Secret of `SECRET_BYTES` random bytes that both ends know. The object does not keep it. */
  readonly secret: Uint8Array
  readonly role: Role
}

/** Seals and opens the path messages of one end of a session. */
export class ProbeSeal {
  /**
   * Bytes that follow the first byte of the peer's messages. They assign a datagram from any
   * address to its session.
   */
  readonly hintIn: Uint8Array
  readonly hintOut: Uint8Array
  readonly #keyIn: Crypto.KeyObject
  readonly #keyOut: Crypto.KeyObject
  readonly #nonce = Buffer.alloc(NONCE_BYTES)
  /** Counter of the next message to send. It cannot run out of its 2^64 values. */
  #counter = 0n
  /** The highest counter that was opened. */
  #newest = -1n
  /** Counters that were opened: bit `i` stands for `newest - i`. */
  #window = 0n

  /** Throws a `RangeError` if the secret has another length, which is a bug of the caller. */
  constructor(options: Options) {
    if (options.secret.length !== SECRET_BYTES) {
      throw new RangeError(`the probe secret must be ${SECRET_BYTES} bytes long`)
    }
    const forward = derive(options.secret, "client->connector")
    const back = derive(options.secret, "connector->client")
    const [out, inn] = options.role === "client" ? [forward, back] : [back, forward]
    this.#keyOut = out.key
    this.hintOut = out.hint
    this.#keyIn = inn.key
    this.hintIn = inn.hint
  }

  /** Seals a message. The caller owns the result. */
  seal(plaintext: Uint8Array): Uint8Array {
    const out = Buffer.allocUnsafe(plaintext.length + OVERHEAD_BYTES)
    out[0] = SEALED
    out.set(this.hintOut, 1)
    out.writeBigUInt64BE(this.#counter++, 1 + HINT_BYTES)
    const cipher = Crypto.createCipheriv(ALGORITHM, this.#keyOut, this.#nonceOf(out))
    cipher.setAAD(out.subarray(0, HEAD_BYTES))
    out.set(cipher.update(plaintext), HEAD_BYTES)
    cipher.final()
    out.set(cipher.getAuthTag(), HEAD_BYTES + plaintext.length)
    return out
  }

  /**
   * Opens a message. Returns the plaintext, which the caller owns, or the reason why it was
   * rejected. A rejected datagram changes nothing.
   */
  open(sealed: Uint8Array): Uint8Array | Rejected {
    if (sealed.length < OVERHEAD_BYTES) return "too_short"
    const bytes = Buffer.from(sealed.buffer, sealed.byteOffset, sealed.length)
    if (bytes[0] !== SEALED || this.hintIn.some((byte, i) => bytes[1 + i] !== byte)) return "not_ours"
    const counter = bytes.readBigUInt64BE(1 + HINT_BYTES)
    // This comes before decryption, so that a flood of replayed messages costs little.
    if (!this.#isFresh(counter)) return "replayed"
    const end = bytes.length - TAG_BYTES
    const decipher = Crypto.createDecipheriv(ALGORITHM, this.#keyIn, this.#nonceOf(bytes))
    decipher.setAAD(bytes.subarray(0, HEAD_BYTES))
    decipher.setAuthTag(bytes.subarray(end))
    const plaintext = decipher.update(bytes.subarray(HEAD_BYTES, end))
    try {
      decipher.final()
    } catch {
      return "forged"
    }
    this.#remember(counter)
    return plaintext
  }

  #nonceOf(message: Buffer): Buffer {
    message.copy(this.#nonce, 4, 1 + HINT_BYTES, HEAD_BYTES)
    return this.#nonce
  }

  #isFresh(counter: bigint): boolean {
    const behind = this.#newest - counter
    return behind < 0n || (behind < BigInt(REPLAY_WINDOW) && ((this.#window >> behind) & 1n) === 0n)
  }

  /**
   * Marks a counter as opened. Call it only after the tag has been checked, because a forger must
   * not be able to move the window.
   */
  #remember(counter: bigint): void {
    const ahead = counter - this.#newest
    if (ahead <= 0n) {
      this.#window |= 1n << -ahead
      return
    }
    this.#window = ahead >= BigInt(REPLAY_WINDOW) ? 1n : BigInt.asUintN(REPLAY_WINDOW, this.#window << ahead) | 1n
    this.#newest = counter
  }
}

const derive = (secret: Uint8Array, direction: string): { key: Crypto.KeyObject; hint: Uint8Array } => {
  const info = `sallyport/probe/1\0${direction}\0${KEY_GENERATION}`
  const bytes = Buffer.from(Crypto.hkdfSync("sha256", secret, new Uint8Array(0), info, KEY_BYTES + HINT_BYTES))
  const key = Crypto.createSecretKey(bytes.subarray(0, KEY_BYTES))
  const hint = Uint8Array.from(bytes.subarray(KEY_BYTES))
  bytes.fill(0)
  return { key, hint }
}
