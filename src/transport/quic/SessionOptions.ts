/** What a session is made of, and what it tells. */
import { type Buffer } from "node:buffer"
import { type ConnectionStats, type QuicEngine, type Role } from "./QuicEngine.ts"
import { type QuicStream } from "./QuicStream.ts"
import { type Resumption } from "./Resumption.ts"
import { type SendRing } from "./SendRing.ts"

/** Application close codes, as the peer sees them. */
export const CloseCode = {
  normal: 0,
  flood: 1,
  identity: 2,
  denied: 3,
  handshakeTimeout: 4,
  goaway: 5,
  protocol: 6
} as const

export interface CloseReason {
  /** local: `close` was called; peer: the peer said so; idle: nothing came for ten minutes; fault: QUIC or TLS failed. */
  readonly kind: "local" | "peer" | "idle" | "fault"
  readonly code: number
  readonly text: string
}

/** The path under a slot, as far as packets are concerned. */
export interface SlotPath {
  /** Bytes kept free in front of each packet for the frame's head: 8 relayed, 2 direct, 0 to 15. */
  readonly headBytes: number
  /** Largest QUIC packet this path carries, bytes: at least 1200. */
  readonly maxPacket: number
  /** The path's round trip as probes measured it; paces the first packets after a slot was re-pointed. */
  readonly rttMs?: number
}

export interface SessionOptions {
  readonly engine: QuicEngine
  readonly role: Role
  /** PEM. */
  readonly certificate: string
  readonly privateKey: string
  /** The slot of the handshake, and its path. */
  readonly slot: number
  readonly path: SlotPath
  /**
   * Sends a train: `count` packets, one every `segment` bytes of `buffer` from 0, the last one ending at `length`. The
   * `headBytes` in front of each belong to the callee, which writes the frame's head there. `buffer` is good until the
   * ring comes round (`RING_BUFFERS` trains).
   */
  readonly transmit: (slot: number, buffer: Buffer, length: number, segment: number, count: number) => void
  /** Once, before any stream. The callee compares the key with the pinned one and calls `close` if it differs. */
  readonly onEstablished: (peerCertificate: Uint8Array) => void
  /** What to resume from, and what ties the handshake to this session. */
  readonly resumption?: Resumption
  /**
   * Once, before `onEstablished`, which checks the peer all the same. Client: streams may be opened, and what they say leaves with the
   * first flight; only the connector of the saved session can read it. Connector: with the certificate that the client had shown
   * in the session before; the callee compares the key.
   */
  readonly onEarly?: (peerCertificate: Uint8Array | null) => void
  /** Client, once: to resume from in another session with this peer. Secret. */
  readonly onSavedSession?: (session: Uint8Array) => void
  /** A stream that the peer opened (connector only). The callee sets its handler at once. */
  readonly onStream: (stream: QuicStream) => void
  /** Once. Streams are told before. The session may still answer the peer until `drained`. */
  readonly onClosed: (reason: CloseReason) => void
  readonly onPathValidated?: (slot: number) => void
  /** Connector: the client's traffic comes by `slot` now, and so does ours. */
  readonly onPeerMigrated?: (slot: number) => void
  readonly onDatagram?: (data: Uint8Array) => void
  /** Milliseconds, monotonic. */
  readonly now: () => number
  /** Shared by the sessions of a thread. */
  readonly ring?: SendRing
  /** Unexplained bytes that a peer may send; see FloodMeter. */
  readonly floodBurstBytes?: number
}

export interface SessionStats extends ConnectionStats {
  readonly activeSlot: number
  readonly streams: number
  readonly blockedStreams: number
}
