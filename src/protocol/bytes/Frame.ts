/**
 * Heads of our UDP frames, and the kinds of datagrams by their first byte (after RFC 9443).
 * Big-endian:
 *
 *     direct    0x30 | length >> 8, length & 255
 *     relayed   0x20 | length >> 8, length & 255, tag (6 bytes)
 *
 * The length includes the head. The kernel may join several frames in one buffer, so buffers are
 * cut by these lengths. Everything here runs for each packet: nothing allocates, nothing throws.
 */

/** Length of a direct frame's head, in bytes. */
export const DIRECT_HEAD_BYTES = 2
/** Length of a relayed frame's head, in bytes. */
export const RELAYED_HEAD_BYTES = 8
/** Longest frame, in bytes: the length field has 12 bits. */
export const MAX_FRAME_BYTES = 0xfff
/** Length of a tag, in bytes. */
export const TAG_BYTES = 6
/** Tag of frames to and from the relay itself. No session has it. */
export const CONTROL_TAG = 0

/**
 * Kinds of datagram, which the first byte shows. They are numbers, because code compares them for
 * each packet.
 */
export const Kind = { foreign: 0, stun: 1, direct: 2, relayed: 3 } as const
export type Kind = typeof Kind[keyof typeof Kind]

/** Returns the kind of a datagram or frame by its first byte. */
export const kindOfFirstByte = (byte: number): Kind =>
  byte <= 3 ? Kind.stun : (byte & 0xf0) === 0x30 ? Kind.direct : (byte & 0xf0) === 0x20 ? Kind.relayed : Kind.foreign

/** Returns the length of a frame's head. 0 if the kind is not one of our frames. */
export const headBytesOfKind = (kind: Kind): number =>
  kind === Kind.relayed ? RELAYED_HEAD_BYTES : kind === Kind.direct ? DIRECT_HEAD_BYTES : 0

/**
 * Writes the head of a direct frame. `length` is that of the whole frame, {@link DIRECT_HEAD_BYTES}
 * to {@link MAX_FRAME_BYTES}.
 */
export const writeDirectHead = (buf: Uint8Array, at: number, length: number): void => {
  buf[at] = 0x30 | (length >> 8)
  buf[at + 1] = length & 255
}

/**
 * Writes the head of a relayed frame. `length` is that of the whole frame,
 * {@link RELAYED_HEAD_BYTES} to {@link MAX_FRAME_BYTES}. `tag` is from 0 to 2^48 - 1.
 */
export const writeRelayedHead = (buf: Uint8Array, at: number, length: number, tag: number): void => {
  buf[at] = 0x20 | (length >> 8)
  buf[at + 1] = length & 255
  writeTag(buf, at + 2, tag)
}

/**
 * Returns the length of the frame that starts at `at`, head included. 0 if no whole frame of ours
 * starts there: other bytes, a length shorter than the head, or one that runs past the end.
 */
export const lengthAt = (buf: Uint8Array, at: number): number => {
  if (at < 0 || at + DIRECT_HEAD_BYTES > buf.length) return 0
  const first = buf[at]!
  const length = ((first & 15) << 8) | buf[at + 1]!
  const head = headBytesOfKind(kindOfFirstByte(first))
  return head === 0 || length < head || at + length > buf.length ? 0 : length
}

/**
 * Returns the tag of the relayed frame at `at`. The caller has checked with `lengthAt` that the
 * frame is whole.
 */
export const tagAt = (buf: Uint8Array, at: number): number => readTag(buf, at + 2)

/** Reads a tag of six bytes, from 0 to 2^48 - 1. The caller has checked that they are there. */
export const readTag = (buf: Uint8Array, at: number): number =>
  ((buf[at]! << 8) | buf[at + 1]!) * 0x1_0000_0000 +
  (((buf[at + 2]! << 24) | (buf[at + 3]! << 16) | (buf[at + 4]! << 8) | buf[at + 5]!) >>> 0)

/** Writes a tag, from 0 to 2^48 - 1, as six bytes. */
export const writeTag = (buf: Uint8Array, at: number, tag: number): void => {
  const high = Math.floor(tag / 0x1_0000_0000)
  const low = tag >>> 0
  buf[at] = high >>> 8
  buf[at + 1] = high & 255
  buf[at + 2] = low >>> 24
  buf[at + 3] = (low >>> 16) & 255
  buf[at + 4] = (low >>> 8) & 255
  buf[at + 5] = low & 255
}

/** Reads a tag from the 12 hex digits in which tickets write it. `NaN` for other text. */
export const tagFromHex = (hex: string): number => /^[0-9a-f]{12}$/.test(hex) ? Number.parseInt(hex, 16) : Number.NaN

/**
 * Returns the length, in bytes, of a run of frames that begins at `at`. All its frames have the
 * same kind, length and (relayed) tag; the last one may be shorter. The kernel joins such frames in
 * one buffer, and they can be sent together as one train. 0 if no frame begins there.
 */
export const runAt = (buf: Uint8Array, at: number): number => {
  const length = lengthAt(buf, at)
  if (length === 0) return 0
  const relayed = (buf[at]! & 0xf0) === 0x20
  let end = at + length
  for (;;) {
    const next = lengthAt(buf, end)
    if (next === 0 || next > length || !sameStream(buf, at, end, relayed)) return end - at
    end += next
    if (next < length) return end - at
  }
}

const sameStream = (buf: Uint8Array, a: number, b: number, relayed: boolean): boolean => {
  if ((buf[a]! & 0xf0) !== (buf[b]! & 0xf0)) return false
  if (!relayed) return true
  for (let i = 2; i < RELAYED_HEAD_BYTES; i++) if (buf[a + i] !== buf[b + i]) return false
  return true
}
