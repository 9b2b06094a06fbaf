/**
 * Messages of a flow on its data channel (RFC 8831, ordered and reliable). A data channel ends in
 * both directions at once, and it does not tell the sender how fast its reader is. The end of each
 * direction and the room for more bytes are therefore messages of their own:
 *
 *     data   0 | bytes
 *     end    1                 the sender has sent everything
 *     reset  2                 the sender gives up what it was sending
 *     stop   3                 the sender reads no more
 *     window 4 | bytes u32     the peer may send this much more
 *
 * A flow begins with room for `FIRST_WINDOW` in each direction. The bytes of data messages count
 * against it.
 */
/** Types of message, with their numbers on the wire. */
export const Type = { data: 0, end: 1, reset: 2, stop: 3, window: 4 } as const

/** First window of each direction, in bytes. A flow that is not read holds no more than this. */
export const FIRST_WINDOW = 64 * 1024
export const HEAD_BYTES = 1

/** A message of a flow on its data channel. */
export type ChannelMessage =
  /** Bytes of the flow. They are a part of the message, not a copy. */
  | { readonly _tag: "Data"; readonly bytes: Uint8Array }
  | { readonly _tag: "End" }
  | { readonly _tag: "Reset" }
  | { readonly _tag: "Stop" }
  | { readonly _tag: "Window"; readonly bytes: number }

export const end = Uint8Array.of(Type.end)
export const reset = Uint8Array.of(Type.reset)
export const stop = Uint8Array.of(Type.stop)

export const data = (bytes: Uint8Array): Uint8Array => {
  const message = new Uint8Array(HEAD_BYTES + bytes.length)
  message[0] = Type.data
  message.set(bytes, HEAD_BYTES)
  return message
}

/** Encodes a window message: the peer may send `bytes` more. */
export const window = (bytes: number): Uint8Array => {
  const message = new Uint8Array(HEAD_BYTES + 4)
  message[0] = Type.window
  new DataView(message.buffer).setUint32(HEAD_BYTES, bytes)
  return message
}

/** Decodes a message. `null` if the bytes are not one. */
export const decode = (message: Uint8Array): ChannelMessage | null => {
  switch (message[0] ?? NONE) {
    case Type.data:
      return { _tag: "Data", bytes: message.subarray(HEAD_BYTES) }
    case Type.end:
      return message.length === HEAD_BYTES ? END : null
    case Type.reset:
      return message.length === HEAD_BYTES ? RESET : null
    case Type.stop:
      return message.length === HEAD_BYTES ? STOP : null
    case Type.window:
      return message.length === HEAD_BYTES + 4
        ? {
          _tag: "Window",
          bytes: new DataView(message.buffer, message.byteOffset, message.byteLength).getUint32(HEAD_BYTES)
        }
        : null
    default:
      return null
  }
}

const NONE = -1
const END = { _tag: "End" } as const
const RESET = { _tag: "Reset" } as const
const STOP = { _tag: "Stop" } as const
