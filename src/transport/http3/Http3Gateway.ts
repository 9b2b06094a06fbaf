/**
 * Connects WebTransport sessions on HTTP/3 to the process that serves links. Each session becomes a
 * WebSocket on a unix socket that only this program can open. Answers, bytes, back-pressure and the
 * end are passed on unchanged; the gateway does not know what a link is.
 */
import { connect } from "node:net"
import { WebSocket } from "ws"
import * as Frame from "../../protocol/bytes/Frame.ts"
import { ErrorCode, type Request } from "../../protocol/http3/Http3.ts"
import { type Closed, closedByPeer, sendable } from "../../session/Link.ts"
import { CERT_HEADER, REMOTE_HEADER } from "../carrier/WebSocketCarrier.ts"
import { eachFrame, PROBE } from "./FrameDatagrams.ts"
import type { SessionClosed } from "./Http3Connection.ts"
import type { Handlers, Newcomer } from "./Http3Listener.ts"

/** Bytes waiting in one direction at which its sender is paused. */
const HIGH_WATER_BYTES = 256 * 1024
/** Bytes waiting in one direction at which its paused sender resumes. */
const LOW_WATER_BYTES = 64 * 1024
/** Longest message that the other process takes, in bytes. */
const MAX_MESSAGE_BYTES = 128 * 1024
/** Bytes waiting for the other process above which datagrams are dropped. */
const MAX_BACKLOG_BYTES = 1024 * 1024
/** Time in milliseconds that the peer has to end the connection after the end of its session. */
const CLOSE_GRACE_MS = 1500
/** HTTP status (RFC 9110, section 15) for a path that does not exist. */
const NOT_FOUND = 404
/** HTTP status (RFC 9110, section 15) if no process serves links now. */
const BAD_GATEWAY = 502

/** The gateway of one connection. Its `handlers` receive the connection's events. */
export class Gateway {
  readonly handlers: Handlers
  readonly #newcomer: Newcomer
  readonly #socketPath: string
  readonly #stuckMs: number
  /**
   * WebSocket to the other process: binary messages are the stream's bytes, text messages
   * datagrams.
   */
  #ws: WebSocket | null = null
  /** Whether the peer's stream is paused. */
  #isHeld = false
  #isOver = false
  #stuck: NodeJS.Timeout | undefined
  /**
   * Datagrams for the other process. They are sent as one message in each turn of the event loop.
   */
  #batch: Array<Uint8Array> = []

  /**
   * `socketPath` is the other process's socket. A peer that reads nothing for `stuckMs`
   * milliseconds is cut off, because the other process cannot reach it any more.
   */
  constructor(newcomer: Newcomer, socketPath: string, stuckMs: number) {
    this.#newcomer = newcomer
    this.#stuckMs = stuckMs
    this.#socketPath = socketPath
    this.handlers = {
      onRequest: (request) => this.#onRequest(request),
      onBytes: (bytes) => this.#onBytes(bytes),
      onDatagram: (bytes) => this.#onDatagram(bytes),
      onDrain: () => this.#onDrain(),
      onEnd: (closed) => this.#onEnd(closed)
    }
  }

  #onRequest({ path, scheme }: Request): void {
    const { certSha256, connection, remote, welcome } = this.#newcomer
    if (scheme !== "https" || !path.startsWith("/")) return connection.answer(NOT_FOUND)
    const ws = new WebSocket(`ws://relay${path}`, {
      createConnection: () => connect(this.#socketPath),
      headers: { [REMOTE_HEADER]: remote, [CERT_HEADER]: Buffer.from(certSha256).toString("hex") },
      perMessageDeflate: false,
      maxPayload: MAX_MESSAGE_BYTES,
      skipUTF8Validation: true,
      generateMask: (mask) => void mask.fill(0)
    })
    this.#ws = ws
    ws.once("open", () => {
      if (this.#isOver) return
      welcome()
      connection.answer(200)
    })
    ws.once("unexpected-response", (_request, response) => {
      const retryAfter = response.headers["retry-after"]
      const headers = retryAfter === undefined ? [] : [["retry-after", retryAfter] as const]
      connection.answer(response.statusCode ?? BAD_GATEWAY, headers)
      ws.terminate()
    })
    let wasOpen = false
    ws.once("open", () => (wasOpen = true))
    ws.on("error", () => connection.answer(BAD_GATEWAY)) // ignored if there was another answer
    ws.on("message", (bytes: Buffer, isBinary: boolean) => this.#onMessage(bytes, isBinary))
    ws.on("close", (code, reason) => wasOpen && this.#onLinkEnd(closedByPeer(code, reason.toString())))
  }

  #onBytes(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += MAX_MESSAGE_BYTES) {
      this.#send(bytes.subarray(at, at + MAX_MESSAGE_BYTES), true)
    }
    if (this.#isHeld || this.#waiting() < HIGH_WATER_BYTES) return
    this.#isHeld = true
    this.#newcomer.connection.pause()
  }

  #send(bytes: Uint8Array, binary: boolean): void {
    if (this.#ws?.readyState === WebSocket.OPEN) this.#ws.send(bytes, { binary }, this.#onSent)
  }

  readonly #onSent = (): void => {
    if (!this.#isHeld || this.#waiting() > LOW_WATER_BYTES) return
    this.#isHeld = false
    this.#newcomer.connection.resume()
  }

  #waiting(): number {
    return this.#ws?.bufferedAmount ?? 0
  }

  #onDatagram(bytes: Uint8Array): void {
    if (bytes[0] === PROBE) return void this.#newcomer.connection.sendDatagram(bytes)
    if (this.#waiting() > MAX_BACKLOG_BYTES || Frame.lengthAt(bytes, 0) !== bytes.length) return
    if (this.#batch.push(Uint8Array.from(bytes)) === 1) setImmediate(() => this.#sendBatch())
  }

  #sendBatch(): void {
    const frames = Buffer.concat(this.#batch)
    this.#batch = []
    this.#send(frames, false)
  }

  #onMessage(bytes: Buffer, isBinary: boolean): void {
    const { connection } = this.#newcomer
    if (!isBinary) return eachFrame(bytes, (frame) => void connection.sendDatagram(frame))
    connection.write(bytes)
    if (connection.bufferedBytes < HIGH_WATER_BYTES || this.#ws?.isPaused === true) return
    this.#ws?.pause()
    this.#awaitRoom()
  }

  #awaitRoom(): void {
    clearTimeout(this.#stuck)
    const cut = () => this.#newcomer.connection.driver.close(ErrorCode.excessiveLoad, "too slow")
    this.#stuck = setTimeout(cut, this.#stuckMs)
  }

  #onDrain(): void {
    if (this.#ws?.isPaused !== true) return
    // slow, but alive
    if (this.#newcomer.connection.bufferedBytes > LOW_WATER_BYTES) return this.#awaitRoom()
    clearTimeout(this.#stuck)
    this.#ws.resume()
  }

  /** The other process has ended the link. If it died, the connection closes without a reason. */
  #onLinkEnd({ by, code, reason }: Closed): void {
    const { connection } = this.#newcomer
    if (this.#isOver) return
    this.#isOver = true
    clearTimeout(this.#stuck)
    if (by === "network") return connection.driver.close(ErrorCode.noError, "")
    connection.end({ code, reason })
    this.#closeLater()
  }

  /**
   * Closes the connection later, unless the peer does before. If a browser receives the ends of
   * session and connection at once, it reports to its page that the connection was lost.
   */
  #closeLater(): void {
    setTimeout(() => this.#newcomer.connection.driver.close(ErrorCode.noError, ""), CLOSE_GRACE_MS).unref()
  }

  /** The peer has ended the session. */
  #onEnd(closed: SessionClosed | null): void {
    const isFirst = !this.#isOver
    const ws = this.#ws
    this.#isOver = true
    clearTimeout(this.#stuck)
    if (closed === null) this.#newcomer.connection.driver.close(ErrorCode.noError, "")
    else this.#closeLater()
    if (ws === null) return
    if (!isFirst || closed === null || ws.readyState !== WebSocket.OPEN) return ws.terminate()
    if (closedByPeer(closed.code, closed.reason).by === "network") return ws.terminate()
    const [code, reason] = sendable(closed.code, closed.reason)
    ws.resume()
    ws.close(code, Buffer.from(reason))
  }
}
