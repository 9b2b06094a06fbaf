/**
 * Authenticates the clients of a TURN server by the long-term credential mechanism (RFC 8489,
 * section 9.2), with credentials that signaling has issued. It keeps no state per client: a nonce
 * is a MAC over the 5-tuple and its time.
 */
import { Buffer } from "node:buffer"
import * as Turn from "../../protocol/relay/Turn.ts"
import type * as TurnAllocations from "../../protocol/relay/TurnAllocations.ts"
import * as Crypto from "../../services/host/Crypto.ts"
import * as TurnCredentials from "../../services/identity/TurnCredentials.ts"

/**
 * Authentication realm. It is short, so that a challenge is no longer than a client's first
 * request.
 */
export const REALM = "turn"
/** Period of nonces. A nonce is valid for one to two periods. */
export const NONCE_PERIOD_MS = 600_000
const NONCE_BYTES = 9
/**
 * Nonce prefix that announces support for PASSWORD-ALGORITHMS (RFC 8489, sections 9.2 and 18.1: bit
 * 0 of 24, in base64).
 */
const FEATURES = "obMatJos2AAAB"

/** Result of checking a request's credentials: an error code, or the client that sent it. */
export type Checked =
  | { readonly _tag: "Refused"; readonly code: 400 | 401 | 438 }
  | {
    readonly _tag: "Known"
    readonly asker: TurnAllocations.Asker
    /** Signs the answer with the key and the hash of the request. */
    readonly signer: Turn.Signer
  }

/** Options of the authentication. `secret` is the one with which signaling issues credentials. */
export interface Options {
  readonly secret: TurnCredentials.Secret
  readonly epochSeconds: () => number
}

const refused = (code: 400 | 401 | 438): Checked => ({ _tag: "Refused", code })
const text = new TextEncoder()

/** Checks the credentials of a server's clients. */
export class TurnAuth {
  readonly #options: Options
  readonly #nonceKey = Crypto.randomBytes(32)
  /**
   * Revoked nodes by name. Credentials issued up to `issuedBy` are refused; the entry is kept until
   * `until`. Both are epoch seconds.
   */
  readonly #revoked = new Map<string, { readonly issuedBy: number; readonly until: number }>()

  constructor(options: Options) {
    this.#options = options
  }

  /**
   * Returns the fields of a challenge. With `algorithms` it follows RFC 8489. Otherwise it follows
   * RFC 5389, which is 28 bytes shorter.
   */
  challenge(client: TurnAllocations.Client, now: number, algorithms: boolean): Turn.Fields {
    const nonce = this.#nonce(client, Math.floor(now / NONCE_PERIOD_MS))
    return algorithms
      ? { realm: REALM, nonce: FEATURES + nonce, passwordAlgorithms: Turn.OFFERED_ALGORITHMS }
      : { realm: REALM, nonce }
  }

  /**
   * Verifies the credentials of a request. The error codes are those of RFC 8489, section 9.2.4.
   */
  check(bytes: Uint8Array, message: Turn.Message, client: TurnAllocations.Client, now: number): Checked {
    const { macs, nonce, passwordAlgorithm, passwordAlgorithms, realm, username } = message
    if (macs.sha1At === 0 && macs.sha256At === 0) return refused(401)
    if (username === null || realm === null || nonce === null) return refused(400)
    const sha256 = passwordAlgorithm === Turn.PasswordAlgorithm.sha256
    if ((passwordAlgorithm === null) !== (passwordAlgorithms === null)) return refused(400)
    if (passwordAlgorithms !== null && !Crypto.equal(passwordAlgorithms, Turn.OFFERED_ALGORITHMS)) return refused(400)
    if (!sha256 && passwordAlgorithm !== null && passwordAlgorithm !== Turn.PasswordAlgorithm.md5) return refused(400)
    const user = TurnCredentials.parse(username)
    if (user === null || realm !== REALM) return refused(401)
    const credentials = `${username}:${REALM}:${TurnCredentials.passwordOf(this.#options.secret, username)}`
    const signer = signerOf(sha256 ? Crypto.sha256(credentials) : Crypto.md5(credentials), macs.sha256At !== 0)
    if (!isSigned(bytes, macs, signer)) return refused(401)
    if (!this.#isCurrent(user, message.method)) return refused(401)
    if (!this.#isNonce(nonce, client, now)) return refused(438)
    return { _tag: "Known", asker: { client, username, userId: user.name }, signer }
  }

  /** Refuses credentials that were issued to this node up to `at` (epoch seconds). */
  revoke(name: string, at: number): void {
    if (at < (this.#revoked.get(name)?.issuedBy ?? 0)) return
    this.#revoked.set(name, { issuedBy: at, until: at + TurnCredentials.KEEP_SECONDS })
  }

  /** Drops revocations that have expired. Must be called about once a second. */
  tick(): void {
    const now = this.#options.epochSeconds()
    for (const [name, { until }] of this.#revoked) if (until <= now) this.#revoked.delete(name)
  }

  #isCurrent({ expiresAt, name }: TurnCredentials.User, method: number): boolean {
    const now = this.#options.epochSeconds()
    const issuedAt = expiresAt - TurnCredentials.LIFETIME_SECONDS
    if (issuedAt <= (this.#revoked.get(name)?.issuedBy ?? 0)) return false
    return now < (method === Turn.Method.allocate ? expiresAt : issuedAt + TurnCredentials.KEEP_SECONDS)
  }

  #nonce(client: TurnAllocations.Client, period: number): string {
    const bytes = new Uint8Array(NONCE_BYTES)
    bytes[0] = period >>> 8
    bytes[1] = period
    const mac = Crypto.hmacSha256(this.#nonceKey, text.encode(`${period} ${client.tuple}`))
    bytes.set(mac.subarray(0, NONCE_BYTES - 2), 2)
    return Buffer.from(bytes).toString("base64url")
  }

  #isNonce(nonce: string, client: TurnAllocations.Client, now: number): boolean {
    const period = Math.floor(now / NONCE_PERIOD_MS)
    const given = text.encode(nonce.startsWith(FEATURES) ? nonce.slice(FEATURES.length) : nonce)
    return [period, period - 1].some((each) => Crypto.equal(given, text.encode(this.#nonce(client, each))))
  }
}

/** Returns a signer with `key`, for HMAC-SHA256 or HMAC-SHA1. */
export const signerOf = (key: Uint8Array, sha256: boolean): Turn.Signer =>
  sha256
    ? { macBytes: Turn.SHA256_BYTES, mac: (input) => Crypto.hmacSha256(key, input) }
    : { macBytes: Turn.SHA1_BYTES, mac: (input) => Crypto.hmacSha1(key, input) }

/** Whether the message's MAC is valid. If it has two, the stronger one is checked. */
const isSigned = (bytes: Uint8Array, { sha1At, sha256At, sha256Bytes }: Turn.Macs, signer: Turn.Signer): boolean => {
  const at = sha256At === 0 ? sha1At : sha256At
  const length = sha256At === 0 ? Turn.SHA1_BYTES : sha256Bytes
  const expected = signer.mac(Turn.macInput(bytes, at, length)).subarray(0, length)
  return Crypto.equal(bytes.subarray(at + 4, at + 4 + length), expected)
}
