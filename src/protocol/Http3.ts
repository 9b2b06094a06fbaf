/**
 * HTTP/3 on the wire (RFC 9114), with extended CONNECT (RFC 9220), capsules (RFC 9297, section 3) and WebTransport sessions
 * (draft-ietf-webtrans-http3-02 and -07). A frame and a capsule look alike, integers as in `Varint`:
 *
 *     type | length of what follows | payload
 *
 * Pure: streams, flow control and which frame may come when are the caller's. Field sections are `Qpack`'s.
 */
import { Either } from "effect"
import * as Varint from "./Varint.ts"

/** `code` is one of `ErrorCode`, to reset the stream or close the connection with. */
export interface Http3Fault {
  readonly _tag: "Http3Fault"
  readonly code: number
  readonly message: string
}
export const fault = (code: number, message: string): Http3Fault => ({ _tag: "Http3Fault", code, message })

export const FrameType = {
  data: 0x00,
  headers: 0x01,
  cancelPush: 0x03,
  settings: 0x04,
  pushPromise: 0x05,
  goAway: 0x07,
  maxPushId: 0x0d,
  /** No frame: it has no length, and makes the rest of the stream a session's (`bidiHead`). */
  webTransportStream: 0x41
} as const

export const StreamType = {
  control: 0x00,
  push: 0x01,
  qpackEncoder: 0x02,
  qpackDecoder: 0x03,
  webTransport: 0x54
} as const

export const ErrorCode = {
  datagram: 0x33,
  noError: 0x100,
  general: 0x101,
  internal: 0x102,
  streamCreation: 0x103,
  closedCriticalStream: 0x104,
  frameUnexpected: 0x105,
  frame: 0x106,
  excessiveLoad: 0x107,
  id: 0x108,
  settings: 0x109,
  missingSettings: 0x10a,
  requestRejected: 0x10b,
  requestCancelled: 0x10c,
  requestIncomplete: 0x10d,
  message: 0x10e,
  connect: 0x10f,
  versionFallback: 0x110,
  qpackDecompression: 0x200,
  qpackEncoderStream: 0x201,
  qpackDecoderStream: 0x202,
  sessionGone: 0x170d7b68,
  bufferedStreamRejected: 0x3994bd84
} as const

export const Setting = {
  qpackMaxTableCapacity: 0x01,
  maxFieldSectionSize: 0x06,
  qpackBlockedStreams: 0x07,
  enableConnectProtocol: 0x08,
  h3Datagram: 0x33,
  h3DatagramDraft04: 0xffd277,
  enableWebTransportDraft02: 0x2b603742,
  webTransportMaxSessionsDraft07: 0xc671706a
} as const

export const Capsule = { closeSession: 0x2843, drainSession: 0x78ae } as const

const KNOWN_FRAMES: ReadonlySet<number> = new Set([0x00, 0x01, 0x03, 0x04, 0x05, 0x07, 0x0d])
const HTTP2_FRAMES: ReadonlySet<number> = new Set([0x02, 0x06, 0x08, 0x09]) // section 7.2.8
const KNOWN_CAPSULES: ReadonlySet<number> = new Set(Object.values(Capsule))
const HTTP2_SETTINGS: ReadonlySet<number> = new Set([0x00, 0x02, 0x03, 0x04, 0x05]) // sections 7.2.4.1 and 11.2.2
/** RFC 8441, section 3; RFC 9297, section 2.1.1. */
const BOOLEAN_SETTINGS: ReadonlySet<number> = new Set([Setting.enableConnectProtocol, Setting.h3Datagram])
const MAX_REASON_BYTES = 1024 // draft-ietf-webtrans-http3, "Session Termination"

// ------------------------------------------------------------------------------------------------------------ frames

export interface Frame {
  readonly type: number
  readonly payload: Uint8Array
}

export const frame = (type: number, payload: Uint8Array): Uint8Array => {
  const out = new Uint8Array(Varint.sizeOf(type) + Varint.sizeOf(payload.length) + payload.length)
  out.set(payload, Varint.write(out, Varint.write(out, 0, type), payload.length))
  return out
}

/** A whole SETTINGS frame. */
export const encodeSettings = (settings: Readonly<Record<number, number>>): Uint8Array => {
  const entries = Object.entries(settings)
  const payload = new Uint8Array(16 * entries.length)
  let at = 0
  for (const [id, value] of entries) at = Varint.write(payload, Varint.write(payload, at, Number(id)), value)
  return frame(FrameType.settings, payload.subarray(0, at))
}

/** Section 7.2.4. Unknown settings are in it too. */
export const decodeSettings = (payload: Uint8Array): Either.Either<ReadonlyMap<number, number>, Http3Fault> => {
  const settings = new Map<number, number>()
  let at = 0
  while (at < payload.length) {
    const id = Varint.read(payload, at)
    const value = id === null ? null : Varint.read(payload, id.end)
    if (id === null || value === null) return failed(ErrorCode.frame, "SETTINGS ends inside a setting")
    at = value.end
    if (HTTP2_SETTINGS.has(id.value)) return failed(ErrorCode.settings, `setting ${id.value} is one of HTTP/2`)
    if (BOOLEAN_SETTINGS.has(id.value) && value.value > 1) {
      return failed(ErrorCode.settings, `setting ${id.value} is ${value.value}, neither 0 nor 1`)
    }
    if (id.value === Number.MAX_SAFE_INTEGER) continue // unknown, and several identifiers read as this one
    if (settings.has(id.value)) return failed(ErrorCode.settings, `setting ${id.value} comes twice`)
    settings.set(id.value, value.value)
  }
  return Either.right(settings)
}

/**
 * Cuts `Frame`s out of a stream. Those whose fate is "Skip" are passed over whatever their length, without being kept; one to
 * keep that is longer than the bound is a fault. After a fault it must not be used again.
 */
class Cutter {
  private readonly maxPayloadBytes: number
  private readonly fateOf: (type: number) => "Keep" | "Skip" | Http3Fault
  private readonly head = new Uint8Array(16) // two integers
  private headLength = 0
  private type = -1 // of the frame whose payload is being read; -1 while its head is not complete
  private isSkipped = false
  private left = 0 // bytes of its payload to come
  private payload: Uint8Array = NOTHING // room for what has come of it, which grows
  private payloadLength = 0

  constructor(maxPayloadBytes: number, fateOf: (type: number) => "Keep" | "Skip" | Http3Fault) {
    this.maxPayloadBytes = maxPayloadBytes
    this.fateOf = fateOf
  }

  /** The stream may not end here: this is the middle of a frame. */
  get isPartial(): boolean {
    return this.type >= 0 || this.headLength > 0
  }

  /** Bytes set aside for a frame that is not complete. */
  get heldBytes(): number {
    return this.headLength + this.payload.length
  }

  /** The frames that end in `bytes`, in order. Payloads that lie wholly in `bytes` are views of it. */
  push(bytes: Uint8Array): Either.Either<ReadonlyArray<Frame>, Http3Fault> {
    const out: Array<Frame> = []
    let at = 0
    for (;;) {
      if (this.type < 0) {
        at = this.takeHead(bytes, at)
        if (this.headLength < this.headBytes()) return Either.right(out)
        const refused = this.onHead()
        if (refused !== null) return Either.left(refused)
      }
      const piece = bytes.subarray(at, at + Math.min(this.left, bytes.length - at))
      at += piece.length
      this.left -= piece.length
      if (this.left === 0) {
        if (!this.isSkipped) out.push({ type: this.type, payload: this.finish(piece) })
        this.type = -1
      } else {
        if (!this.isSkipped) this.keep(piece, this.left)
        return Either.right(out)
      }
    }
  }

  private takeHead(bytes: Uint8Array, from: number): number {
    let at = from
    while (at < bytes.length && this.headLength < this.headBytes()) this.head[this.headLength++] = bytes[at++]!
    return at
  }

  /** As far as the bytes of it tell. */
  private headBytes(): number {
    const typeBytes = this.headLength === 0 ? 1 : Varint.sizeFrom(this.head[0]!)
    return typeBytes + (this.headLength <= typeBytes ? 1 : Varint.sizeFrom(this.head[typeBytes]!))
  }

  private onHead(): Http3Fault | null {
    const type = Varint.read(this.head, 0)!
    const length = Varint.read(this.head, type.end)!.value
    const fate = this.fateOf(type.value)
    if (typeof fate !== "string") return fate
    if (fate === "Keep" && length > this.maxPayloadBytes) {
      return fault(ErrorCode.excessiveLoad, `${length} bytes of type ${type.value}, over ${this.maxPayloadBytes}`)
    }
    this.headLength = 0
    this.type = type.value
    this.isSkipped = fate === "Skip"
    this.left = length
    return null
  }

  private finish(piece: Uint8Array): Uint8Array {
    if (this.payloadLength === 0) return piece
    this.keep(piece, 0)
    const whole = this.payload.subarray(0, this.payloadLength)
    this.payload = NOTHING
    this.payloadLength = 0
    return whole
  }

  /** Room is made for what has come, and not for what was only announced: at most `left` more. */
  private keep(piece: Uint8Array, left: number): void {
    const needed = this.payloadLength + piece.length
    if (needed > this.payload.length) {
      const room = new Uint8Array(Math.min(needed + left, Math.max(needed, 2 * this.payload.length, FIRST_ROOM_BYTES)))
      room.set(this.payload.subarray(0, this.payloadLength))
      this.payload = room
    }
    this.payload.set(piece, this.payloadLength)
    this.payloadLength = needed
  }
}
const NOTHING = new Uint8Array(0)
const FIRST_ROOM_BYTES = 256

/** Of a control or request stream. Unknown types are skipped (section 9). */
export class FrameReader extends Cutter {
  constructor(maxPayloadBytes: number) {
    super(maxPayloadBytes, (type) => {
      if (KNOWN_FRAMES.has(type)) return "Keep"
      if (HTTP2_FRAMES.has(type)) return fault(ErrorCode.frameUnexpected, `frame ${type} is one of HTTP/2`)
      // draft-ietf-webtrans-http3-07, "Bidirectional Streams": only at the very start of a stream, where `bidiHead` takes it.
      return type === FrameType.webTransportStream
        ? fault(ErrorCode.frame, "a session's stream inside a stream")
        : "Skip"
    })
  }
}

/**
 * How a bidirectional stream begins: with a frame of a request, or as a stream of a WebTransport session, whose own bytes
 * begin at `end`. Null: not whole yet.
 */
export const bidiHead = (
  bytes: Uint8Array
): { readonly _tag: "Request" } | {
  readonly _tag: "WebTransport"
  readonly session: number
  readonly end: number
} | null => {
  const type = Varint.read(bytes, 0)
  if (type === null) return null
  if (type.value !== FrameType.webTransportStream) return { _tag: "Request" }
  const session = Varint.read(bytes, type.end)
  return session === null ? null : { _tag: "WebTransport", session: session.value, end: session.end }
}

/** How a bidirectional stream of a session begins. */
export const webTransportHead = (session: number): Uint8Array =>
  Uint8Array.of(...Varint.encode(FrameType.webTransportStream), ...Varint.encode(session))

// ---------------------------------------------------------------------------------------------------------- messages

type Fields = ReadonlyArray<readonly [string, string]>

export interface Request {
  readonly method: string
  /** Empty for a plain CONNECT, as is `path`. */
  readonly scheme: string
  /** Of `host`, where there is no :authority. */
  readonly authority: string
  readonly path: string
  /** Of an extended CONNECT. */
  readonly protocol: string | null
  readonly headers: Fields
}

/** Sections 4.2 to 4.4, and RFC 9220. What it says of a body (content-length) is the caller's to check. Fault code: message. */
export const toRequest = (fields: Fields): Either.Either<Request, Http3Fault> =>
  Either.flatMap(split(fields, REQUEST_PSEUDO), ({ pseudo, headers }) => {
    const method = pseudo.get(":method")
    if (method === undefined) return malformed("no :method")
    const scheme = pseudo.get(":scheme") ?? ""
    const path = pseudo.get(":path") ?? ""
    const protocol = pseudo.get(":protocol") ?? null
    const hosts = headers.filter(([name]) => name === "host").map(([, value]) => value)
    const authority = pseudo.get(":authority") ?? hosts[0] ?? ""
    if (hosts.some((host) => host !== authority)) return malformed("host and :authority are not the same")
    if (!AUTHORITY.test(authority)) return malformed("a bad :authority")
    const request = { method, scheme, authority, path, protocol, headers }
    if (method === "CONNECT" && protocol === null) {
      const isPlain = pseudo.has(":authority") && authority !== "" && !pseudo.has(":scheme") && !pseudo.has(":path")
      return isPlain ? Either.right(request) : malformed("CONNECT wants :authority, and neither :scheme nor :path")
    }
    if (protocol !== null && method !== "CONNECT") return malformed(":protocol without CONNECT")
    if (protocol !== null && !pseudo.has(":authority")) return malformed("no :authority")
    if (!pseudo.has(":scheme") || !pseudo.has(":path")) return malformed("no :scheme or :path")
    if (/^https?$/i.test(scheme)) {
      if (authority === "") return malformed("no :authority")
      if (!path.startsWith("/") && !(method === "OPTIONS" && path === "*")) return malformed("a :path without /")
    }
    return Either.right(request)
  })

/** Of a response: 100 to 999, and not 101, which HTTP/3 does not have (section 4.5). */
export const statusOf = (fields: Fields): Either.Either<number, Http3Fault> =>
  Either.flatMap(
    split(fields, RESPONSE_PSEUDO),
    ({ pseudo }) => pseudo.has(":status") ? Either.right(Number(pseudo.get(":status"))) : malformed("no :status")
  )

/** The pseudo-headers that may be there, and what each may be. */
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
const REQUEST_PSEUDO: ReadonlyMap<string, RegExp> = new Map([
  [":method", TOKEN],
  [":scheme", /^[A-Za-z][A-Za-z0-9+.-]*$/],
  [":authority", /^/],
  [":path", /^[!"$-~]*$/], // no fragment
  [":protocol", TOKEN]
])
const RESPONSE_PSEUDO: ReadonlyMap<string, RegExp> = new Map([[":status", /^(?!101)[1-9][0-9]{2}$/]])
/** No userinfo (section 4.3.1), and nothing that begins a path. */
const AUTHORITY = /^(?:(?![/?#@\\])[!-~])*$/
const CONNECTION_FIELDS: ReadonlySet<string> = new Set(
  ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"]
)

/** Pseudo-headers once each and before the others; no field that may not be there (sections 4.2, 4.3 and 10.3). */
const split = (
  fields: Fields,
  allowed: ReadonlyMap<string, RegExp>
): Either.Either<{ readonly pseudo: ReadonlyMap<string, string>; readonly headers: Fields }, Http3Fault> => {
  const pseudo = new Map<string, string>()
  const headers: Array<readonly [string, string]> = []
  for (const field of fields) {
    const [name, value] = field
    if (name.startsWith(":")) {
      if (headers.length > 0) return malformed("a pseudo-header after a header")
      if (pseudo.has(name)) return malformed("a pseudo-header twice")
      if (allowed.get(name)?.test(value) !== true) {
        return malformed("a pseudo-header that is unknown or has a bad value")
      }
      pseudo.set(name, value)
    } else {
      if (!TOKEN.test(name) || /[A-Z]/.test(name)) return malformed("a bad field name")
      if (!isFieldValue(value)) return malformed("a bad field value")
      if (CONNECTION_FIELDS.has(name) || (name === "te" && value.toLowerCase() !== "trailers")) {
        return malformed("a field of the connection")
      }
      headers.push(field)
    }
  }
  return Either.right({ pseudo, headers })
}

/** RFC 9110, section 5.5: printable or above 0x7f, and inside also spaces and tabs. */
const isFieldValue = (value: string): boolean => {
  for (let i = 0; i < value.length; i++) {
    const char = value.charCodeAt(i)
    const isSpace = char === 0x20 || char === 0x09
    if (isSpace ? i === 0 || i === value.length - 1 : char < 0x20 || char === 0x7f || char > 0xff) return false
  }
  return true
}

const failed = (code: number, message: string): Either.Either<never, Http3Fault> => Either.left(fault(code, message))
const malformed = (message: string): Either.Either<never, Http3Fault> => failed(ErrorCode.message, message)

// ---------------------------------------------------------------------------------------------------------- capsules

/** Of the bytes in the DATA frames of a CONNECT stream. Unknown types are skipped (RFC 9297, section 3.2). */
export class CapsuleReader extends Cutter {
  constructor(maxBytes: number) {
    super(maxBytes, (type) => KNOWN_CAPSULES.has(type) ? "Keep" : "Skip")
  }
}

/** `code`: u32. The reason is cut at 1024 bytes of UTF-8, on a character boundary. */
export const encodeClose = (code: number, reason: string): Uint8Array => {
  const payload = new Uint8Array(4 + MAX_REASON_BYTES)
  new DataView(payload.buffer).setUint32(0, code)
  const { written } = new TextEncoder().encodeInto(reason, payload.subarray(4))
  return frame(Capsule.closeSession, payload.subarray(0, 4 + written))
}

/** Null: it has no code, or a reason longer than one may be. */
export const decodeClose = (payload: Uint8Array): { readonly code: number; readonly reason: string } | null => {
  if (payload.length < 4 || payload.length > 4 + MAX_REASON_BYTES) return null
  const code = new DataView(payload.buffer, payload.byteOffset).getUint32(0)
  return { code, reason: new TextDecoder("utf-8", { ignoreBOM: true }).decode(payload.subarray(4)) }
}
