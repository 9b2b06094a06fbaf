/** The beginning of a flow on its stream: the client asks, the connector answers; what follows is for a FlowPump. */
import {
  type BadReason,
  type Decoded,
  decodeOpen,
  decodeVerdict,
  encodeOpen,
  encodeVerdict,
  type Open,
  type Verdict
} from "../../protocol/FlowWire.ts"
import {
  FLOW_RESET,
  type FlowStream,
  READ_NOTHING,
  READ_RESET,
  type StreamHandler,
  WRITE_STOPPED
} from "./FlowStream.ts"

/** A dial may take 10 s, and its answer a few round trips over a bad path. */
export const VERDICT_TIMEOUT_MS = 15_000
/** The Open is in the first packet of its stream; only losses delay the rest. */
export const OPEN_TIMEOUT_MS = 10_000
/** Of application bytes that come right behind an Open or a verdict, this many are taken along at once. */
const scrap = new Uint8Array(16 * 1024)

export type Answer =
  | {
    readonly _tag: "Accepted"
    readonly stream: FlowStream
    /** The application's first bytes from the far side; the pump wants them as `fromStream`. */
    readonly rest: Uint8Array
  }
  /** The stream is over. */
  | { readonly _tag: "Rejected"; readonly verdict: Verdict }

/** Null: no more of them now. */
export interface Streams {
  readonly openStream: () => FlowStream | null
}

const internal = (reason: string): Answer => ({ _tag: "Rejected", verdict: { code: "internal", reason } })

/**
 * Client: opens a flow. `done` is called once, in a later turn or at once. The returned function gives the flow up (the
 * application went away); then `done` is not called any more.
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
  const late: Answer = { _tag: "Rejected", verdict: { code: "timed_out", reason: "the connector did not answer" } }
  const timer = setTimeout(() => finish(late), VERDICT_TIMEOUT_MS)
  const writer = write(stream, hello)
  stream.handler = {
    onReadable: collect(stream, decodeVerdict, (result, rest) => {
      if (typeof result === "string") return finish(internal(`the connector's answer is ${result}`))
      finish(result.code === "accepted" ? { _tag: "Accepted", stream, rest } : { _tag: "Rejected", verdict: result })
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

const gone: Answer = {
  _tag: "Rejected",
  verdict: { code: "unreachable", reason: "the session with the connector ended before it answered" }
}

const tooMany: Answer = {
  _tag: "Rejected",
  verdict: { code: "too_many_flows", reason: "no more streams in this session" }
}

export interface Incoming {
  readonly stream: FlowStream
  readonly open: Open
  /** The application's first bytes; the pump wants them as `fromStream`. */
  readonly rest: Uint8Array
}

/**
 * Connector: reads the Open of a stream that the peer opened. From then on the stream is left alone until a pump takes it, or
 * `reject` ends it. A stream that does not begin with an Open is reset and `onBad` is told.
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

/** Early bytes wait in the stream's window while the connector dials. */
const waiting: StreamHandler = { onReadable: () => {}, onWritable: () => {}, onClosed: () => {} }

/** Connector: says that the resource answered. The verdict is in front of everything that a pump writes after it. */
export const admit = (stream: FlowStream): Uint8Array => {
  const bytes = encodeVerdict({ code: "accepted", reason: "" })
  const taken = stream.write(bytes)
  return taken < 0 ? NOTHING : bytes.subarray(taken)
}

/** Connector: says why not, and ends the stream; what the client still sends is thrown away. */
export const reject = (stream: FlowStream, verdict: Verdict): void => {
  const writer = write(stream, encodeVerdict(verdict), true)
  stream.handler = { onReadable: () => discard(stream), onWritable: writer, onClosed: () => {} }
  writer()
  discard(stream)
}

const NOTHING = new Uint8Array(0)

/** Writes all of `bytes` as room comes, then the end if asked to. */
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

/** Feeds a decoder from a stream until it is done; the bytes behind it are handed over as a copy. */
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
      kept = joined(kept, scrap.subarray(0, got))
      const step = decode(kept)
      if (step._tag === "Done") return done(step.value, kept.subarray(step.used))
      if (step._tag === "Bad") return done(step.reason, NOTHING)
      if (stream.readOver) return done("ended", NOTHING)
    }
  }
}

const joined = (left: Uint8Array, right: Uint8Array): Uint8Array => {
  const all = new Uint8Array(left.length + right.length)
  all.set(left)
  all.set(right, left.length)
  return all
}
