/**
 * The interface between a flow and the stream that carries it: a QUIC stream (`QuicStream`) or a
 * data channel (`ChannelStream`). All calls are synchronous, and none throws.
 */

/** Result of `read`: nothing to read now. */
export const READ_NOTHING = -1
/** Result of `read`: the peer reset the stream, or the stream's reading side is already over. */
export const READ_RESET = -2
/** Result of `write`: the peer asked to stop, or the stream's writing side is already over. */
export const WRITE_STOPPED = -1

/** Stream error code of a flow that either side cut. */
export const FLOW_RESET = 1

/**
 * Events of a stream, called by its session in the session's turn. The handler may be replaced at
 * any time.
 */
export interface StreamHandler {
  /** Bytes, the end or a reset can be read. Repeated until they are read. */
  readonly onReadable: () => void
  /** There may be room again after a short `write` or an unsuccessful `finish`. */
  readonly onWritable: () => void
  /** The session has ended, and the stream with it. */
  readonly onClosed: () => void
}

/** A stream of bytes in both directions, with an end and a reset for each direction. */
export interface FlowStream {
  handler: StreamHandler | null
  /** Whether the end or a reset was read, or `stop` was called. */
  readonly readOver: boolean
  /** Whether `finish` succeeded, `reset` was called, or the peer asked to stop. */
  readonly writeOver: boolean
  /**
   * Reads into `into`. Returns the number of bytes, `READ_NOTHING` or `READ_RESET`. The number may
   * be 0 at the end of the stream (see `readOver`).
   */
  read(into: Uint8Array): number
  /**
   * Writes as many bytes as there is room for. Returns their number, or `WRITE_STOPPED` if the peer
   * reads no more. The caller keeps the rest and writes it at `onWritable`. `pending` is the number
   * of bytes that the caller has waiting in all (default: those of `data`).
   */
  write(data: Uint8Array, pending?: number): number
  /** Ends the writing side. Returns `false` if it is blocked: call it again at `onWritable`. */
  finish(): boolean
  /** Discards unsent bytes and resets the writing side, which the peer's reader sees. */
  reset(code: number): void
  /** Asks the peer to send no more. Bytes that still arrive are discarded. */
  stop(code: number): void
  /** Resets and stops, as far as either side is not over yet. */
  abort(code: number): void
  /**
   * Tells the stream that its reader leaves waiting bytes alone for a while, for example during a
   * dial.
   */
  pause(): void
}
