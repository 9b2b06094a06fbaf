/**
 * What the two ends of a session tell each other to set up a WebRTC connection (RFC 8829, RFC 8838), on the session's own control
 * stream: only the peer whose key the session has proved can have said it, and so its DTLS fingerprint (RFC 8122) is that peer's.
 */
import { Either, Schema } from "effect"

/** Counts the client's tries in a session. What belongs to another try than the newest is passed over. */
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

export const encode = (signal: IceSignal): Uint8Array => encoder.encode(encodeJson(signal))

/** Null: not one of these. */
export const decode = (bytes: Uint8Array): IceSignal | null => Either.getOrNull(decodeJson(decoder.decode(bytes)))
