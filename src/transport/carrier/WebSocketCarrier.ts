/** A link over WebSocket (RFC 6455). Message boundaries have no meaning in the byte stream. */
import type { IncomingMessage } from "node:http"
import type { Duplex } from "node:stream"
import type { TLSSocket } from "node:tls"
import { WebSocket, WebSocketServer } from "ws"
import {
  type Carrier,
  CarrierLink,
  CloseCode,
  closedByPeer,
  type Datagrams,
  MAX_DATAGRAM_FRAME_BYTES,
  sendable
} from "../../session/Link.ts"

/**
 * Largest message, in bytes. A longer one is refused at its header, before its body is kept. Longer
 * writes are split.
 */
const MAX_MESSAGE_BYTES = 128 * 1024
/**
 * Most bytes waiting to be sent at which a ping is still answered. Otherwise a peer that pings and
 * never reads would fill the memory.
 */
const MAX_PONG_BACKLOG_BYTES = 64 * 1024
const OPTIONS = {
  perMessageDeflate: false,
  maxPayload: MAX_MESSAGE_BYTES,
  autoPong: false,
  skipUTF8Validation: true
} as const

/** Header in which the HTTP/3 gateway reports the client's address. */
export const REMOTE_HEADER = "x-sallyport-remote"
/**
 * Header in which the HTTP/3 gateway reports the hash of the certificate that the client was shown,
 * in hex.
 */
export const CERT_HEADER = "x-sallyport-cert"

/** Error when the server answered, but not with a link. `status` is the HTTP status. */
export class CarrierRefused extends Error {
  override readonly name = "CarrierRefused"
  readonly status: number
  constructor(status: number) {
    super(`the server answered ${status}`)
    this.status = status
  }
}

/**
 * Datagrams of a session that the HTTP/3 gateway passes on in both directions. They travel as text
 * messages, because the link's bytes travel as binary ones.
 */
class GatewayDatagrams implements Datagrams {
  readonly maxFrameBytes = MAX_DATAGRAM_FRAME_BYTES
  onFrames: ((frames: Uint8Array) => void) | undefined
  isReady = false
  private readonly ws: WebSocket

  constructor(ws: WebSocket) {
    this.ws = ws
  }

  send(frames: Uint8Array): number {
    this.ws.send(Uint8Array.from(frames), { binary: false })
    return 0
  }

  /**
   * Passes on received frames. A node sends datagrams once it has seen that they get through in
   * both directions.
   */
  receive(frames: Buffer): void {
    this.isReady = true
    this.onFrames?.(frames)
  }
}

class WebSocketLink extends CarrierLink {
  readonly carrier: Carrier
  private readonly ws: WebSocket
  private lastError = ""
  readonly datagrams: GatewayDatagrams | undefined

  constructor(ws: WebSocket, remote: string, serverCertSha256: Uint8Array, carrier: Carrier = "websocket") {
    super(remote, serverCertSha256)
    this.ws = ws
    this.carrier = carrier
    this.datagrams = carrier === "webtransport-h3" ? new GatewayDatagrams(ws) : undefined
    ws.on("error", (error) => {
      this.lastError = error.message // a close event follows
    })
    ws.on("close", (code, reason) => this.finish(closedByPeer(code, reason.toString() || this.lastError)))
    ws.on("ping", (data) => {
      if (ws.bufferedAmount < MAX_PONG_BACKLOG_BYTES) ws.pong(data)
    })
    ws.on("message", (data, isBinary) => {
      if (isBinary) this.deliver(data as Buffer) // `binaryType` is nodebuffer
      else if (this.datagrams !== undefined) this.datagrams.receive(data as Buffer)
      else this.close("text message on a binary link", CloseCode.protocol)
    })
  }

  bufferedBytes(): number {
    return this.ws.bufferedAmount
  }

  protected async send(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at += MAX_MESSAGE_BYTES) {
      await new Promise<void>((resolve, reject) => {
        const piece = at === 0 && bytes.length <= MAX_MESSAGE_BYTES ? bytes : bytes.subarray(at, at + MAX_MESSAGE_BYTES)
        this.ws.send(piece, (error) => error ? reject(error) : resolve())
      })
    }
  }

  protected sendClose(code: number, reason: string): void {
    this.ws.resume() // otherwise the peer's answer is never read
    const [sent, said] = sendable(code, reason)
    this.ws.close(sent, Buffer.from(said))
  }

  protected destroySocket(): void {
    this.ws.terminate()
  }

  protected pause(): void {
    this.ws.pause()
  }

  protected resume(): void {
    this.ws.resume()
  }
}

/**
 * Returns a function that accepts WebSocket requests. It calls `onLink` with the link, or never if
 * the request was invalid; the request has been answered then. `carrier` is what the client itself
 * used, which differs behind the HTTP/3 gateway.
 */
export const makeAcceptor = () => {
  const server = new WebSocketServer({ noServer: true, clientTracking: false, ...OPTIONS })
  return (
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    remote: string,
    serverCertSha256: Uint8Array,
    carrier: Carrier,
    onLink: (link: CarrierLink) => void
  ): void =>
    server.handleUpgrade(
      request,
      socket,
      head,
      (ws) => onLink(new WebSocketLink(ws, remote, serverCertSha256, carrier))
    )
}

/**
 * Opens a link over `socket`, which it owns from now on. Rejects with `CarrierRefused` or the
 * socket's error.
 */
export const open = (
  socket: TLSSocket,
  authority: string,
  path: string,
  serverCertSha256: Uint8Array
): Promise<CarrierLink> =>
  new Promise((resolve, reject) => {
    const remote = `${socket.remoteAddress}:${socket.remotePort}`
    socket.setNoDelay(true)
    const ws = new WebSocket(`wss://${authority}${path}`, {
      ...OPTIONS,
      createConnection: () => socket,
      // Masking protects plain-text proxies from scripts in browsers. Inside TLS it only costs a
      // quarter of the CPU time.
      generateMask: (mask) => void mask.fill(0)
    })
    // Created now and not on "open", because the server's first bytes may arrive in the same read
    // as its answer.
    const link = new WebSocketLink(ws, remote, serverCertSha256)
    ws.once("open", () => resolve(link))
    ws.once("unexpected-response", (_request, response) => {
      reject(new CarrierRefused(response.statusCode ?? 0))
      socket.destroy()
    })
    ws.once("error", reject)
    ws.once("close", () => reject(new Error("the server closed the connection")))
  })
