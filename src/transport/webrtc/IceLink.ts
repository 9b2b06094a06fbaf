/**
 * One WebRTC connection to a peer. Its single data channel carries relayed frames, each as one
 * message. Messages are neither ordered nor retransmitted, because the QUIC inside does both. It
 * must run in a process of its own: see decision 19.
 */
import { type DataChannel, type IceServer, PeerConnection } from "node-datachannel"
import type { IceSignal } from "../../protocol/candidate/IceSignal.ts"

/**
 * Most unsent bytes in the channel. Further frames are dropped, which QUIC treats as congestion.
 */
const MAX_BUFFERED_BYTES = 1024 * 1024
const LABEL = "sallyport/frames"

/** Options of {@link IceLink}. */
export interface Options {
  readonly role: "client" | "connector"
  readonly attempt: number
  /** ICE servers: `stun:HOST:PORT`, or TURN with its credentials. */
  readonly servers: ReadonlyArray<string | IceServer>
  readonly onSignal: (signal: IceSignal) => void
  readonly onOpen: () => void
  /** Called for each received frame, which is valid only during the call. */
  readonly onFrame: (frame: Uint8Array) => void
  /** Called once, when the connection has ended. Not called after `close`. */
  readonly onClosed: (why: string) => void
}

/** Types of the two selected candidates. */
export interface Pair {
  /**
   * Type of the local candidate (RFC 8445, section 5.1.1): host, srflx, prflx or relay. `remote` is
   * the type of the peer's candidate.
   */
  readonly local: string
  readonly remote: string
}

/** One connection with a peer, which carries relayed frames. */
export class IceLink {
  readonly attempt: number
  readonly #options: Options
  readonly #peer: PeerConnection
  #channel: DataChannel | null = null
  #isOpen = false
  #isClosed = false
  /** Number of frames dropped because the channel's queue was full or the channel was closed. */
  dropped = 0

  constructor(options: Options) {
    const { attempt, onSignal, role, servers } = options
    this.attempt = attempt
    this.#options = options
    this.#peer = new PeerConnection("sallyport", { iceServers: [...servers] })
    this.#peer.onLocalDescription((sdp, type) => {
      if (type === "offer" || type === "answer") onSignal({ kind: type, attempt, sdp })
    })
    this.#peer.onLocalCandidate((candidate, mid) => onSignal({ kind: "candidate", attempt, candidate, mid }))
    this.#peer.onStateChange((state) => {
      if (state === "failed" || state === "closed") this.#end(`ICE or DTLS ${state}`)
    })
    if (role === "client") {
      this.#use(this.#peer.createDataChannel(LABEL, { unordered: true, maxRetransmits: 0 }))
    } else this.#peer.onDataChannel((channel) => this.#use(channel))
  }

  /** Whether the data channel is open. */
  get isOpen(): boolean {
    return this.#isOpen
  }

  /** Types of the selected candidates. `null` if none are selected yet. */
  get pair(): Pair | null {
    const pair = this.#isOpen ? this.#peer.getSelectedCandidatePair() : null
    return pair === null ? null : { local: pair.local.type, remote: pair.remote.type }
  }

  /** Handles a signal of the peer. A signal that cannot be understood ends the connection. */
  onSignal(signal: IceSignal): void {
    if (this.#isClosed) return
    try {
      if (signal.kind === "candidate") this.#peer.addRemoteCandidate(signal.candidate, signal.mid)
      else if (signal.kind === "end") this.#end("the peer ended it")
      else this.#peer.setRemoteDescription(signal.sdp, signal.kind)
    } catch (error) {
      this.#end(`the peer's ${signal.kind} was refused: ${String(error)}`)
    }
  }

  /**
   * Sends a frame. Returns `false` if it was not sent at once: it was dropped, or the library
   * queued it.
   */
  send(frame: Uint8Array): boolean {
    const channel = this.#channel
    if (!this.#isOpen || channel === null) return false
    try {
      if (channel.bufferedAmount() <= MAX_BUFFERED_BYTES) return channel.sendMessageBinary(frame)
    } catch { // closed meanwhile: its event is on the way
    }
    this.dropped++
    return false
  }

  /** Closes the connection, without calling `onClosed`. */
  close(): void {
    this.#isClosed = true
    this.#isOpen = false
    this.#channel?.close()
    this.#peer.close()
  }

  #use(channel: DataChannel): void {
    if (this.#channel !== null || channel.getLabel() !== LABEL) return channel.close()
    this.#channel = channel
    channel.onMessage((message) => {
      if (typeof message !== "string") this.#options.onFrame(new Uint8Array(message))
    })
    channel.onClosed(() => this.#end("the data channel was closed"))
    channel.onError((why) => this.#end(why))
    const open = () => {
      if (this.#isOpen || this.#isClosed) return
      this.#isOpen = true
      this.#options.onOpen()
    }
    channel.onOpen(open)
    if (channel.isOpen()) open()
  }

  #end(why: string): void {
    if (this.#isClosed) return
    this.close()
    this.#options.onClosed(why)
  }
}
