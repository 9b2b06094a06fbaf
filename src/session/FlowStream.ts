/**
 * The interface between a flow and the stream that carries it: a QUIC stream (`QuicStream`) or a
 * data channel (`ChannelStream`). All calls are synchronous, and none throws.
 */

/** Result of `read`: there is nothing to read now. */
export const READ_NOTHING = -1
/** Result of `read`: the peer reset the stream, or the reading side has already ended. */
export const READ_RESET = -2
/** Result of `write`: the peer asked to stop, or the writing side has already ended. */
export const WRITE_STOPPED = -1

/** Stream error code with which either side resets a flow. */
export const FLOW_RESET = 1

/**
 * Events of a stream, called by its session in the session's turn. The handler may be replaced at
 * any time.
 */
export interface StreamHandler {
  /** Called when bytes, the end or a reset can be read, and again until they are read. */
  readonly onReadable: () => void
  /**
   * Called when there may be room again after a `write` that took only a part, or a `finish` that
   * returned `false`.
   */
  readonly onWritable: () => void
  /** Called when the session has ended, and the stream with it. */
  readonly onClosed: () => void
}

/** A stream of bytes in both directions, with an end and a reset for each direction. */
export interface FlowStream {
  handler: StreamHandler | null
  /** Whether the reading side has ended: the end or a reset was read, or `stop` was called. */
  readonly readOver: boolean
  /**
   * Whether the writing side has ended: `finish` succeeded, `reset` was called, or the peer asked
   * to stop.
   */
  readonly writeOver: boolean
  /**
   * Reads into `into`. Returns the number of bytes, `READ_NOTHING` or `READ_RESET`. The number may
   * be 0 at the end of the stream (see `readOver`).
   */
  read(into: Uint8Array): number
  /**
   * Writes as many bytes as there is room for. Returns their number, or `WRITE_STOPPED` if the peer
   * reads no more. The caller keeps the rest and writes it at `onWritable`. `pending` is the number
   * of all bytes that the caller wants to write now (default: those of `data`).
   */
  write(data: Uint8Array, pending?: number): number
  /** Ends the writing side. Returns `false` if it is blocked: call it again at `onWritable`. */
  finish(): boolean
  /** Discards unsent bytes and resets the writing side, which the peer's reader sees. */
  reset(code: number): void
  /** Asks the peer to send no more. Bytes that still arrive are discarded. */
  stop(code: number): void
  /** Resets the writing side and stops the reading side, if they have not ended yet. */
  abort(code: number): void
  /** Notifies the stream that its reader will not read for a while, for example during a dial. */
  pause(): void
}
