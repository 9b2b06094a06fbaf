/**
 * Interface of a QUIC implementation, as a session needs it: packets in and out, streams and paths.
 * It opens no sockets and takes no clock from the caller.
 */

import type { Resumption } from "./Resumption.ts"

export { READ_NOTHING, READ_RESET, WRITE_STOPPED } from "../../../session/FlowStream.ts"

/**
 * Number of path slots of a session. QUIC sees a slot as one address. The session may assign
 * another path to it, which QUIC does not notice.
 */
export const SLOTS = 8

/** Application protocol that both sides negotiate in TLS. */
export const ALPN = "sallyport/1"

/**
 * Initial flow-control window of a stream, in bytes, which is all that a stalled flow can hold. It
 * doubles while its reader keeps up, up to {@link MAX_STREAM_WINDOW}.
 */
export const STREAM_WINDOW = 512 * 1024
/**
 * Largest flow-control window of a stream, in bytes: enough for 1 Gbit/s at 32 ms. A larger one
 * would only fill socket buffers.
 */
export const MAX_STREAM_WINDOW = 4 * 1024 * 1024

/** Role of a side. The client opens all streams and chooses the path; the connector follows. */
export type Role = "client" | "connector"

/** Options of {@link QuicEngine.open}. */
export interface EngineOptions {
  readonly role: Role
  /**
   * Self-signed Ed25519 certificate, in PEM. The caller checks the peer's certificate against the
   * pinned key.
   */
  readonly certificate: string
  /** Private key of the certificate, in PEM. */
  readonly privateKey: string
  /** Largest QUIC packet on any slot, in bytes: 1200 to 65527. */
  readonly maxPacket: number
  /** Slot that the handshake uses. */
  readonly slot: number
  /**
   * State for session resumption. If it is absent, every handshake is a full one and is not tied to
   * a particular session.
   */
  readonly resumption?: Resumption
}

/** Result of `write`: the peer's stream limit does not allow this new stream yet. */
export const WRITE_LIMITED = -2

/** Change of a path: its validation succeeded, or the peer moved its traffic to it. */
export type PathEvent =
  | { readonly _tag: "Validated"; readonly slot: number }
  | { readonly _tag: "PeerMigrated"; readonly slot: number }

/** Counters since the session began. `rttMs` and `cwndBytes` are those of the active path. */
export interface ConnectionStats {
  readonly packetsReceived: number
  readonly packetsSent: number
  readonly packetsLost: number
  readonly bytesReceived: number
  readonly bytesSent: number
  readonly rttMs: number
  readonly cwndBytes: number
}

/** Reason why a connection was closed. */
export interface ConnectionFault {
  /**
   * Whether the peer's application closed the connection. The fault then has its code and reason.
   * `false` if the transport closed it.
   */
  readonly application: boolean
  readonly code: number
  readonly reason: string
}

/** One QUIC connection. All calls are synchronous. */
export interface QuicConnection {
  /**
   * First four bytes of the connection id that a packet of an established connection carries, as a
   * number. Packets that the peer sent for different paths carry different ids.
   */
  readonly idOf: (packet: Uint8Array) => number
  /**
   * Takes one QUIC packet, or several coalesced ones, received on `slot`. Returns `false` if it
   * does not belong to this connection and must be dropped.
   */
  readonly receive: (slot: number, packet: Uint8Array) => boolean
  /**
   * Writes the next packet into `into` and returns its length. 0 if there is nothing to send now.
   * `sendSlot` tells its slot.
   */
  readonly send: (into: Uint8Array) => number
  /** The slot on which the packet last written by `send` must be sent. */
  readonly sendSlot: () => number

  /** Milliseconds until `onTimeout` is due. `null` if no timer is set. */
  readonly timeoutMs: () => number | null
  readonly onTimeout: () => void

  readonly isEstablished: () => boolean
  /**
   * Whether early data may be exchanged before the handshake is complete.
   *
   * Client: `write` sends early data, or sends it later if the connector rejects early data.
   * Connector: `read` returns early data for this very session, sent by the client that
   * `peerCertificate` identifies.
   */
  readonly isEarly: () => boolean
  /**
   * TLS session from which a later session can resume; it is secret. `null` if the connector has
   * not sent a session ticket yet. Client only.
   */
  readonly savedSession: () => Uint8Array | null
  readonly isClosed: () => boolean
  readonly isTimedOut: () => boolean
  /** The peer's certificate, in DER. `null` before it has arrived. */
  readonly peerCertificate: () => Uint8Array | null
  /**
   * Reason why the connection closed: the peer's reason, or else this side's. `null` if there is
   * none.
   */
  readonly fault: () => ConnectionFault | null
  /**
   * Notifies the peer that the connection closes. It is closed after the draining time. `code` is
   * an application code.
   */
  readonly close: (code: number, reason: string) => void

  /** All streams that have data, an end or a reset to read. Each call lists every one. */
  readonly readable: () => Iterable<number>
  /**
   * Reads from a stream. Returns the number of bytes (0 is possible together with the end),
   * READ_NOTHING or READ_RESET. `readFinished` tells whether the end was reached.
   */
  readonly read: (stream: number, into: Uint8Array) => number
  /** Whether the last `read` reached the end of its stream. */
  readonly readFinished: () => boolean
  /**
   * Copies bytes to a stream. Returns how many were accepted (0 if blocked), WRITE_STOPPED or
   * WRITE_LIMITED.
   */
  readonly write: (stream: number, data: Uint8Array) => number
  /**
   * Whether a stream will never accept data again. Called after a `write` that accepted nothing, on
   * a stream that was written to before. quiche forgets a stream when the peer has stopped it and
   * has seen its reset; from then on `write` looks blocked permanently.
   */
  readonly isForgotten: (stream: number) => boolean
  /** Ends the sending side. Returns `false` if blocked; try again later. */
  readonly finish: (stream: number) => boolean
  /** Sends RESET_STREAM and discards what has not been sent yet. */
  readonly reset: (stream: number, code: number) => void
  /** Sends STOP_SENDING and discards what has not been read yet. */
  readonly stop: (stream: number, code: number) => void
  /** Whether any stream could accept a byte now. */
  readonly anyWritable: () => boolean

  /**
   * Queues a datagram. Returns `false` if it is too large for the path, the queue is full, or the
   * peer does not accept datagrams.
   */
  readonly sendDatagram: (data: Uint8Array) => boolean
  /** Returns the next received datagram. `null` if none is waiting. */
  readonly receiveDatagram: () => Uint8Array | null

  /** Makes the next flush carry a frame that the peer acknowledges: a PING if there is no other. */
  readonly ping: () => void

  /**
   * Sends a PATH_CHALLENGE on `slot` (RFC 9000, section 8.2). Client only. Returns `false` if that
   * is not possible now.
   */
  readonly probe: (slot: number) => boolean
  /**
   * Moves all traffic to `slot` (RFC 9000, section 9). Client only. Returns `false` if that is not
   * possible now.
   */
  readonly migrate: (slot: number) => boolean
  readonly isValidated: (slot: number) => boolean
  /** Issues as many connection ids as the peer accepts, and drops retired ones. */
  readonly replenishIds: () => void
  readonly nextPathEvent: () => PathEvent | null
  readonly stats: () => ConnectionStats
}

/** A QUIC library, as sessions use it. */
export interface QuicEngine {
  /**
   * Opens a connection. A client starts the handshake at the first `send`; a connector waits for
   * the peer's first packet.
   */
  readonly open: (options: EngineOptions) => QuicConnection
}
