/**
 * Joins a packet link with a message port. The link lives in the thread of the HTTPS port, and
 * another thread forwards its packets. Whole relayed frames travel both ways, collected in
 * transferred buffers. This is a hot path: no Effect, no call per frame.
 */
import type { MessagePort } from "node:worker_threads"
import * as Frame from "../../protocol/bytes/Frame.ts"
import type { Link } from "../../session/Link.ts"
import { RelayLinkFrames } from "./RelayLinkFrames.ts"

/** Size of a batch. It is posted when it is full, or at the end of the event loop's turn. */
const BATCH_BYTES = 64 * 1024

/**
 * Moves buffers between the link and the port until the port is closed. When the link has accepted
 * a buffer that came through the port, the buffer's length is posted back.
 */
export const join = (link: Link, port: MessagePort): void => {
  const batch = Buffer.allocUnsafeSlow(BATCH_BYTES)
  let length = 0
  let due = false
  const flush = () => {
    due = false
    if (length === 0) return
    const bytes = new Uint8Array(batch.subarray(0, length))
    length = 0
    port.postMessage(bytes, [bytes.buffer])
  }
  const frames = new RelayLinkFrames(link, (frame) => {
    if (length + frame.length > batch.length) flush()
    batch.set(frame, length)
    length += frame.length
    if (due) return
    due = true
    setImmediate(flush)
  })
  port.on("message", (bytes: Uint8Array) => {
    sendEach(frames, bytes)
    port.postMessage(bytes.length)
  })
}

/** Sends adjacent frames one by one. Stops at bytes that are not a whole frame. */
export const sendEach = (frames: RelayLinkFrames, bytes: Uint8Array): void => {
  let at = 0
  while (at < bytes.length) {
    const length = Frame.lengthAt(bytes, at)
    if (length === 0) return
    frames.send(bytes.subarray(at, at + length))
    at += length
  }
}
