/**
 * HTTP/3 on the wire (RFC 9114), with extended CONNECT (RFC 9220), capsules (RFC 9297, section 3)
 * and WebTransport sessions (draft-ietf-webtrans-http3-02 and -07). A frame and a capsule have the
 * same form, with integers as in `Varint`:
 *
 *     type | length of what follows | payload
 *
 * The module is pure: streams, flow control, and which frame may come when are up to the caller.
 * Field sections are read and written by `Qpack`.
 */
import { Either } from "effect"
import * as Varint from "../bytes/Varint.ts"

/**
 * Violation of the protocol. `code` is one of `ErrorCode`, with which to reset the stream or close
 * the connection.
 */
export interface Http3Fault {
  readonly _tag: "Http3Fault"
  readonly code: number
  readonly message: string
}
export const fault = (code: number, message: string): Http3Fault => ({ _tag: "Http3Fault", code, message })

/** Types of frames (RFC 9114, section 7.2). */
export const FrameType = {
  data: 0x00,
  headers: 0x01,
  cancelPush: 0x03,
  settings: 0x04,
  pushPromise: 0x05,
  goAway: 0x07,
  maxPushId: 0x0d,
  /**
   * Not a frame: it has no length, and makes the rest of the stream a WebTransport session's
   * (`bidiHead`).
   */
  webTransportStream: 0x41
} as const

/** Types of unidirectional streams (RFC 9114, section 6.2; RFC 9204, section 4.2; WebTransport). */
export const StreamType = {
  control: 0x00,
  push: 0x01,
  qpackEncoder: 0x02,
  qpackDecoder: 0x03,
  webTransport: 0x54
} as const

/** Error codes (RFC 9114, section 8.1; RFC 9204, section 6; RFC 9297; WebTransport). */
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

/** Identifiers of settings. */
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

/** Types of capsule that this code reads and writes. */
export const Capsule = { closeSession: 0x2843, drainSession: 0x78ae } as const

const KNOWN_FRAMES: ReadonlySet<number> = new Set([0x00, 0x01, 0x03, 0x04, 0x05, 0x07, 0x0d])
/** Frame types of HTTP/2 that HTTP/3 forbids (RFC 9114, section 7.2.8). */
const HTTP2_FRAMES: ReadonlySet<number> = new Set([0x02, 0x06, 0x08, 0x09])
const KNOWN_CAPSULES: ReadonlySet<number> = new Set(Object.values(Capsule))
/** Settings of HTTP/2 that HTTP/3 forbids (RFC 9114, sections 7.2.4.1 and 11.2.2). */
const HTTP2_SETTINGS: ReadonlySet<number> = new Set([0x00, 0x02, 0x03, 0x04, 0x05])
/** Settings whose value is 0 or 1 (RFC 8441, section 3; RFC 9297, section 2.1.1). */
const BOOLEAN_SETTINGS: ReadonlySet<number> = new Set([Setting.enableConnectProtocol, Setting.h3Datagram])
/**
 * Longest reason of a session's end, in bytes (draft-ietf-webtrans-http3, "Session Termination").
 */
const MAX_REASON_BYTES = 1024

// --- Frames

export interface Frame {
  readonly type: number
  readonly payload: Uint8Array
}

/** Encodes a frame or a capsule. */
export const frame = (type: number, payload: Uint8Array): Uint8Array => {
  const out = new Uint8Array(Varint.sizeOf(type) + Varint.sizeOf(payload.length) + payload.length)
  out.set(payload, Varint.write(out, Varint.write(out, 0, type), payload.length))
  return out
}

/** Encodes a whole SETTINGS frame. */
export const encodeSettings = (settings: Readonly<Record<number, number>>): Uint8Array => {
  const entries = Object.entries(settings)
  const payload = new Uint8Array(16 * entries.length)
  let at = 0
  for (const [id, value] of entries) at = Varint.write(payload, Varint.write(payload, at, Number(id)), value)
  return frame(FrameType.settings, payload.subarray(0, at))
}

/** Decodes the payload of SETTINGS (RFC 9114, section 7.2.4). Unknown settings are included. */
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
    // It is unknown, and several identifiers read as this one.
    if (id.value === Number.MAX_SAFE_INTEGER) continue
    if (settings.has(id.value)) return failed(ErrorCode.settings, `setting ${id.value} comes twice`)
    settings.set(id.value, value.value)
  }
  return Either.right(settings)
}

/**
 * Cuts `Frame`s out of a stream. A frame whose fate is "Skip" is ignored whatever its length,
 * without being kept. A frame to keep that is longer than the bound is a fault. The cutter must not
 * be used any more after a fault.
 */
class Cutter {
  private readonly maxPayloadBytes: number
  private readonly fateOf: (type: number) => "Keep" | "Skip" | Http3Fault
  private readonly head = new Uint8Array(16) // two integers
  private headLength = 0
  /** Type of the frame whose payload is being read. -1 while its head is not complete. */
  private type = -1
  private isSkipped = false
  /** Bytes of the payload that have not come yet. */
  private left = 0
  /** Room for the payload that has come. It grows. */
  private payload: Uint8Array = NOTHING
  private payloadLength = 0

  constructor(maxPayloadBytes: number, fateOf: (type: number) => "Keep" | "Skip" | Http3Fault) {
    this.maxPayloadBytes = maxPayloadBytes
    this.fateOf = fateOf
  }

  /** Whether the stream is in the middle of a frame, where it may not end. */
  get isPartial(): boolean {
    return this.type >= 0 || this.headLength > 0
  }

  /** Bytes set aside for a frame that is not complete. */
  get heldBytes(): number {
    return this.headLength + this.payload.length
  }

  /**
   * Returns the frames that end in `bytes`, in order. Payloads that lie wholly in `bytes` are views
   * of it.
   */
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

  /** Length of the frame's head, as far as the bytes that have come show it. */
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

  /**
   * Keeps a piece of the payload. Room is made for what has come and not for what was only
   * announced: for at most `left` bytes more.
   */
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
/** First room for a payload that comes in pieces. */
const FIRST_ROOM_BYTES = 256

/**
 * Reads the frames of a control or request stream. Unknown types are skipped (RFC 9114, section 9).
 */
export class FrameReader extends Cutter {
  constructor(maxPayloadBytes: number) {
    super(maxPayloadBytes, (type) => {
      if (KNOWN_FRAMES.has(type)) return "Keep"
      if (HTTP2_FRAMES.has(type)) return fault(ErrorCode.frameUnexpected, `frame ${type} is one of HTTP/2`)
      // draft-ietf-webtrans-http3-07, "Bidirectional Streams": allowed only at the very start of a
      // stream, where `bidiHead` reads it.
      return type === FrameType.webTransportStream
        ? fault(ErrorCode.frame, "a session's stream inside a stream")
        : "Skip"
    })
  }
}

/**
 * Reads how a bidirectional stream begins: with a frame of a request, or as a stream of a
 * WebTransport session, whose own bytes begin at `end`. `null` if the beginning is not complete
 * yet.
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

/** Encodes the beginning of a session's bidirectional stream. */
export const webTransportHead = (session: number): Uint8Array =>
  Uint8Array.of(...Varint.encode(FrameType.webTransportStream), ...Varint.encode(session))

// --- Messages

type Fields = ReadonlyArray<readonly [string, string]>

/** A request, from its checked fields. */
export interface Request {
  readonly method: string
  /** The `:scheme`. Empty for a plain CONNECT, as is `path`. */
  readonly scheme: string
  /** The `:authority`, or the value of `host` if there is none. */
  readonly authority: string
  readonly path: string
  /** Protocol of an extended CONNECT. `null` for any other request. */
  readonly protocol: string | null
  readonly headers: Fields
}

/**
 * Checks the fields of a request (RFC 9114, sections 4.2 to 4.4, and RFC 9220). The caller must
 * check what they say about a body (content-length). A fault has the code `message`.
 */
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

/**
 * Returns the status of a response: 100 to 999, except 101, which HTTP/3 does not have (RFC 9114,
 * section 4.5).
 */
export const statusOf = (fields: Fields): Either.Either<number, Http3Fault> =>
  Either.flatMap(
    split(fields, RESPONSE_PSEUDO),
    ({ pseudo }) => pseudo.has(":status") ? Either.right(Number(pseudo.get(":status"))) : malformed("no :status")
  )

/** A token (RFC 9110, section 5.6.2). */
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
/** Pseudo-headers that a request may have, and the values that each may have. */
const REQUEST_PSEUDO: ReadonlyMap<string, RegExp> = new Map([
  [":method", TOKEN],
  [":scheme", /^[A-Za-z][A-Za-z0-9+.-]*$/],
  [":authority", /^/],
  [":path", /^[!"$-~]*$/], // no fragment
  [":protocol", TOKEN]
])
/** Pseudo-headers that a response may have, and the values that each may have. */
const RESPONSE_PSEUDO: ReadonlyMap<string, RegExp> = new Map([[":status", /^(?!101)[1-9][0-9]{2}$/]])
/** A valid `:authority`: no userinfo (RFC 9114, section 4.3.1), and nothing that begins a path. */
const AUTHORITY = /^(?:(?![/?#@\\])[!-~])*$/
/** Fields about the connection, which HTTP/3 forbids (RFC 9114, section 4.2). */
const CONNECTION_FIELDS: ReadonlySet<string> = new Set(
  ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"]
)

/**
 * Separates pseudo-headers from the other fields and checks both. Each pseudo-header may come once
 * and only before the others (RFC 9114, sections 4.2, 4.3 and 10.3).
 */
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

/**
 * Whether a field value is valid (RFC 9110, section 5.5): printable or above 0x7f, with spaces and
 * tabs only inside.
 */
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

// --- Capsules

/**
 * Reads the capsules in the DATA frames of a CONNECT stream. Unknown types are skipped (RFC 9297,
 * section 3.2).
 */
export class CapsuleReader extends Cutter {
  constructor(maxBytes: number) {
    super(maxBytes, (type) => KNOWN_CAPSULES.has(type) ? "Keep" : "Skip")
  }
}

/**
 * Encodes the capsule that closes a session. `code` is a u32. The reason is cut at 1024 bytes of
 * UTF-8, on a character boundary.
 */
export const encodeClose = (code: number, reason: string): Uint8Array => {
  const payload = new Uint8Array(4 + MAX_REASON_BYTES)
  new DataView(payload.buffer).setUint32(0, code)
  const { written } = new TextEncoder().encodeInto(reason, payload.subarray(4))
  return frame(Capsule.closeSession, payload.subarray(0, 4 + written))
}

/**
 * Decodes the payload of a capsule that closes a session. `null` if it has no code, or too long a
 * reason.
 */
export const decodeClose = (payload: Uint8Array): { readonly code: number; readonly reason: string } | null => {
  if (payload.length < 4 || payload.length > 4 + MAX_REASON_BYTES) return null
  const code = new DataView(payload.buffer, payload.byteOffset).getUint32(0)
  return { code, reason: new TextDecoder("utf-8", { ignoreBOM: true }).decode(payload.subarray(4)) }
}
