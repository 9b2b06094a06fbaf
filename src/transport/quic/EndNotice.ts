/**
 * Notices about the ends of streams. Both sides send them on one stream of the session itself,
 * which never ends.
 *
 * quiche 0.18 forgets a stream as soon as its bytes are acknowledged, even if its end is not. An
 * empty FIN or a reset that is lost after that is never sent again, and the reader would wait
 * permanently. Therefore every end is also announced by a notice. A reader that receives the end
 * itself ignores the notice.
 *
 *   kind u8 | stream u32 (its id / 4) | bytes f64 (the stream's total length; 0 for a reset)
 */
import { Buffer } from "node:buffer"

/** Stream that carries the notices: the first one that the client opens. */
export const NOTICE_STREAM = 0
/** Length of an encoded notice. */
export const NOTICE_BYTES = 13
/**
 * First byte that the client writes. It opens the stream, so that the connector can write to it.
 */
export const HELLO = Buffer.from([1])

/** Notice to the peer that the sending side of `stream` ended after `bytes` bytes, or was reset. */
export interface EndNotice {
  readonly kind: "end" | "reset"
  readonly stream: number
  readonly bytes: number
}

const END = 1
const RESET = 2

/** Encodes a notice, as the head of this file describes. */
export const encode = ({ bytes, kind, stream }: EndNotice): Buffer => {
  const notice = Buffer.alloc(NOTICE_BYTES)
  notice[0] = kind === "end" ? END : RESET
  notice.writeUInt32BE(stream / 4, 1)
  notice.writeDoubleBE(bytes, 5)
  return notice
}

/**
 * Decodes a notice. Returns `null` if the bytes are not a notice, which is a protocol violation.
 */
export const decode = (notice: Buffer): EndNotice | null => {
  const [kind] = notice
  if (notice.length !== NOTICE_BYTES || (kind !== END && kind !== RESET)) return null
  const bytes = notice.readDoubleBE(5)
  if (!Number.isSafeInteger(bytes) || bytes < 0) return null
  return { kind: kind === END ? "end" : "reset", stream: notice.readUInt32BE(1) * 4, bytes }
}
