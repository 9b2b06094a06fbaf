/**
 * Opens a flow on its stream: the client asks and the connector answers. A `FlowPump` moves the
 * bytes that follow.
 */
import { concat } from "../protocol/bytes/Concat.ts"
import {
  type BadReason,
  type Decoded,
  decodeOpen,
  decodeVerdict,
  encodeOpen,
  encodeVerdict,
  type Open,
  type Verdict
} from "../protocol/flow/FlowWire.ts"
import {
  FLOW_RESET,
  type FlowStream,
  READ_NOTHING,
  READ_RESET,
  type StreamHandler,
  WRITE_STOPPED
} from "./FlowStream.ts"

/**
 * Longest wait of a client for the verdict, in milliseconds. A dial may take 10 s, and its answer a
 * few round trips over a bad path.
 */
export const VERDICT_TIMEOUT_MS = 15_000
/**
 * Longest wait of a connector for a whole Open, in milliseconds. The Open is in the first packet of
 * its stream, so only lost packets delay it.
 */
export const OPEN_TIMEOUT_MS = 10_000
/**
 * Read buffer of the thread. Application bytes that follow an Open or a verdict are read along with
 * it, up to this size.
 */
const scrap = new Uint8Array(16 * 1024)

/** The connector's answer to a flow's Open, or the cause of a failure on this side. */
export type Answer =
  | {
    readonly _tag: "Accepted"
    readonly stream: FlowStream
    /** First bytes of the application on the far side. Pass them to the pump as `fromStream`. */
    readonly rest: Uint8Array
  }
  /**
   * The flow was not opened, and its stream has ended. `lost`: the session ended before it brought
   * an answer, so the flow may be asked for in another session.
   */
  | { readonly _tag: "Rejected"; readonly verdict: Verdict; readonly lost: boolean }

/** Opens streams of a session. `openStream` returns `null` if no more can be opened now. */
export interface Streams {
  readonly openStream: () => FlowStream | null
}

const rejected = (verdict: Verdict, lost = false): Answer => ({ _tag: "Rejected", verdict, lost })
const internal = (reason: string): Answer => rejected({ code: "internal", reason })

/**
 * Opens a flow. Client only. `done` is called once, before this returns or later. The returned
 * function cancels, when the application has closed its connection; then `done` is not called.
 */
export const request = (session: Streams, open: Open, done: (answer: Answer) => void): () => void => {
  const hello = encodeOpen(open)
  const stream = hello === null ? null : session.openStream()
  if (hello === null || stream === null) {
    done(hello === null ? internal("the target is not valid") : tooMany)
    return () => {}
  }
  let over = false
  const finish = (answer: Answer) => {
    if (over) return
    over = true
    clearTimeout(timer)
    if (answer._tag === "Rejected") {
      stream.handler = null
      stream.abort(FLOW_RESET)
    }
    done(answer)
  }
  const late = rejected({ code: "timed_out", reason: "the connector did not answer" })
  const timer = setTimeout(() => finish(late), VERDICT_TIMEOUT_MS)
  const writer = write(stream, hello)
  stream.handler = {
    onReadable: collect(stream, decodeVerdict, (result, rest) => {
      if (typeof result === "string") return finish(internal(`the connector's answer is ${result}`))
      finish(result.code === "accepted" ? { _tag: "Accepted", stream, rest } : rejected(result))
    }),
    onWritable: writer,
    onClosed: () => finish(gone)
  }
  writer()
  return () => {
    if (over) return
    over = true
    clearTimeout(timer)
    stream.handler = null
    stream.abort(FLOW_RESET)
  }
}

const gone = rejected(
  { code: "unreachable", reason: "the session with the connector ended before it answered" },
  true
)

const tooMany = rejected({ code: "too_many_flows", reason: "no more streams in this session" })

/** A flow that a client asks for. */
export interface Incoming {
  readonly stream: FlowStream
  readonly open: Open
  /** First bytes of the application. Pass them to the pump as `fromStream`. */
  readonly rest: Uint8Array
}

/**
 * Reads the Open of a stream that the peer opened. Connector only. Afterwards the stream is paused
 * until a pump takes it or `reject` ends it. A stream that does not begin with an Open is reset,
 * and `onBad` receives the reason.
 */
export const accept = (
  stream: FlowStream,
  onOpen: (incoming: Incoming) => void,
  onBad: (reason: BadReason | "reset" | "ended" | "timed_out") => void = () => {}
): void => {
  const giveUp = (reason: BadReason | "reset" | "ended" | "timed_out") => {
    clearTimeout(timer)
    stream.handler = null
    stream.abort(FLOW_RESET)
    onBad(reason)
  }
  const timer = setTimeout(() => giveUp("timed_out"), OPEN_TIMEOUT_MS)
  stream.handler = {
    onReadable: collect(stream, decodeOpen, (result, rest) => {
      if (typeof result === "string") return giveUp(result)
      clearTimeout(timer)
      stream.handler = waiting
      stream.pause()
      onOpen({ stream, open: result, rest })
    }),
    onWritable: () => {},
    onClosed: () => clearTimeout(timer)
  }
}

/** Handler of a stream whose flow is being dialled. Early bytes wait in the stream's window. */
const waiting: StreamHandler = { onReadable: () => {}, onWritable: () => {}, onClosed: () => {} }

/**
 * Notifies the client that the resource has accepted. Connector only. Returns the bytes of the
 * verdict that the stream had no room for; they must be written before everything else.
 */
export const admit = (stream: FlowStream): Uint8Array => {
  const bytes = encodeVerdict({ code: "accepted", reason: "" })
  const taken = stream.write(bytes)
  return taken < 0 ? NOTHING : bytes.subarray(taken)
}

/**
 * Notifies the client why the flow is rejected, and ends the stream. Connector only. Bytes that the
 * client still sends are discarded.
 */
export const reject = (stream: FlowStream, verdict: Verdict): void => {
  const writer = write(stream, encodeVerdict(verdict), true)
  stream.handler = { onReadable: () => discard(stream), onWritable: writer, onClosed: () => {} }
  writer()
  discard(stream)
}

const NOTHING = new Uint8Array(0)

/**
 * Returns a function that writes `bytes` as far as there is room; call it again at `onWritable`.
 * With `end` it then ends the stream.
 */
const write = (stream: FlowStream, bytes: Uint8Array, end = false) => {
  let left = bytes
  return () => {
    while (left.length > 0) {
      const taken = stream.write(left)
      if (taken === WRITE_STOPPED) left = NOTHING
      else left = left.subarray(taken)
      if (taken <= 0) break
    }
    if (left.length === 0 && end) stream.finish()
  }
}

const discard = (stream: FlowStream): void => {
  for (let budget = 64; budget > 0 && !stream.readOver; budget -= 1) {
    if (stream.read(scrap) === READ_NOTHING) return
  }
}

/**
 * Returns an `onReadable` that feeds a decoder until it is done. The bytes after the decoded part
 * are passed on as a copy.
 */
const collect = <A>(
  stream: FlowStream,
  decode: (bytes: Uint8Array) => Decoded<A>,
  done: (result: A | BadReason | "reset" | "ended", rest: Uint8Array) => void
) => {
  let kept: Uint8Array = NOTHING
  return (): void => {
    for (;;) {
      const got = stream.read(scrap)
      if (got === READ_NOTHING) return
      if (got === READ_RESET) return done("reset", NOTHING)
      kept = concat([kept, scrap.subarray(0, got)])
      const step = decode(kept)
      if (step._tag === "Done") return done(step.value, kept.subarray(step.used))
      if (step._tag === "Bad") return done(step.reason, NOTHING)
      if (stream.readOver) return done("ended", NOTHING)
    }
  }
}
