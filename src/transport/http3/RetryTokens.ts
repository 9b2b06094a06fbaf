/** What a client that was sent a Retry shows to prove its address (RFC 9000, section 8.1.2), with the id that it began with inside. */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto"

const LIFE_MS = 10_000
const HEAD_BYTES = 8
const MAC_BYTES = 16

export class RetryTokens {
  readonly #secret = randomBytes(32)

  /** `now`: ms, monotonic. */
  make(address: string, originalId: Uint8Array, now: number): Buffer {
    const head = Buffer.alloc(HEAD_BYTES)
    head.writeDoubleBE(now + LIFE_MS)
    return Buffer.concat([head, this.#mac(address, head, originalId), originalId])
  }

  /** The id that the client began with; null: no token of ours for this address, or one that is too old. */
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
