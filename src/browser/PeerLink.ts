/**
 * The browser's end of one WebRTC connection with a connector. The browser makes the offer and
 * opens one data channel for each stream.
 */
import type { IceSignal } from "../protocol/candidate/IceSignal.ts"
import { type Channel, ChannelStream, LOW_WATER_BYTES, type Room } from "../session/ChannelStream.ts"
import type { FlowStream } from "../session/FlowStream.ts"

/**
 * Most streams that may be open on one connection. Browsers have 1,024 channel ids, half of which
 * belong to this side (RFC 8832, section 6). The margin is for channels that are still closing.
 */
const MAX_STREAMS = 480
const LABEL = "sallyport/flow"
/** Largest message in bytes if the peer's description names none (RFC 8841, section 6.1). */
const DEFAULT_MESSAGE_BYTES = 65_536

/** Options of {@link PeerLink}. */
export interface Options {
  readonly attempt: number
  readonly iceServers: ReadonlyArray<RTCIceServer>
  readonly room: Room
  readonly onSignal: (signal: IceSignal) => void
  readonly onConnected: () => void
  /** Called once, after all streams of the connection have ended. Not called after `close`. */
  readonly onClosed: (why: string) => void
}

/** Statistics of a connection, as the browser reports them. */
export interface LinkStats {
  /** Type of the chosen local candidate (RFC 8445, section 5.1.1). `null` if none is chosen yet. */
  readonly local: string | null
  /** Type of the chosen remote candidate. `null` if none is chosen yet. */
  readonly remote: string | null
  readonly rttMs: number | null
  readonly bytesIn: number
  readonly bytesOut: number
}

/** One WebRTC connection with a connector. */
export class PeerLink {
  readonly #options: Options
  readonly #peer: RTCPeerConnection
  readonly #streams = new Set<ChannelStream>()
  readonly #early: Array<RTCIceCandidateInit> = []
  #isAnswered = false
  #isConnected = false
  #isClosed = false

  constructor(options: Options) {
    const { attempt, iceServers, onSignal } = options
    this.#options = options
    this.#peer = new RTCPeerConnection({ iceServers: [...iceServers] })
    this.#peer.addEventListener("icecandidate", ({ candidate }) => {
      if (candidate === null || candidate.candidate === "") return
      onSignal({ kind: "candidate", attempt, candidate: candidate.candidate, mid: candidate.sdpMid ?? "0" })
    })
    this.#peer.addEventListener("connectionstatechange", () => {
      const { connectionState } = this.#peer
      if (connectionState === "connected" && !this.#isConnected) {
        this.#isConnected = true
        options.onConnected()
      } else if (connectionState === "failed" || connectionState === "closed") {
        this.#end(`ICE or DTLS ${connectionState}`)
      }
    })
  }

  /** Whether the connection is up. `false` also while the peer is silent and may be gone. */
  get isConnected(): boolean {
    return this.#peer.connectionState === "connected"
  }

  /** Whether the connection is open and may take one more stream. */
  get hasRoom(): boolean {
    return !this.#isClosed && this.#streams.size < MAX_STREAMS
  }

  /**
   * Sends the offer. Must come after the first `openStream`, because without a channel there is
   * nothing to offer.
   */
  async offer(): Promise<void> {
    const { attempt, onSignal } = this.#options
    const description = await this.#peer.createOffer()
    onSignal({ kind: "offer", attempt, sdp: description.sdp ?? "" })
    await this.#peer.setLocalDescription(description) // candidates follow the offer
  }

  /** Handles a signal of the connector for this connection. */
  onSignal(signal: IceSignal): void {
    if (this.#isClosed) return
    if (signal.kind === "end") return this.#end("the connector ended it")
    if (signal.kind === "answer") void this.#answer(signal.sdp)
    else if (signal.kind === "candidate") {
      const candidate = { candidate: signal.candidate, sdpMid: signal.mid }
      if (this.#isAnswered) this.#add(candidate)
      else this.#early.push(candidate)
    }
  }

  /**
   * Opens a stream. `null` if no more streams are possible now. Bytes may be written at once; they
   * leave when the connection is up.
   */
  openStream(): FlowStream | null {
    if (!this.hasRoom) return null
    const channel = this.#peer.createDataChannel(LABEL)
    channel.binaryType = "arraybuffer"
    channel.bufferedAmountLowThreshold = LOW_WATER_BYTES
    const waiting: Array<Uint8Array> = []
    const stream: ChannelStream = new ChannelStream({
      channel: this.#channelOf(channel, waiting),
      room: this.#options.room,
      opened: true,
      onOver: () => this.#streams.delete(stream)
    })
    this.#streams.add(stream)
    channel.addEventListener("open", () => {
      for (const message of waiting.splice(0)) channel.send(new Uint8Array(message))
      stream.onDrained()
    })
    channel.addEventListener("bufferedamountlow", () => stream.onDrained())
    channel.addEventListener("message", ({ data }: MessageEvent<unknown>) => {
      const isUnderstood = data instanceof ArrayBuffer && stream.onMessage(new Uint8Array(data))
      if (!isUnderstood) this.#end("the connector breaks the protocol of channels")
    })
    channel.addEventListener("close", () => stream.onClosed())
    return stream
  }

  async stats(): Promise<LinkStats> {
    const report = this.#isClosed ? new Map<string, unknown>() : await this.#peer.getStats()
    const all = new Map(report.entries() as Iterable<[string, Stat]>)
    const transport = [...all.values()].find(({ type }) => type === "transport")
    const pair = all.get(transport?.selectedCandidatePairId ?? "")
    return {
      local: all.get(pair?.localCandidateId ?? "")?.candidateType ?? null,
      remote: all.get(pair?.remoteCandidateId ?? "")?.candidateType ?? null,
      rttMs: pair?.currentRoundTripTime === undefined ? null : pair.currentRoundTripTime * 1000,
      bytesIn: transport?.bytesReceived ?? 0,
      bytesOut: transport?.bytesSent ?? 0
    }
  }

  /** Ends the connection and all its streams. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    for (const stream of this.#streams) stream.onClosed()
    this.#streams.clear()
    this.#peer.close()
  }

  #channelOf(channel: RTCDataChannel, waiting: Array<Uint8Array>): Channel {
    const peer = this.#peer
    return {
      send: (message) => {
        if (channel.readyState === "connecting") return waiting.push(message) > 0
        if (channel.readyState !== "open") return false
        channel.send(new Uint8Array(message))
        return true
      },
      bufferedAmount: () => channel.bufferedAmount,
      close: () => channel.close(),
      get maxMessageBytes() {
        return peer.sctp?.maxMessageSize ?? DEFAULT_MESSAGE_BYTES
      }
    }
  }

  async #answer(sdp: string): Promise<void> {
    try {
      await this.#peer.setRemoteDescription({ type: "answer", sdp })
      this.#isAnswered = true
      for (const candidate of this.#early.splice(0)) this.#add(candidate)
    } catch (error) {
      this.#end(`the connector's answer was refused: ${String(error)}`)
    }
  }

  /** Adds a remote candidate. A candidate that the browser rejects is ignored. */
  #add(candidate: RTCIceCandidateInit): void {
    this.#peer.addIceCandidate(candidate).catch(() => undefined)
  }

  #end(why: string): void {
    if (this.#isClosed) return
    this.close()
    this.#options.onClosed(why)
  }
}

/** Fields that are read from the entries of an `RTCStatsReport`. */
interface Stat {
  readonly type: string
  readonly selectedCandidatePairId?: string
  readonly localCandidateId?: string
  readonly remoteCandidateId?: string
  readonly candidateType?: string
  readonly currentRoundTripTime?: number
  readonly bytesReceived?: number
  readonly bytesSent?: number
}
