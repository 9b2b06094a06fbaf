/**
 * One ordered byte pipe to a peer, whatever carries it. Who the peer is was proved before anybody gets a `Link`; where bytes
 * are cut on the way says nothing. Reading slower than the peer writes slows the peer, in both carriers.
 */

export type Carrier = "websocket" | "webtransport-h2" | "webtransport-h3"

/** Why a link ended. The numbers are WebSocket's (RFC 6455, section 7.4), and go over WebTransport as they are. */
export const CloseCode = {
  normal: 1000,
  protocol: 1002, // the peer broke the protocol
  policy: 1008, // not allowed, or too slow
  tooBig: 1009,
  restart: 1012, // the server stops: connect again
  full: 1013 // the server has no room: try again later
} as const

export interface Closed {
  /** `network`: nobody said good-bye. */
  readonly by: "here" | "peer" | "network"
  /** 0 when the network took it. */
  readonly code: number
  readonly reason: string
}

/** A QUIC packet of 1,200 bytes, which every path carries, in a relayed frame: fits into one packet of `http3/QuicheHttp3`. */
export const MAX_DATAGRAM_FRAME_BYTES = 1208

/** Beside the pipe: what may be lost, and holds nothing else up when it is. Whole relayed frames, back to back. */
export interface Datagrams {
  /** Of one frame. A longer one finds no way by this carrier, so that peers find out what fits. */
  readonly maxFrameBytes: number
  /** Frames of the largest size have been seen to get through both ways. Until then frames travel by the pipe. */
  readonly isReady: boolean
  /** Takes a copy. What finds no room is dropped: so many, as far as is known here. */
  readonly send: (frames: Uint8Array) => number
  /** Set by whoever reads them; `frames` is valid until it returns. */
  onFrames: ((frames: Uint8Array) => void) | undefined
}

export interface Link {
  readonly carrier: Carrier
  /** Of a link of purpose "relay", where the carrier has them. */
  readonly datagrams?: Datagrams | undefined
  /** `address:port`, for logs. */
  readonly remote: string
  /**
   * SHA-256 of the server's leaf certificate (DER): on a client what its socket saw, on a server what the client signed. If a reverse
   * proxy ends TLS it is that of `LinkHandshake.proxiedName`.
   */
  readonly serverCertSha256: Uint8Array
  /** The next bytes, undefined once the link has ended. One reader at a time. The bytes stay valid. */
  readonly read: () => Promise<Uint8Array | undefined>
  /** Puts bytes back, to be read first. */
  readonly unread: (bytes: Uint8Array) => void
  readonly incoming: AsyncIterable<Uint8Array>
  /** Resolves when the bytes have left the process's buffers for the most part; rejects when the link ended. Do not change them. */
  readonly write: (bytes: Uint8Array) => Promise<void>
  /** Bytes written that still wait in this process. */
  readonly bufferedBytes: () => number
  /** Says good-bye, and lets go a second later at the latest. Only the first call counts. */
  readonly close: (reason: string, code?: number) => void
  /** Lets go at once. */
  readonly destroy: (reason: string) => void
  /** Never rejects. */
  readonly closed: Promise<Closed>
  readonly isClosed: () => boolean
}

/** Bytes received and not read at which the peer is told to wait, and at which it may go on. */
const HIGH_WATER_BYTES = 256 * 1024
const LOW_WATER_BYTES = 64 * 1024
/** How long a good-bye may take. */
const CLOSE_GRACE_MS = 1000
/** RFC 6455, section 5.5: 125 bytes with the code. */
const MAX_REASON_BYTES = 123

/** What WebSocket can say of an end: a code that may be sent (RFC 6455, section 7.4) and a reason that fits. */
export const sendable = (code: number, reason: string): readonly [code: number, reason: Uint8Array] => {
  const isCode = (code >= 1000 && code <= 1014 && code !== 1004 && code !== 1005 && code !== 1006) ||
    (code >= 3000 && code <= 4999)
  const bytes = new TextEncoder().encode(reason)
  let length = Math.min(bytes.length, MAX_REASON_BYTES)
  while (length > 0 && length < bytes.length && (bytes[length]! & 0xc0) === 0x80) length-- // no half of a character
  return [isCode ? code : CloseCode.normal, bytes.subarray(0, length)]
}

export class LinkEnded extends Error {
  override readonly name = "LinkEnded"
}

/** What the carriers share: the queue of received bytes with its water marks, and ending once only. */
export abstract class CarrierLink implements Link {
  abstract readonly carrier: Carrier
  readonly remote: string
  serverCertSha256: Uint8Array
  readonly closed: Promise<Closed>
  private readonly settle: (closed: Closed) => void
  private ended: Closed | undefined // what `closed` says, as soon as it is known
  private done = false // nothing more will come
  private queue: Array<Uint8Array> = []
  private head = 0 // of the queue; what is before it has been read
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
    if (isTimeout(grace)) grace.unref() // a browser's is a number, and keeps nothing running
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

  /** The carrier is over. May be called often; what was received before can still be read, unless this side ended the link. */
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

/** What a close said about itself: codes below 1000 are the carrier's own, so the connection was lost without a word. */
export const closedByPeer = (code: number, reason: string): Closed =>
  code >= 1000 && code !== 1005 && code !== 1006
    ? { by: "peer", code, reason }
    : { by: "network", code: 0, reason: reason === "" ? "the connection was lost" : reason }
