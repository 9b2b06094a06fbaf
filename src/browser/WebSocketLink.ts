/** A relay link over the browser's own WebSocket. */
import { UNSEEN_CERT } from "../protocol/relay/LinkHandshake.ts"
import { CarrierLink, CloseCode, closedByPeer } from "../session/Link.ts"

/** Longest message that a relay accepts, in bytes. */
const MAX_MESSAGE_BYTES = 128 * 1024
/**
 * Smallest close code that a page may send, besides 1000. Codes below it belong to the protocol
 * (WebSockets standard, "close").
 */
const FIRST_OWN_CODE = 3000

class WebSocketLink extends CarrierLink {
  readonly carrier = "websocket"
  private readonly ws: WebSocket

  constructor(ws: WebSocket) {
    super(ws.url, UNSEEN_CERT)
    this.ws = ws
    ws.addEventListener("close", ({ code, reason }) => this.finish(closedByPeer(code, reason)))
    ws.addEventListener("message", ({ data }: MessageEvent<unknown>) => {
      if (data instanceof ArrayBuffer) this.deliver(new Uint8Array(data))
      else this.close("text message on a binary link", CloseCode.protocol)
    })
  }

  bufferedBytes(): number {
    return this.ws.bufferedAmount
  }

  /**
   * Resolves at once, because a browser does not report when it has sent. Writers watch
   * `bufferedBytes` instead.
   */
  protected send(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at += MAX_MESSAGE_BYTES) {
      this.ws.send(new Uint8Array(bytes.subarray(at, at + MAX_MESSAGE_BYTES)))
    }
    return Promise.resolve()
  }

  protected sendClose(code: number, reason: string): void {
    this.ws.close(code === CloseCode.normal || code >= FIRST_OWN_CODE ? code : CloseCode.normal, reason.slice(0, 100))
  }

  protected destroySocket(): void {
    this.ws.close()
  }

  /**
   * Ends the link, because a browser's WebSocket cannot be paused: a relay that sends more than
   * this page reads is given up.
   */
  protected pause(): void {
    this.destroy("the relay says more than this page reads")
  }

  protected resume(): void {}
}

/** Opens a link. Rejects if that fails; the browser does not say why. An abort closes the link. */
export const open = (url: string, signal: AbortSignal): Promise<CarrierLink> =>
  new Promise((resolve, reject) => {
    const ws = new WebSocket(url)
    ws.binaryType = "arraybuffer"
    const link = new WebSocketLink(ws) // made before "open", because the relay may speak at once
    signal.addEventListener("abort", () => link.destroy("given up"), { once: true })
    ws.addEventListener("open", () => resolve(link))
    ws.addEventListener("close", () => reject(new Error("closed before it was open")))
  })
