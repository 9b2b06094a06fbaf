/**
 * Tokens of QUIC Retry packets, by which a client proves its address (RFC 9000, section 8.1.2). A
 * token contains the connection id of the client's first packet.
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto"

/** How long a token is valid, in milliseconds. */
const LIFE_MS = 10_000
const HEAD_BYTES = 8
const MAC_BYTES = 16

/** Makes and checks the tokens of QUIC Retry packets with a secret of this process. */
export class RetryTokens {
  readonly #secret = randomBytes(32)

  /** Makes a token. `now` is in milliseconds, monotonic. */
  make(address: string, originalId: Uint8Array, now: number): Buffer {
    const head = Buffer.alloc(HEAD_BYTES)
    head.writeDoubleBE(now + LIFE_MS)
    return Buffer.concat([head, this.#mac(address, head, originalId), originalId])
  }

  /**
   * Checks a token and returns the connection id in it. `null` if the token is not one of ours, is
   * for another address, or is too old.
   */
  check(token: Uint8Array, address: string, now: number): Buffer | null {
    const bytes = Buffer.from(token)
    if (bytes.length <= HEAD_BYTES + MAC_BYTES) return null
    const head = bytes.subarray(0, HEAD_BYTES)
    const mac = bytes.subarray(HEAD_BYTES, HEAD_BYTES + MAC_BYTES)
    const originalId = bytes.subarray(HEAD_BYTES + MAC_BYTES)
    if (!timingSafeEqual(mac, this.#mac(address, head, originalId))) return null
    return now < head.readDoubleBE() ? originalId : null
  }

  #mac(address: string, head: Uint8Array, originalId: Uint8Array): Buffer {
    const mac = createHmac("sha256", this.#secret).update(head).update(`${address}|`).update(originalId)
    return mac.digest().subarray(0, MAC_BYTES)
  }
}
