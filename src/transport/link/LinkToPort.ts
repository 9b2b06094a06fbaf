/**
 * Joins a packet link with a message port: the link lives in the thread of the HTTPS port, its packets are forwarded in
 * another. Whole relayed frames go both ways, gathered into transferred buffers. Hot path: no Effect, no call for a frame.
 */
import type { MessagePort } from "node:worker_threads"
import * as Frame from "../../protocol/Frame.ts"
import type { Link } from "./Link.ts"
import { RelayLinkFrames } from "./RelayLinkFrames.ts"

/** A batch is posted when it has grown to this, or at the end of the event loop's turn. */
const BATCH_BYTES = 64 * 1024

/** Until the port is closed. For every buffer that comes by the port its length is posted back once the link has taken it. */
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

/** Frames back to back, each with its own length; what is no whole frame ends it. */
export const sendEach = (frames: RelayLinkFrames, bytes: Uint8Array): void => {
  let at = 0
  while (at < bytes.length) {
    const length = Frame.lengthAt(bytes, at)
    if (length === 0) return
    frames.send(bytes.subarray(at, at + length))
    at += length
  }
}
