/** What a session needs of a QUIC implementation: packets in, packets out, streams and paths. No sockets, no clock of ours. */

import type { Resumption } from "./Resumption.ts"

export { READ_NOTHING, READ_RESET, WRITE_STOPPED } from "../flow/FlowStream.ts"

/** A session's paths live in this many fixed slots; a slot is pointed at another path underneath (QUIC never sees a new address). */
export const SLOTS = 8

export const ALPN = "sallyport/1"

/** A stream starts with this much credit (all that a stalled flow can hold) and doubles while its reader keeps up... */
export const STREAM_WINDOW = 512 * 1024
/** ...to this, which feeds 1 Gbit/s at 32 ms; larger only fills the sockets' buffers. */
export const MAX_STREAM_WINDOW = 4 * 1024 * 1024

/** The client opens every stream and decides every path; the connector follows. */
export type Role = "client" | "connector"

export interface EngineOptions {
  readonly role: Role
  /** PEM: a self-signed Ed25519 certificate and its key. Peers are checked by the caller against the pinned key. */
  readonly certificate: string
  readonly privateKey: string
  /** Largest QUIC packet on any slot, bytes: 1200 to 65527. */
  readonly maxPacket: number
  /** The slot that the handshake uses. */
  readonly slot: number
  /** Absent: every handshake is whole, and bound to no session. */
  readonly resumption?: Resumption
}

/** `write`: the peer's stream limit does not allow this new stream yet. */
export const WRITE_LIMITED = -2

export type PathEvent =
  | { readonly _tag: "Validated"; readonly slot: number }
  | { readonly _tag: "PeerMigrated"; readonly slot: number }

/** Counters since the session began; `rttMs` and `cwndBytes` are of the active path. */
export interface ConnectionStats {
  readonly packetsReceived: number
  readonly packetsSent: number
  readonly packetsLost: number
  readonly bytesReceived: number
  readonly bytesSent: number
  readonly rttMs: number
  readonly cwndBytes: number
}

export interface ConnectionFault {
  /** True: the peer's application closed (its code and reason); false: the transport did. */
  readonly application: boolean
  readonly code: number
  readonly reason: string
}

export interface QuicConnection {
  /** One QUIC packet, or several coalesced, as they came in by `slot`. False: not for this connection; drop it. */
  readonly receive: (slot: number, packet: Uint8Array) => boolean
  /** Writes the next packet, at most `into.length` bytes. 0: nothing to send now. See `sendSlot`. */
  readonly send: (into: Uint8Array) => number
  /** By which slot the packet that `send` wrote last has to leave. */
  readonly sendSlot: () => number

  /** Milliseconds until `onTimeout` is due; null: no timer. */
  readonly timeoutMs: () => number | null
  readonly onTimeout: () => void

  readonly isEstablished: () => boolean
  /**
   * Before it is established. Client: what is written leaves as early data, or, where the connector takes none, later. Connector:
   * what is read is early data, sent by whom `peerCertificate` says, for this very session.
   */
  readonly isEarly: () => boolean
  /** Client: to resume from; secret. Null: the connector has not sent a ticket yet. */
  readonly savedSession: () => Uint8Array | null
  readonly isClosed: () => boolean
  readonly isTimedOut: () => boolean
  /** DER of the peer's certificate; null before it came. */
  readonly peerCertificate: () => Uint8Array | null
  /** Why it closed: what the peer said, else what was said here. */
  readonly fault: () => ConnectionFault | null
  /** Tells the peer; the connection is closed after its draining time. `code` is an application code. */
  readonly close: (code: number, reason: string) => void

  /** Streams that have data, an end or a reset to read (every one, at each call). */
  readonly readable: () => Iterable<number>
  /** Bytes read (0 is possible together with the end), or READ_NOTHING, or READ_RESET. See `readFinished`. */
  readonly read: (stream: number, into: Uint8Array) => number
  /** Whether the last `read` reached the end of its stream. */
  readonly readFinished: () => boolean
  /** Bytes taken (they are copied), 0 when blocked, or WRITE_STOPPED, or WRITE_LIMITED. */
  readonly write: (stream: number, data: Uint8Array) => number
  /**
   * After a `write` that took nothing of a stream that was written to before: whether nobody will ever take anything. quiche
   * forgets a stream when the peer has stopped it and seen it reset, and `write` then looks blocked for ever.
   */
  readonly isForgotten: (stream: number) => boolean
  /** Ends the sending side. False: blocked, try again. */
  readonly finish: (stream: number) => boolean
  /** RESET_STREAM: what is not yet sent is thrown away. */
  readonly reset: (stream: number, code: number) => void
  /** STOP_SENDING: what is not yet read is thrown away. */
  readonly stop: (stream: number, code: number) => void
  /** Whether any stream at all could take a byte now. */
  readonly anyWritable: () => boolean
  /** How many further bidirectional streams the peer allows. */
  readonly streamsLeft: () => number

  /** False: the datagram is too large for the path, the queue is full, or the peer takes none. */
  readonly sendDatagram: (data: Uint8Array) => boolean
  /** Null: none waiting. */
  readonly receiveDatagram: () => Uint8Array | null

  /** Makes the next flush carry something that the peer acknowledges, a PING if need be. */
  readonly ping: () => void

  /** Client: sends a PATH_CHALLENGE by `slot` (RFC 9000, section 8.2). False: not possible now. */
  readonly probe: (slot: number) => boolean
  /** Client: all traffic leaves by `slot` from now on (RFC 9000, section 9). False: not possible now. */
  readonly migrate: (slot: number) => boolean
  readonly isValidated: (slot: number) => boolean
  /** Hands out as many connection ids as the peer keeps, and forgets retired ones. */
  readonly replenishIds: () => void
  readonly nextPathEvent: () => PathEvent | null
  readonly stats: () => ConnectionStats
}

export interface QuicEngine {
  /** A new connection: of a client it starts the handshake at the first `send`, of a connector it waits for the peer's first packet. */
  readonly open: (options: EngineOptions) => QuicConnection
}
