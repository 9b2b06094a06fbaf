/**
 * One ordered byte stream to a peer, whatever carries it. The peer is authenticated before anybody
 * gets a `Link`. Boundaries between received pieces carry no meaning. In every carrier, reading
 * slower than the peer writes slows the peer down.
 */
import type { LinkCarrier } from "../protocol/path/PathKind.ts"

/** Protocol that carries a link: WebSocket, or WebTransport over HTTP/2 or HTTP/3. */
export type Carrier = LinkCarrier

/**
 * Codes with which a link ends. They are WebSocket's (RFC 6455, section 7.4). WebTransport uses the
 * same ones.
 */
export const CloseCode = {
  normal: 1000,
  /** The peer violated the protocol. */
  protocol: 1002,
  /** The peer is not allowed, or too slow. */
  policy: 1008,
  /** A message is too long. */
  tooBig: 1009,
  /** The server stops. The client should reconnect. */
  restart: 1012
} as const

/** How a link ended. */
export interface Closed {
  /** Who ended the link. `network`: the connection was lost without a close notice. */
  readonly by: "here" | "peer" | "network"
  /** Close code. 0 if the connection was lost. */
  readonly code: number
  /** Reason in words. Empty if none was given. */
  readonly reason: string
}

/**
 * Largest relayed frame sent as a datagram: a QUIC packet of 1,200 bytes, which every path carries,
 * and the frame head. It fits into one packet of `http3/QuicheHttp3`.
 */
export const MAX_DATAGRAM_FRAME_BYTES = 1208

/**
 * Unreliable channel beside the byte stream. It carries whole relayed frames, back to back; a lost
 * one delays nothing else.
 */
export interface Datagrams {
  /**
   * Largest frame this carrier can send. Longer frames are dropped, which is how the peers' MTU
   * probes find the limit.
   */
  readonly maxFrameBytes: number
  /**
   * Whether frames of the largest size are known to get through in both directions. Until then
   * frames travel on the byte stream.
   */
  readonly isReady: boolean
  /**
   * Copies and sends `frames`; frames that do not fit in the queue are dropped. Returns the number
   * known to be dropped.
   */
  readonly send: (frames: Uint8Array) => number
  /** Callback that receives frames, set by their reader. `frames` is valid until it returns. */
  onFrames: ((frames: Uint8Array) => void) | undefined
}

/** One authenticated byte stream to a peer. */
export interface Link {
  readonly carrier: Carrier
  /** Datagrams of a link with the purpose "relay". `undefined` if the carrier has none. */
  readonly datagrams?: Datagrams | undefined
  /** Remote address as `address:port`, for logs. */
  readonly remote: string
  /**
   * SHA-256 of the server's leaf certificate (DER). On a client it is the certificate that its
   * socket saw; on a server, the one that the client signed. Behind a reverse proxy that ends TLS
   * it is the hash of `LinkHandshake.proxiedName`.
   */
  readonly serverCertSha256: Uint8Array
  /**
   * Returns the next bytes, or `undefined` once the link has ended. Only one reader at a time. The
   * bytes stay valid.
   */
  readonly read: () => Promise<Uint8Array | undefined>
  /** Puts bytes back. The next `read` returns them first. */
  readonly unread: (bytes: Uint8Array) => void
  /** The received bytes, as a sequence that ends with the link. */
  readonly incoming: AsyncIterable<Uint8Array>
  /**
   * Writes bytes, which the caller must not change afterwards. Resolves when most of them have left
   * the process's buffers; rejects with `LinkEnded` or the carrier's error when the link has ended.
   */
  readonly write: (bytes: Uint8Array) => Promise<void>
  /** Number of written bytes that still wait in this process. */
  readonly bufferedBytes: () => number
  /**
   * Sends a close notice and releases the connection within a second. Only the first call has an
   * effect.
   */
  readonly close: (reason: string, code?: number) => void
  /** Releases the connection at once. */
  readonly destroy: (reason: string) => void
  /** Resolves when the link has ended. Never rejects. */
  readonly closed: Promise<Closed>
  readonly isClosed: () => boolean
}

/** Received bytes in the queue from which the peer is paused. */
const HIGH_WATER_BYTES = 256 * 1024
/** Received bytes in the queue at which a paused peer may continue. */
const LOW_WATER_BYTES = 64 * 1024
/** How long a close notice may take. */
const CLOSE_GRACE_MS = 1000
/** Longest reason in a close notice: 125 bytes with the code (RFC 6455, section 5.5). */
const MAX_REASON_BYTES = 123

/**
 * Makes a code and a reason fit for WebSocket: a permitted code (RFC 6455, section 7.4) and a
 * reason that is not too long.
 */
export const sendable = (code: number, reason: string): readonly [code: number, reason: Uint8Array] => {
  const isCode = (code >= 1000 && code <= 1014 && code !== 1004 && code !== 1005 && code !== 1006) ||
    (code >= 3000 && code <= 4999)
  const bytes = new TextEncoder().encode(reason)
  let length = Math.min(bytes.length, MAX_REASON_BYTES)
  // do not split a character
  while (length > 0 && length < bytes.length && (bytes[length]! & 0xc0) === 0x80) length--
  return [isCode ? code : CloseCode.normal, bytes.subarray(0, length)]
}

/** Error when the link ended before the operation was complete. */
export class LinkEnded extends Error {
  override readonly name = "LinkEnded"
}

/**
 * Common part of the carriers' links: the queue of received bytes with its water marks, and the
 * end, which happens once.
 */
export abstract class CarrierLink implements Link {
  abstract readonly carrier: Carrier
  readonly remote: string
  serverCertSha256: Uint8Array
  readonly closed: Promise<Closed>
  private readonly settle: (closed: Closed) => void
  /** The value of `closed`, as soon as it is known. */
  private ended: Closed | undefined
  /** Whether no more bytes will arrive. */
  private done = false
  private queue: Array<Uint8Array> = []
  /** Index of the first unread entry in `queue`. */
  private head = 0
  private queuedBytes = 0
  private paused = false
  private waiting: ((bytes: Uint8Array | undefined) => void) | undefined

  constructor(remote: string, serverCertSha256: Uint8Array) {
    this.remote = remote
    this.serverCertSha256 = serverCertSha256
    let settle: (closed: Closed) => void = () => {}
    this.closed = new Promise((resolve) => {
      settle = resolve
    })
    this.settle = settle
  }

  abstract bufferedBytes(): number
  protected abstract send(bytes: Uint8Array): Promise<void>
  /** Sends the carrier's close notice with this code and reason. */
  protected abstract sendClose(code: number, reason: string): void
  protected abstract destroySocket(): void
  protected abstract pause(): void
  protected abstract resume(): void

  isClosed(): boolean {
    return this.ended !== undefined
  }

  write(bytes: Uint8Array): Promise<void> {
    return this.ended === undefined ? this.send(bytes) : Promise.reject(new LinkEnded(this.ended.reason))
  }

  read(): Promise<Uint8Array | undefined> {
    const next = this.queue[this.head]
    if (next === undefined) {
      return this.done ? Promise.resolve(undefined) : new Promise((resolve) => {
        this.waiting = resolve
      })
    }
    this.head++
    this.queuedBytes -= next.length
    if (this.head === this.queue.length) {
      this.queue = []
      this.head = 0
    }
    if (this.paused && this.queuedBytes <= LOW_WATER_BYTES) {
      this.paused = false
      this.resume()
    }
    return Promise.resolve(next)
  }

  unread(bytes: Uint8Array): void {
    if (bytes.length === 0) return
    this.queue = [bytes, ...this.queue.slice(this.head)]
    this.head = 0
    this.queuedBytes += bytes.length
  }

  get incoming(): AsyncIterable<Uint8Array> {
    return {
      [Symbol.asyncIterator]: () => ({
        next: async () => {
          const value = await this.read()
          return value === undefined ? { done: true, value: undefined } : { done: false, value }
        }
      })
    }
  }

  close(reason: string, code: number = CloseCode.normal): void {
    if (this.ended !== undefined) return
    this.ended = { by: "here", code, reason }
    this.finishReading()
    const grace: unknown = setTimeout(() => this.finish(), CLOSE_GRACE_MS)
    // in browsers a timer is a number and does not keep a process running
    if (isTimeout(grace)) grace.unref()
    try {
      this.sendClose(code, reason)
    } catch {
      this.finish()
    }
  }

  destroy(reason: string): void {
    this.ended ??= { by: "here", code: 0, reason }
    this.finish()
  }

  protected deliver(bytes: Uint8Array): void {
    if (this.done || bytes.length === 0) return
    if (this.waiting !== undefined) {
      const wake = this.waiting
      this.waiting = undefined
      wake(bytes)
      return
    }
    this.queue.push(bytes)
    this.queuedBytes += bytes.length
    if (!this.paused && this.queuedBytes >= HIGH_WATER_BYTES) {
      this.paused = true
      this.pause()
    }
  }

  /**
   * Ends the link, because the carrier has ended. It may be called more than once. Bytes received
   * before can still be read, unless this side ended the link.
   */
  protected finish(closed: Closed = { by: "network", code: 0, reason: "the connection was lost" }): void {
    this.ended ??= closed
    this.finishReading()
    this.destroySocket()
    this.settle(this.ended)
  }

  private finishReading(): void {
    if (this.done) return
    this.done = true
    if (this.ended?.by === "here") {
      this.queue = []
      this.head = 0
    }
    const wake = this.waiting
    this.waiting = undefined
    wake?.(undefined)
  }
}

const isTimeout = (timer: unknown): timer is { readonly unref: () => void } => typeof timer === "object"

/**
 * Interprets the close code and reason that the carrier reports. Codes below 1000, 1005 and 1006
 * are not sent by a peer, so the connection was lost without a close notice.
 */
export const closedByPeer = (code: number, reason: string): Closed =>
  code >= 1000 && code !== 1005 && code !== 1006
    ? { by: "peer", code, reason }
    : { by: "network", code: 0, reason: reason === "" ? "the connection was lost" : reason }
