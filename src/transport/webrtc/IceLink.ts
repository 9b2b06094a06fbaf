/**
 * One WebRTC connection to a peer, whose single data channel carries relayed frames, each as a message of its own: neither ordered
 * nor repeated, since the QUIC inside sees to both. Must run in a process of its own: see decision 19.
 */
import { type DataChannel, type IceServer, PeerConnection } from "node-datachannel"
import type { IceSignal } from "../../protocol/IceSignal.ts"

/** Unsent bytes in the channel; frames past this are dropped, which QUIC takes for a full path. */
const MAX_BUFFERED_BYTES = 1024 * 1024
const LABEL = "sallyport/frames"

export interface Options {
  readonly role: "client" | "connector"
  readonly attempt: number
  /** `stun:HOST:PORT`, or TURN with its credentials. */
  readonly servers: ReadonlyArray<string | IceServer>
  readonly onSignal: (signal: IceSignal) => void
  readonly onOpen: () => void
  /** Valid only during the call. */
  readonly onFrame: (frame: Uint8Array) => void
  /** Once. Not called after `close`. */
  readonly onClosed: (why: string) => void
}

export interface Pair {
  /** Candidate types of RFC 8445, section 5.1.1: host, srflx, prflx, relay. */
  readonly local: string
  readonly remote: string
}

export class IceLink {
  readonly attempt: number
  readonly #options: Options
  readonly #peer: PeerConnection
  #channel: DataChannel | null = null
  #isOpen = false
  #isClosed = false
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

  get isOpen(): boolean {
    return this.#isOpen
  }

  /** The candidates that were chosen; null: none yet. */
  get pair(): Pair | null {
    const pair = this.#isOpen ? this.#peer.getSelectedCandidatePair() : null
    return pair === null ? null : { local: pair.local.type, remote: pair.remote.type }
  }

  /** What cannot be understood ends the connection. */
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

  /** False: it was dropped. */
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
