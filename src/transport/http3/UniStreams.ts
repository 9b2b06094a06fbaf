/**
 * The unidirectional streams of an HTTP/3 connection (RFC 9114, section 6.2): the control stream
 * and QPACK's two, which carry nothing here.
 */
import { Either } from "effect"
import * as Varint from "../../protocol/bytes/Varint.ts"
import * as Http3 from "../../protocol/http3/Http3.ts"
import * as Qpack from "../../protocol/http3/Qpack.ts"
import { type QuicConnection, READ_NOTHING, READ_RESET } from "../quic/engine/QuicEngine.ts"

const { ErrorCode, FrameType, StreamType } = Http3

/** Most bytes in which a stream's type is encoded. */
const MAX_TYPE_BYTES = 8
const scratch = Buffer.allocUnsafeSlow(16 * 1024)

/** Options of {@link UniStreams}. */
export interface Options {
  readonly quic: QuicConnection
  readonly isClient: boolean
  readonly settings: Readonly<Record<number, number>>
  readonly maxFrameBytes: number
  /** Called with the number of bytes that were read. */
  readonly onBytes: (bytes: number) => void
  /** Called when the peer violates the protocol. It must end the connection. */
  readonly onFault: (fault: Http3.Http3Fault) => void
}

/** The unidirectional streams of one connection, in both directions. */
export class UniStreams {
  readonly #options: Options
  /** The type of each of the peer's streams, or its first bytes while the type is not known yet. */
  readonly #types = new Map<number, number | Uint8Array>()
  readonly #control: Http3.FrameReader
  #settings: ReadonlyMap<number, number> | null = null
  #waiting: ((settings: ReadonlyMap<number, number>) => void) | null = null

  constructor(options: Options) {
    this.#options = options
    this.#control = new Http3.FrameReader(options.maxFrameBytes)
  }

  /** Calls `use` once with the peer's settings, when they have arrived. */
  onSettings(use: (settings: ReadonlyMap<number, number>) => void): void {
    if (this.#settings === null) this.#waiting = use
    else use(this.#settings)
  }

  /**
   * Opens this side's three streams. The peer must permit three streams and their first bytes (RFC
   * 9114, section 6.2).
   */
  begin(): void {
    const { isClient, quic, settings } = this.#options
    const first = isClient ? 2 : 3
    const said = Http3.encodeSettings(settings)
    const control = new Uint8Array(1 + said.length)
    control[0] = StreamType.control
    control.set(said, 1)
    const beginnings = [control, Uint8Array.of(StreamType.qpackEncoder), Uint8Array.of(StreamType.qpackDecoder)]
    for (const [at, bytes] of beginnings.entries()) {
      if (quic.write(first + 4 * at, bytes) === bytes.length) continue
      this.#fault(ErrorCode.streamCreation, "no room for the control streams")
      return
    }
  }

  /** Reads what has arrived on one of the peer's streams. */
  serve(id: number): void {
    const { quic } = this.#options
    for (;;) {
      const got = quic.read(id, scratch)
      if (got === READ_NOTHING) return
      if (got > 0) {
        this.#options.onBytes(got)
        if (!this.#onBytes(id, Uint8Array.from(scratch.subarray(0, got)))) return
      }
      if (got === READ_RESET || quic.readFinished()) return this.#onEnd(id)
    }
  }

  /** Returns `false` if the rest of the stream is not read. */
  #onBytes(id: number, bytes: Uint8Array): boolean {
    const known = this.#types.get(id) ?? new Uint8Array(0)
    if (typeof known === "number") return this.#onContent(known, bytes)
    const held = new Uint8Array(known.length + bytes.length)
    held.set(known)
    held.set(bytes, known.length)
    const type = Varint.read(held, 0)
    if (type === null) {
      if (held.length <= MAX_TYPE_BYTES) this.#types.set(id, held)
      return true
    }
    const isKnown = type.value === StreamType.control || type.value === StreamType.qpackEncoder ||
      type.value === StreamType.qpackDecoder
    if (isKnown && [...this.#types.values()].includes(type.value)) {
      return this.#fault(ErrorCode.streamCreation, `a second stream of type ${type.value}`)
    }
    if (!isKnown) {
      this.#types.delete(id)
      this.#options.quic.stop(id, ErrorCode.streamCreation)
      return false
    }
    this.#types.set(id, type.value)
    return type.end === held.length || this.#onContent(type.value, held.subarray(type.end))
  }

  #onContent(type: number, bytes: Uint8Array): boolean {
    if (type === StreamType.qpackDecoder) return true // there is no table to acknowledge
    if (type === StreamType.qpackEncoder) {
      const fault = Qpack.encoderStreamFault(bytes)
      return fault === null || this.#fault(fault.code, fault.message)
    }
    const frames = this.#control.push(bytes)
    if (Either.isLeft(frames)) return this.#fault(frames.left.code, frames.left.message)
    return frames.right.every((frame) => this.#onControl(frame))
  }

  #onControl({ payload, type }: Http3.Frame): boolean {
    if (type === FrameType.settings) {
      if (this.#settings !== null) return this.#fault(ErrorCode.frameUnexpected, "settings told twice")
      const settings = Http3.decodeSettings(payload)
      if (Either.isLeft(settings)) return this.#fault(settings.left.code, settings.left.message)
      this.#settings = settings.right
      this.#waiting?.(settings.right)
      this.#waiting = null
      return true
    }
    if (this.#settings === null) return this.#fault(ErrorCode.missingSettings, "no settings first")
    const isOfRequests = type === FrameType.data || type === FrameType.headers
    return !isOfRequests || this.#fault(ErrorCode.frameUnexpected, `frame ${type} on the control stream`)
  }

  #onEnd(id: number): void {
    const type = this.#types.get(id)
    this.#types.delete(id)
    if (typeof type === "number") this.#fault(ErrorCode.closedCriticalStream, `the stream of type ${type} ended`)
  }

  /** Reports a violation. Always returns `false`, for callers that have nothing left to do. */
  #fault(code: number, message: string): false {
    this.#options.onFault({ _tag: "Http3Fault", code, message })
    return false
  }
}
