/** Options of a session, and the events that it reports. */
import { type Buffer } from "node:buffer"
import { type ConnectionStats, type QuicEngine, type Role } from "./engine/QuicEngine.ts"
import { type Resumption } from "./engine/Resumption.ts"
import { type QuicStream } from "./QuicStream.ts"
import { type SendRing } from "./SendRing.ts"

/** Application close codes, as the peer receives them. */
export const CloseCode = {
  normal: 0,
  flood: 1,
  identity: 2,
  denied: 3,
  handshakeTimeout: 4,
  goaway: 5,
  protocol: 6
} as const

/** Reason why a session ended. */
export interface CloseReason {
  /**
   * Side or cause that ended the session. `local`: `close` was called. `peer`: the peer closed it.
   * `idle`: nothing arrived for ten minutes. `fault`: QUIC or TLS failed.
   */
  readonly kind: "local" | "peer" | "idle" | "fault"
  readonly code: number
  readonly text: string
}

/** Properties of a slot's path that matter for sending packets. */
export interface SlotPath {
  /**
   * Bytes kept free in front of each packet for the frame head, from 0 to 15: 8 for a relayed
   * frame, 2 for a direct one.
   */
  readonly headBytes: number
  /** Largest QUIC packet that this path carries, in bytes: at least 1200. */
  readonly maxPacket: number
  /**
   * Round-trip time of the path as probes measured it. It paces the first packets after a slot's
   * path was replaced.
   */
  readonly rttMs?: number
}

/** Options of a QUIC session. */
export interface SessionOptions {
  readonly engine: QuicEngine
  readonly role: Role
  /** Certificate, in PEM. `privateKey` is its key, in PEM. */
  readonly certificate: string
  readonly privateKey: string
  /** Slot that the handshake uses. `path` is its path. */
  readonly slot: number
  readonly path: SlotPath
  /**
   * Sends a train: `count` packets, one every `segment` bytes of `buffer` from offset 0; the last
   * one ends at `length`. The callee writes the frame head into the `headBytes` in front of each
   * packet. `buffer` stays valid until the ring wraps around (`RING_BUFFERS` trains).
   */
  readonly transmit: (slot: number, buffer: Buffer, length: number, segment: number, count: number) => void
  /**
   * Called once, before any stream. The callee compares the key with the pinned one and calls
   * `close` if it differs.
   */
  readonly onEstablished: (peerCertificate: Uint8Array) => void
  /** State to resume from, and the connection id that ties the handshake to this session. */
  readonly resumption?: Resumption
  /**
   * Called at most once, before `onEstablished`, which checks the peer in any case.
   *
   * Client: streams may be opened, and their first data leaves with the first flight. Only the
   * connector of the saved session can read it. Connector: receives the certificate that the client
   * showed in the previous session; the callee compares its key.
   */
  readonly onEarly?: (peerCertificate: Uint8Array | null) => void
  /**
   * Called at most once, with the TLS session from which a later session with this peer can resume.
   * It is secret. Client only.
   */
  readonly onSavedSession?: (session: Uint8Array) => void
  /**
   * Called for each stream that the peer opened. The callee sets its handler at once. Connector
   * only.
   */
  readonly onStream: (stream: QuicStream) => void
  /**
   * Called once, after the streams were notified. The session may still answer the peer until
   * `drained`.
   */
  readonly onClosed: (reason: CloseReason) => void
  readonly onPathValidated?: (slot: number) => void
  /**
   * Called when the client has moved its traffic to `slot`. This side's traffic follows. Connector
   * only.
   */
  readonly onPeerMigrated?: (slot: number) => void
  readonly onDatagram?: (data: Uint8Array) => void
  /** Returns the current time in milliseconds (monotonic). */
  readonly now: () => number
  /** Ring of send buffers, which the sessions of a thread share. Default: the module's own ring. */
  readonly ring?: SendRing
  /**
   * Capacity of the session's {@link FloodMeter}: unexplained bytes that the peer may send at once.
   */
  readonly floodBurstBytes?: number
}

/** Counters of a session. `blockedStreams` is the number of streams that wait for room. */
export interface SessionStats extends ConnectionStats {
  readonly activeSlot: number
  readonly streams: number
  readonly blockedStreams: number
}
