/** A relay link over WebTransport on HTTP/3, on the client's side. */
import * as Http3 from "../../protocol/http3/Http3.ts"
import { CarrierLink, closedByPeer, LinkEnded } from "../../session/Link.ts"
import { FrameDatagrams } from "./FrameDatagrams.ts"
import type { Http3Connection, SessionClosed } from "./Http3Connection.ts"

/** A link whose bytes are the session's stream, and whose relayed frames are its datagrams. */
export class Http3Link extends CarrierLink {
  readonly carrier = "webtransport-h3"
  readonly #connection: Http3Connection
  readonly #release: () => void
  readonly datagrams: FrameDatagrams | undefined

  /**
   * Set `carriesFrames` if the link is for relayed packets. `release` is called when the link no
   * longer needs the socket.
   */
  constructor(connection: Http3Connection, remote: string, carriesFrames: boolean, release: () => void) {
    super(remote, new Uint8Array(0))
    this.#connection = connection
    this.#release = release
    this.datagrams = carriesFrames ? new FrameDatagrams(connection) : undefined
  }

  onBytes(bytes: Uint8Array): void {
    this.deliver(bytes)
  }

  onEnd(closed: SessionClosed | null): void {
    this.finish(closed === null ? undefined : closedByPeer(closed.code, closed.reason))
  }

  bufferedBytes(): number {
    return this.#connection.bufferedBytes
  }

  /**
   * Writes bytes to the session's stream. Resolves when QUIC has taken them; rejects with
   * `LinkEnded`.
   */
  protected send(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) =>
      this.#connection.write(bytes, (left) => left ? resolve() : reject(new LinkEnded("the link has ended")))
    )
  }

  protected sendClose(code: number, reason: string): void {
    this.#connection.end({ code, reason })
  }

  protected destroySocket(): void {
    this.datagrams?.stop()
    this.#connection.driver.close(Http3.ErrorCode.noError, "")
    this.#release()
  }

  protected pause(): void {
    this.#connection.pause()
  }

  protected resume(): void {
    this.#connection.resume()
  }
}
