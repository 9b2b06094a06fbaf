/**
 * Signals by which the two ends of a session set up a WebRTC connection (RFC 8829, RFC 8838). They
 * travel on the session's own control stream. Only the peer whose key the session has proved can
 * have sent them, so the DTLS fingerprint in them (RFC 8122) is that peer's. Signals of a browser
 * are sealed instead (`SignalSeal`).
 */
import { Either, Schema } from "effect"

/**
 * Number of the client's attempt in a session. A signal of any attempt but the newest is ignored.
 */
const attempt = Schema.NonNegativeInt
const Sdp = Schema.String.pipe(Schema.maxLength(16_384))

export const IceSignal = Schema.Union(
  Schema.Struct({ kind: Schema.Literal("offer", "answer"), attempt, sdp: Sdp }),
  Schema.Struct({
    kind: Schema.Literal("candidate"),
    attempt,
    candidate: Schema.String.pipe(Schema.maxLength(512)),
    mid: Schema.String.pipe(Schema.maxLength(64))
  }),
  /** The sender has given up, or has ended the connection. */
  Schema.Struct({ kind: Schema.Literal("end"), attempt })
)
export type IceSignal = typeof IceSignal.Type

const encoder = new TextEncoder()
const decoder = new TextDecoder()
const encodeJson = Schema.encodeSync(Schema.parseJson(IceSignal))
const decodeJson = Schema.decodeUnknownEither(Schema.parseJson(IceSignal))

/** Encodes a signal. */
export const encode = (signal: IceSignal): Uint8Array => encoder.encode(encodeJson(signal))

/** Decodes a signal. `null` if the bytes are not one. */
export const decode = (bytes: Uint8Array): IceSignal | null => Either.getOrNull(decodeJson(decoder.decode(bytes)))
