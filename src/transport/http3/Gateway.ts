/**
 * From WebTransport on HTTP/3 to the process that serves links: each session becomes a WebSocket on a socket of this machine that
 * only this program can open. The answers, the bytes, the pace and the end go through as they are; what a link is, is not known here.
 */
import { connect } from "node:net"
import { WebSocket } from "ws"
import * as Frame from "../../protocol/Frame.ts"
import { ErrorCode, type Request } from "../../protocol/Http3.ts"
import { type Closed, closedByPeer } from "../link/Link.ts"
import { CERT_HEADER, REMOTE_HEADER } from "../link/WebSocketCarrier.ts"
import { eachFrame, PROBE } from "./FrameDatagrams.ts"
import type { Events, SessionClosed } from "./Http3Connection.ts"
import type { Newcomer } from "./Http3Listener.ts"

/** Bytes on their way to the other process at which the peer is told to wait, and at which it may go on; and the other way round. */
const HIGH_WATER_BYTES = 256 * 1024
const LOW_WATER_BYTES = 64 * 1024
/** Longest message that the other process takes. */
const MAX_MESSAGE_BYTES = 128 * 1024
/** Datagrams are dropped while so much waits for the other process. */
const MAX_BACKLOG_BYTES = 1024 * 1024
/** After the end of a session was said, the peer has so long to end the connection. */
const CLOSE_GRACE_MS = 1500
/** Nobody serves links now: RFC 9110, section 15.6.3. */
const BAD_GATEWAY = 502

export interface Options {
  /** The path of the other process's socket. */
  readonly socketPath: string
  readonly newcomer: Newcomer
  /** The session is open. */
  readonly onOpen: () => void
  readonly onGone: () => void
}

export const makeEvents = (options: Options): Events => {
  const { certSha256, connection, remote } = options.newcomer
  let ws: WebSocket | null = null
  let hasPaused = false
  let isOver = false
  /** Datagrams on their way to the other process, in one message for each turn of the event loop. */
  let batch: Array<Uint8Array> = []

  const onBytes = (bytes: Uint8Array) => {
    if (ws === null) return
    for (let at = 0; at < bytes.length; at += MAX_MESSAGE_BYTES) {
      ws.send(bytes.subarray(at, at + MAX_MESSAGE_BYTES), onSent)
    }
    if (hasPaused || ws.bufferedAmount < HIGH_WATER_BYTES) return
    hasPaused = true
    connection.pause()
  }
  const onSent = () => {
    if (!hasPaused || ws === null || ws.bufferedAmount > LOW_WATER_BYTES) return
    hasPaused = false
    connection.resume()
  }
  const onDatagram = (bytes: Uint8Array) => {
    if (bytes[0] === PROBE) return void connection.sendDatagram(bytes)
    if (ws === null || ws.bufferedAmount > MAX_BACKLOG_BYTES || Frame.lengthAt(bytes, 0) !== bytes.length) return
    if (batch.push(Uint8Array.from(bytes)) === 1) setImmediate(sendBatch)
  }
  const sendBatch = () => {
    const frames = Buffer.concat(batch)
    batch = []
    if (ws?.readyState === WebSocket.OPEN) ws.send(frames, { binary: false })
  }
  const onMessage = (bytes: Buffer, isBinary: boolean) => {
    if (!isBinary) return eachFrame(bytes, (frame) => void connection.sendDatagram(frame))
    connection.write(bytes)
    if (connection.bufferedBytes >= HIGH_WATER_BYTES) ws?.pause()
  }
  const onDrain = () => {
    if (ws?.isPaused === true && connection.bufferedBytes <= LOW_WATER_BYTES) ws.resume()
  }
  /** The other process ends the link; without a word, where it died. */
  const onLinkEnd = ({ by, code, reason }: Closed) => {
    if (isOver) return
    isOver = true
    if (by === "network") return connection.driver.close(ErrorCode.noError, "")
    connection.end({ code, reason })
    setTimeout(() => connection.driver.close(ErrorCode.noError, ""), CLOSE_GRACE_MS).unref()
  }
  /** The peer does. */
  const onEnd = (closed: SessionClosed | null) => {
    const isFirst = !isOver
    isOver = true
    connection.driver.close(ErrorCode.noError, "")
    if (ws === null || !isFirst) return ws?.terminate()
    const told = closed === null ? null : closedByPeer(closed.code, closed.reason)
    if (told === null || told.by === "network" || ws.readyState !== WebSocket.OPEN) return ws.terminate()
    ws.resume()
    ws.close(told.code, told.reason.slice(0, 100))
  }
  const onRequest = ({ path }: Request) => {
    const socket = new WebSocket(`ws://relay${path}`, {
      createConnection: () => connect(options.socketPath),
      headers: { [REMOTE_HEADER]: remote, [CERT_HEADER]: Buffer.from(certSha256).toString("hex") },
      perMessageDeflate: false,
      maxPayload: MAX_MESSAGE_BYTES,
      skipUTF8Validation: true,
      generateMask: (mask) => void mask.fill(0)
    })
    socket.once("open", () => {
      ws = socket
      options.onOpen()
      connection.answer(200)
    })
    socket.once("unexpected-response", (_request, response) => {
      const retryAfter = response.headers["retry-after"]
      connection.answer(
        response.statusCode ?? BAD_GATEWAY,
        retryAfter === undefined ? [] : [["retry-after", retryAfter]]
      )
      response.destroy()
    })
    socket.on("error", () => connection.answer(BAD_GATEWAY)) // a close follows where it was open
    socket.on("message", onMessage)
    socket.on("close", (code, reason) => onLinkEnd(closedByPeer(code, reason.toString())))
  }
  return {
    onEstablished: () => true,
    onRequest,
    onStatus: () => {},
    onBytes,
    onDatagram,
    onDrain,
    onEnd,
    onGone: options.onGone
  }
}
