/** A relay link over the browser's own WebSocket. */
import { UNSEEN_CERT } from "../protocol/LinkHandshake.ts"
import { CarrierLink, CloseCode, closedByPeer } from "../transport/link/Link.ts"

/** Longest message that a relay takes, bytes. */
const MAX_MESSAGE_BYTES = 128 * 1024
/** Codes below are the protocol's own, and no page may send them but this one (WebSockets, "close"). */
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

  /** The browser tells nobody when it has sent; whoever writes looks at `bufferedBytes`. */
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

  /** A browser's WebSocket cannot be told to wait: a relay that says more than is read is left. */
  protected pause(): void {
    this.destroy("the relay says more than this page reads")
  }

  protected resume(): void {}
}

/** Rejects when it cannot be had; the browser does not say why. An abort closes it. */
export const open = (url: string, signal: AbortSignal): Promise<CarrierLink> =>
  new Promise((resolve, reject) => {
    const ws = new WebSocket(url)
    ws.binaryType = "arraybuffer"
    const link = new WebSocketLink(ws) // now, not on "open": the relay may speak in the same moment
    signal.addEventListener("abort", () => link.destroy("given up"), { once: true })
    ws.addEventListener("open", () => resolve(link))
    ws.addEventListener("close", () => reject(new Error("closed before it was open")))
  })
