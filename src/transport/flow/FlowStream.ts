/**
 * What a flow needs of the stream that carries it: QUIC's (`QuicStream`) or a data channel's (`ChannelStream`). All calls are
 * synchronous; none throws.
 */

/** `read` has nothing for now. */
export const READ_NOTHING = -1
/** `read`: the peer reset the stream, or it is already over. */
export const READ_RESET = -2
/** `write`: the peer asked to stop, or the stream is already over. */
export const WRITE_STOPPED = -1

/** Stream error code of a flow that was cut, by either side. */
export const FLOW_RESET = 1

/** Told by the stream's session, in its turn. A handler may be replaced at any time. */
export interface StreamHandler {
  /** Bytes, the end or a reset wait to be read; said again until they are read. */
  readonly onReadable: () => void
  /** There may be room again after a short `write` or an unsuccessful `finish`. */
  readonly onWritable: () => void
  /** The session is gone, and the stream with it. */
  readonly onClosed: () => void
}

export interface FlowStream {
  handler: StreamHandler | null
  /** The end or a reset was read, or `stop` was called. */
  readonly readOver: boolean
  /** `finish` succeeded, or `reset` was called, or the peer stopped us. */
  readonly writeOver: boolean
  /** Bytes read (0 is possible with the end: see `readOver`), READ_NOTHING, or READ_RESET. */
  read(into: Uint8Array): number
  /** Bytes taken; the caller keeps the rest and is told by `onWritable`. WRITE_STOPPED: nobody reads any more. */
  write(data: Uint8Array, pending?: number): number
  /** Ends the sending side. False: blocked; call again at `onWritable`. */
  finish(): boolean
  /** Throws away what is unsent; the peer's reader sees a reset. */
  reset(code: number): void
  /** Asks the peer to send no more; what comes is thrown away. */
  stop(code: number): void
  /** Both of the above, for what is not over yet. */
  abort(code: number): void
  /** To be said whenever the reader means to leave waiting bytes alone for a while, as it does while it dials. */
  pause(): void
}
