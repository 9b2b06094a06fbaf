/** Initial packets as anybody can open and make them, whose keys follow from the connection id that they show (RFC 9001, section 5.2). */
import { createCipheriv, createDecipheriv, createHmac } from "node:crypto"

const SALT = Buffer.from("38762cf7f55934b34d179ae6a4c80cadccbb7f0a", "hex")
const TAG_BYTES = 16
const SAMPLE_BYTES = 16

const expand = (secret: Uint8Array, label: string, length: number): Buffer => {
  const name = Buffer.from(`tls13 ${label}`)
  const info = Buffer.concat([Buffer.from([0, length, name.length]), name, Buffer.from([0, 1])])
  return createHmac("sha256", secret).update(info).digest().subarray(0, length)
}

const keysOf = (dcid: Uint8Array) => {
  const initial = createHmac("sha256", SALT).update(dcid).digest()
  const client = expand(initial, "client in", 32)
  return { key: expand(client, "quic key", 16), iv: expand(client, "quic iv", 12), mask: expand(client, "quic hp", 16) }
}

const nonceOf = (iv: Buffer, number: number) => {
  const nonce = Buffer.from(iv)
  nonce.writeUInt32BE((nonce.readUInt32BE(8) ^ number) >>> 0, 8)
  return nonce
}

const maskOf = (key: Buffer, sample: Buffer) => {
  const cipher = createCipheriv("aes-128-ecb", key, null)
  return cipher.update(sample)
}

const varint = (bytes: Buffer, at: number): readonly [value: number, next: number] => {
  const size = 1 << (bytes[at]! >> 6)
  let value = bytes[at]! & 0x3f
  for (let i = 1; i < size; i++) value = value * 256 + bytes[at + i]!
  return [value, at + size]
}

interface Opened {
  readonly dcid: Buffer
  readonly number: number
  readonly frames: Buffer
  /** What came behind it in the same datagram. */
  readonly rest: Buffer
}

const openInitial = (datagram: Buffer): Opened => {
  const dcid = datagram.subarray(6, 6 + datagram[5]!)
  let at = 6 + dcid.length
  at += 1 + datagram[at]!
  const [tokenLength, afterToken] = varint(datagram, at)
  const [length, head] = varint(datagram, afterToken + tokenLength)
  const { iv, key, mask } = keysOf(dcid)
  const bits = maskOf(mask, datagram.subarray(head + 4, head + 4 + SAMPLE_BYTES))
  const clear = Buffer.from(datagram.subarray(0, head + length))
  clear[0]! ^= bits[0]! & 0x0f
  const numberBytes = (clear[0]! & 3) + 1
  let number = 0
  for (let i = 0; i < numberBytes; i++) {
    clear[head + i]! ^= bits[1 + i]!
    number = number * 256 + clear[head + i]!
  }
  const body = head + numberBytes
  const open = createDecipheriv("aes-128-gcm", key, nonceOf(iv, number))
  open.setAAD(clear.subarray(0, body))
  open.setAuthTag(clear.subarray(clear.length - TAG_BYTES))
  const frames = Buffer.concat([open.update(clear.subarray(body, clear.length - TAG_BYTES)), open.final()])
  return { dcid, number, frames, rest: datagram.subarray(head + length) }
}

const sealInitial = (dcid: Buffer, scid: Uint8Array, number: number, frames: Buffer): Buffer => {
  const { iv, key, mask } = keysOf(dcid)
  const length = 4 + frames.length + TAG_BYTES
  const tail = Buffer.alloc(7)
  tail.writeUInt16BE(0x4000 | length, 1) // behind an empty token
  tail.writeUInt32BE(number, 3)
  const head = Buffer.concat([
    Buffer.from([0xc3, 0, 0, 0, 1, dcid.length]),
    dcid,
    Buffer.from([scid.length]),
    scid,
    tail
  ])
  const seal = createCipheriv("aes-128-gcm", key, nonceOf(iv, number))
  seal.setAAD(head)
  const body = Buffer.concat([seal.update(frames), seal.final(), seal.getAuthTag()])
  const bits = maskOf(mask, body.subarray(0, SAMPLE_BYTES))
  const packet = Buffer.concat([head, body])
  packet[0]! ^= bits[0]! & 0x0f
  for (let i = 0; i < 4; i++) packet[head.length - 4 + i]! ^= bits[1 + i]!
  return packet
}

/** The same Initial, from another source connection id. */
export const redress = (datagram: Buffer, scid: Uint8Array): Buffer => {
  const { dcid, frames, number, rest } = openInitial(datagram)
  return Buffer.concat([sealInitial(dcid, scid, number, frames), rest])
}

/** An Initial that begins the same connection from this source, and says nothing but PING. */
export const bare = (datagram: Buffer, scid: Uint8Array, bytes: number): Buffer => {
  const { dcid } = openInitial(datagram)
  const frames = Buffer.alloc(bytes)
  frames[0] = 1
  return sealInitial(dcid, scid, 7, frames)
}
