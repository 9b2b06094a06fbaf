/**
 * The connector's end of one WebRTC connection with a browser. Each data channel that the browser
 * opens is a reliable, ordered stream. It must run in a process of its own: see decision 19.
 */
import { type DataChannel, type IceServer, PeerConnection } from "node-datachannel"
import type { IceSignal } from "../../protocol/candidate/IceSignal.ts"
import { type Channel, ChannelStream, LOW_WATER_BYTES, type Room } from "../../session/ChannelStream.ts"
import type { FlowStream } from "../../session/FlowStream.ts"
import type { Pair } from "./IceLink.ts"
import type { AgentPasswords } from "./TurnProxy.ts"

/**
 * Most streams of one connection. Each side has half of the ids that browsers support (RFC 8832,
 * section 6).
 */
const MAX_STREAMS = 512

/** Options of {@link FlowLink}. */
export interface Options {
  readonly attempt: number
  /** ICE servers: `stun:HOST:PORT`, or TURN with its credentials. */
  readonly servers: ReadonlyArray<string | IceServer>
  /** Window space that the streams of all the session's connections share. */
  readonly room: Room
  readonly passwords: AgentPasswords
  readonly onSignal: (signal: IceSignal) => void
  readonly onConnected: () => void
  readonly onStream: (stream: FlowStream) => void
  /**
   * Called once, when the connection has ended and its streams were closed. Not called after
   * `close`.
   */
  readonly onClosed: (why: string) => void
}

/** One connection with a browser, which carries flows. */
export class FlowLink {
  readonly attempt: number
  readonly #options: Options
  readonly #peer: PeerConnection
  readonly #streams = new Set<ChannelStream>()
  #forgetPassword = (): void => undefined
  #isConnected = false
  #isClosed = false

  constructor(options: Options) {
    const { attempt, onSignal, passwords, servers } = options
    this.attempt = attempt
    this.#options = options
    this.#peer = new PeerConnection("sallyport", { iceServers: [...servers] })
    this.#peer.onLocalDescription((sdp, type) => {
      this.#forgetPassword = passwords.learn(sdp)
      if (type === "answer") onSignal({ kind: type, attempt, sdp })
    })
    this.#peer.onLocalCandidate((candidate, mid) => onSignal({ kind: "candidate", attempt, candidate, mid }))
    this.#peer.onStateChange((state) => {
      if (state === "connected") this.#connected()
      else if (state === "failed" || state === "closed") this.#end(`ICE or DTLS ${state}`)
    })
    this.#peer.onDataChannel((channel) => this.#use(channel))
  }

  /** Whether the connection is established. */
  get isConnected(): boolean {
    return this.#isConnected && !this.#isClosed
  }

  /** Types of the selected candidates. `null` if none are selected yet. */
  get pair(): Pair | null {
    const pair = this.isConnected ? this.#peer.getSelectedCandidatePair() : null
    return pair === null ? null : { local: pair.local.type, remote: pair.remote.type }
  }

  get traffic(): { readonly rttMs: number | null; readonly bytesIn: number; readonly bytesOut: number } {
    if (this.#isClosed) return { rttMs: null, bytesIn: 0, bytesOut: 0 }
    const rttMs = this.#peer.rtt()
    return {
      rttMs: rttMs > 0 ? rttMs : null,
      bytesIn: this.#peer.bytesReceived(),
      bytesOut: this.#peer.bytesSent()
    }
  }

  /** Handles a signal of the browser. A signal that cannot be understood ends the connection. */
  onSignal(signal: IceSignal): void {
    if (this.#isClosed) return
    try {
      if (signal.kind === "candidate") this.#peer.addRemoteCandidate(signal.candidate, signal.mid)
      else if (signal.kind === "offer") this.#peer.setRemoteDescription(signal.sdp, "offer")
      else this.#end(signal.kind === "end" ? "the browser ended it" : "a connector makes no offers")
    } catch (error) {
      this.#end(`the browser's ${signal.kind} was refused: ${String(error)}`)
    }
  }

  /** Closes the connection and its streams, without calling `onClosed`. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#forgetPassword()
    for (const stream of this.#streams) stream.onClosed()
    this.#streams.clear()
    this.#peer.close()
  }

  #connected(): void {
    if (this.#isConnected || this.#isClosed) return
    this.#isConnected = true
    this.#options.onConnected()
  }

  #use(channel: DataChannel): void {
    if (this.#isClosed || this.#streams.size >= MAX_STREAMS) return channel.close()
    const stream: ChannelStream = new ChannelStream({
      channel: safe(channel),
      room: this.#options.room,
      opened: false,
      onOver: () => undefined // it stays until its channel is closed
    })
    this.#streams.add(stream)
    channel.setBufferedAmountLowThreshold(LOW_WATER_BYTES)
    channel.onBufferedAmountLow(() => stream.onDrained())
    channel.onMessage((message) => {
      const isUnderstood = typeof message !== "string" && stream.onMessage(asBytes(message))
      if (!isUnderstood) this.#end("the browser breaks the protocol of channels")
    })
    channel.onClosed(() => {
      this.#streams.delete(stream)
      stream.onClosed()
    })
    this.#options.onStream(stream)
  }

  #end(why: string): void {
    if (this.#isClosed) return
    this.close()
    this.#options.onClosed(why)
  }
}

/**
 * Wraps a channel of the library, which throws once it is closed. A separate event reports the
 * close.
 */
const safe = (channel: DataChannel): Channel => {
  const guarded = <A>(call: () => A, otherwise: A): A => {
    try {
      return call()
    } catch {
      return otherwise
    }
  }
  return {
    // The library returns `false` for a message that is queued. Only a closed channel throws.
    send: (message) => guarded(() => (channel.sendMessageBinary(message), true), false),
    bufferedAmount: () => guarded(() => channel.bufferedAmount(), 0),
    close: () => guarded(() => channel.close(), undefined),
    maxMessageBytes: guarded(() => channel.maxMessageSize(), 16 * 1024)
  }
}

const asBytes = (message: Buffer | ArrayBuffer): Uint8Array =>
  message instanceof ArrayBuffer ? new Uint8Array(message) : message
