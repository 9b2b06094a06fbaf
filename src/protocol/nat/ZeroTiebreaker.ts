/**
 * Chromium checks its candidates of TURN over TCP with a tiebreaker of 0, which RFC 8445 (section
 * 16.1) allows. libjuice takes 0 for a missing attribute and refuses the check with 400. The host
 * of the libjuice agent can put another tiebreaker in, because it has the password under which
 * checks are signed. The tiebreaker matters only if both ends claim the same role.
 */
import * as Stun from "./Stun.ts"

const BINDING_REQUEST = 0x0001
const MESSAGE_INTEGRITY = 0x0008
const USERNAME = 0x0006
const ICE_CONTROLLED = 0x8029
const ICE_CONTROLLING = 0x802a
const FINGERPRINT = 0x8028
const INTEGRITY_BYTES = 20
const OTHER_TIEBREAKER = 1

export interface Keys {
  /** Returns the password of a local user fragment. `undefined` if there is none. */
  readonly passwordOf: (ufrag: string) => string | undefined
  readonly hmacSha1: (key: Uint8Array, message: Uint8Array) => Uint8Array
}

const text = new TextEncoder()

/**
 * Replaces a tiebreaker of 0 in `message`, in place, and signs the message again. Only a message
 * with a valid signature is changed. Returns whether it was.
 */
export const replace = (message: Uint8Array, keys: Keys): boolean => {
  const view = new DataView(message.buffer, message.byteOffset, message.length)
  if (message.length < Stun.HEADER_BYTES || view.getUint16(0) !== BINDING_REQUEST) return false
  if (view.getUint32(4) !== Stun.MAGIC_COOKIE || view.getUint16(2) !== message.length - Stun.HEADER_BYTES) return false
  const at = attributesOf(view)
  const role = at.get(ICE_CONTROLLING) ?? at.get(ICE_CONTROLLED)
  const [integrity, username] = [at.get(MESSAGE_INTEGRITY), at.get(USERNAME)]
  if (role === undefined || integrity === undefined || username === undefined || integrity < role) return false
  if (view.getUint16(role + 2) !== 8 || view.getBigUint64(role + 4) !== 0n) return false
  const end = integrity + 4 + INTEGRITY_BYTES
  if (view.getUint16(integrity + 2) !== INTEGRITY_BYTES || end > message.length) return false
  const name = message.subarray(username + 4, username + 4 + view.getUint16(username + 2))
  const password = keys.passwordOf(new TextDecoder().decode(name).split(":")[0]!)
  if (password === undefined) return false
  const sign = () => {
    const signed = Uint8Array.from(message.subarray(0, integrity))
    new DataView(signed.buffer).setUint16(2, end - Stun.HEADER_BYTES)
    return keys.hmacSha1(text.encode(password), signed)
  }
  const signature = sign()
  if (!signature.every((byte, i) => byte === message[integrity + 4 + i])) return false
  view.setBigUint64(role + 4, BigInt(OTHER_TIEBREAKER))
  message.set(sign(), integrity + 4)
  const fingerprint = at.get(FINGERPRINT)
  if (fingerprint !== undefined) view.setUint32(fingerprint + 4, Stun.fingerprint(view, fingerprint))
  return true
}

/** Offsets at which the attributes begin. Empty from the first one on that does not fit. */
const attributesOf = (view: DataView): ReadonlyMap<number, number> => {
  const found = new Map<number, number>()
  let at = Stun.HEADER_BYTES
  while (at + 4 <= view.byteLength) {
    const next = at + 4 + ((view.getUint16(at + 2) + 3) & ~3)
    if (next > view.byteLength) break
    if (!found.has(view.getUint16(at))) found.set(view.getUint16(at), at)
    at = next
  }
  return found
}
