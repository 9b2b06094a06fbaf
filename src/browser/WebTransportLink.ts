/**
 * A relay link over the browser's own WebTransport: one session with one stream, which the page
 * opens.
 */
import { UNSEEN_CERT } from "../protocol/relay/LinkHandshake.ts"
import { CarrierLink, closedByPeer, LinkEnded } from "../session/Link.ts"

class WebTransportLink extends CarrierLink {
  readonly carrier = "webtransport-h3"
  readonly #session: WebTransport
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>
  #buffered = 0
  #lastWrite: Promise<void> = Promise.resolve()
  #wake: (() => void) | undefined
  #isPaused = false

  constructor(url: string, session: WebTransport, stream: WebTransportBidirectionalStream) {
    super(url, UNSEEN_CERT)
    this.#session = session
    this.#reader = stream.readable.getReader() as ReadableStreamDefaultReader<Uint8Array>
    this.#writer = stream.writable.getWriter() as WritableStreamDefaultWriter<Uint8Array>
    this.#writer.closed.catch(ignore)
    session.closed.then(
      ({ closeCode = 0, reason = "" }) => this.finish(closedByPeer(closeCode, reason)),
      () => this.finish()
    )
    this.#pump().then(() => this.#onStreamEnd(), () => this.#onStreamEnd())
  }

  bufferedBytes(): number {
    return this.#buffered
  }

  protected async send(bytes: Uint8Array): Promise<void> {
    this.#buffered += bytes.length
    try {
      this.#lastWrite = this.#writer.write(bytes)
      await this.#lastWrite
    } catch {
      throw new LinkEnded("the link has ended")
    } finally {
      this.#buffered -= bytes.length
    }
  }

  protected sendClose(code: number, reason: string): void {
    this.#lastWrite.catch(ignore).then(() => this.#session.close({ closeCode: code, reason })).catch(() =>
      this.finish()
    )
  }

  protected destroySocket(): void {
    this.#wake?.()
    try {
      this.#session.close()
    } catch {
      // it was never open
    }
  }

  protected pause(): void {
    this.#isPaused = true
  }

  protected resume(): void {
    this.#isPaused = false
    this.#wake?.()
  }

  /** Waits for the reason of the end, which the relay may send right after the stream's end. */
  #onStreamEnd(): void {
    setTimeout(() => this.finish(), STREAM_END_PATIENCE_MS)
  }

  async #pump(): Promise<void> {
    for (;;) {
      if (this.#isPaused && !this.isClosed()) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
      }
      const { done, value } = await this.#reader.read()
      if (done) return
      this.deliver(value)
    }
  }
}

/**
 * How long to wait for the relay's reason. The relay sends it 200 ms after the end of the stream.
 */
const STREAM_END_PATIENCE_MS = 1000

const ignore = () => {}

/** Whether this browser has WebTransport. */
export const isKnown = (): boolean => "WebTransport" in globalThis

/** Opens a link. Rejects if that fails; the browser does not say why. An abort closes the link. */
export const open = async (url: string, signal: AbortSignal): Promise<CarrierLink> => {
  const session = new WebTransport(url)
  const abort = () => session.close()
  session.closed.catch(ignore)
  signal.addEventListener("abort", abort, { once: true })
  try {
    await session.ready
    return new WebTransportLink(url, session, await session.createBidirectionalStream())
  } finally {
    signal.removeEventListener("abort", abort)
  }
}
