/**
 * Relayed frames as WebTransport datagrams (RFC 9297), on a node's side. Before frames are sent
 * this way, a probe of the largest size goes to the relay and back: QUIC's own handshake does not
 * show that the path carries packets longer than 1,200 bytes (RFC 9000, section 14).
 */
import * as Frame from "../../protocol/bytes/Frame.ts"
import { type Datagrams, MAX_DATAGRAM_FRAME_BYTES } from "../../session/Link.ts"
import type { Http3Connection } from "./Http3Connection.ts"

/** First byte of a probe; no frame begins with it. The relay returns such a datagram unchanged. */
export const PROBE = 0
/**
 * Delay in milliseconds before an unanswered probe is repeated; probing stops after {@link
 * MAX_PROBES}.
 */
const PROBE_MS = 250
const MAX_PROBES = 20

/** Calls `use` with each whole frame. Bytes that are no frame, and all after them, are dropped. */
export const eachFrame = (frames: Uint8Array, use: (frame: Uint8Array) => void): void => {
  for (let at = 0; at < frames.length;) {
    const length = Frame.lengthAt(frames, at)
    if (length === 0) return
    use(frames.subarray(at, at + length))
    at += length
  }
}

/**
 * The datagrams of one link. `isReady` becomes `true` when a probe of the largest size has come
 * back.
 */
export class FrameDatagrams implements Datagrams {
  readonly maxFrameBytes = MAX_DATAGRAM_FRAME_BYTES
  onFrames: ((frames: Uint8Array) => void) | undefined
  #isReady = false
  #probes = 0
  #timer: NodeJS.Timeout | undefined
  readonly #connection: Http3Connection

  constructor(connection: Http3Connection) {
    this.#connection = connection
  }

  get isReady(): boolean {
    return this.#isReady
  }

  /** Sends probes until one comes back. Call it once the session is open. */
  start(): void {
    if (this.#isReady || this.#probes === MAX_PROBES || this.#connection.driver.isClosed) return
    this.#probes += 1
    // All bytes are zero, and so is the first one, PROBE.
    this.#connection.sendDatagram(new Uint8Array(MAX_DATAGRAM_FRAME_BYTES))
    this.#timer = setTimeout(() => this.start(), PROBE_MS)
  }

  stop(): void {
    clearTimeout(this.#timer)
  }

  send(frames: Uint8Array): number {
    let dropped = 0
    eachFrame(frames, (frame) => {
      if (!this.#connection.sendDatagram(frame)) dropped += 1
    })
    return dropped
  }

  /** Handles a datagram of the relay: an echoed probe, or frames. */
  onDatagram(bytes: Uint8Array): void {
    if (bytes[0] === PROBE) {
      this.#isReady ||= bytes.length === MAX_DATAGRAM_FRAME_BYTES
      if (this.#isReady) this.stop()
    } else this.onFrames?.(bytes)
  }
}
