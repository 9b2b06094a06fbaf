/**
 * What both sides say, on a stream of the session's own that never ends, about the ends of all others. quiche 0.18 forgets a
 * stream as soon as its bytes are acknowledged, though not its end: an empty FIN (or a reset) that is lost then is never sent
 * again, and the reader would wait for ever. A notice is sent for every end; when the end itself came, it is not needed.
 *
 *   kind u8 | stream u32 (its id / 4) | bytes f64 (how many the stream had in all; 0 for a reset)
 */
import { Buffer } from "node:buffer"

/** The first stream that the client opens, before any of its owner's. */
export const NOTICE_STREAM = 0
export const NOTICE_BYTES = 13
/** What the client writes first, so that the connector has a stream to write to. */
export const HELLO = Buffer.from([1])

export interface EndNotice {
  readonly kind: "end" | "reset"
  readonly stream: number
  readonly bytes: number
}

const END = 1
const RESET = 2

export const encode = ({ bytes, kind, stream }: EndNotice): Buffer => {
  const notice = Buffer.alloc(NOTICE_BYTES)
  notice[0] = kind === "end" ? END : RESET
  notice.writeUInt32BE(stream / 4, 1)
  notice.writeDoubleBE(bytes, 5)
  return notice
}

/** Null: not a notice; the peer breaks the protocol. */
export const decode = (notice: Buffer): EndNotice | null => {
  const [kind] = notice
  if (notice.length !== NOTICE_BYTES || (kind !== END && kind !== RESET)) return null
  const bytes = notice.readDoubleBE(5)
  if (!Number.isSafeInteger(bytes) || bytes < 0) return null
  return { kind: kind === END ? "end" : "reset", stream: notice.readUInt32BE(1) * 4, bytes }
}
