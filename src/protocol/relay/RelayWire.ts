/**
 * Messages between a node and a relay about carrying packets. They travel inside a relayed frame
 * with tag 0. Big-endian:
 *
 *     frame head, 8 bytes | type u8 | body
 *
 * Before a cookie has proved the sender's address, no answer is longer than its request, which is
 * why a `BindRequest` is padded. Bodies may be longer than described here; readers ignore the rest.
 * A `Cookie` or a `Pong` that answers a longer request than usual is as long as the request. That
 * shows that the leg carries this size in both directions.
 */
import { Either } from "effect"
import { concat } from "../bytes/Concat.ts"
import * as Frame from "../bytes/Frame.ts"
import * as IpBytes from "../bytes/IpBytes.ts"
import type { SocketAddr } from "../bytes/SocketAddr.ts"
import { LEG_KINDS, type LegKind } from "../path/PathKind.ts"
import { BASE_BYTES } from "../path/PathMtu.ts"
import { SIGNATURE_BYTES, type Signed, signedBytes as textToSign } from "../trust/Signed.ts"

/** Length of nonces, marks and echoes, in bytes. */
export const NONCE_BYTES = 8
/** Length of a cookie: 4 bytes of the secret's period, 16 of HMAC. */
export const COOKIE_BYTES = 20
/**
 * Length of the whole frame of a `BindRequest`. It leaves room for every answer to it (a cookie is
 * 37 bytes).
 */
export const BIND_REQUEST_BYTES = 64
/**
 * Length of the frame that carries the smallest packet which QUIC must be able to send (RFC 9000,
 * section 14). A leg that does not carry frames of this size opens no session, so requests of this
 * size ask for answers of the same size.
 */
export const PROOF_BYTES = Frame.RELAYED_HEAD_BYTES + BASE_BYTES
/**
 * Largest document in a message, in bytes. Documents have a few hundred bytes, and a control frame
 * with one fits every path's MTU (IPv6 leaves at least 1,232 bytes).
 */
export const MAX_PAYLOAD_BYTES = 1000

const HEAD = Frame.RELAYED_HEAD_BYTES
const BODY = HEAD + 1

/** Reasons why a relay refuses a request. Each says what a node does then. */
export const REFUSALS = [
  "bad_cookie", // too old, or of another address: ask for a new one
  "bad_credential", // not valid, or not signed by the authority: get a new one
  "expired", // the credential or ticket has expired: get a new one
  "bad_signature", // the node key did not sign the cookie
  "bad_ticket", // not signed by the authority, or its tags are taken
  "foreign_ticket", // is for two other nodes
  "full", // no room: try another relay
  "revoked", // the directory has cut this node off
  "busy", // too much to verify at the moment: try again later
  "not_bound" // bind first
] as const
export type Refusal = typeof REFUSALS[number]

/**
 * Kinds of request that a refusal answers. `None`: there was no request; the binding itself has
 * ended.
 */
export const ASKED = ["None", "Bind", "Open"] as const
export type Asked = typeof ASKED[number]

/**
 * A message between a node and its relay. Nonces, marks and echoes are 8 bytes. The relay gives the
 * node a `mark` in `Bound`; the same mark in later notices proves that they are not forged.
 */
export type Message =
  | { readonly _tag: "BindRequest"; readonly nonce: Uint8Array }
  | { readonly _tag: "Cookie"; readonly nonce: Uint8Array; readonly cookie: Uint8Array }
  | {
    readonly _tag: "Bind"
    readonly nonce: Uint8Array
    readonly cookie: Uint8Array
    /** Signature of `bindText` by the node key. */
    readonly signature: Uint8Array
    readonly credential: Signed
  }
  | {
    readonly _tag: "Bound"
    readonly nonce: Uint8Array
    readonly mark: Uint8Array
    readonly lifetimeSeconds: number
    /** Address of the node, as the relay sees it. `null` over a link. */
    readonly mapped: SocketAddr | null
  }
  | { readonly _tag: "Open"; readonly nonce: Uint8Array; readonly ticket: Signed }
  | {
    readonly _tag: "Opened"
    readonly nonce: Uint8Array
    /** Tag of the frames that the sender of this message sends in the session. */
    readonly tag: number
    /**
     * How the relay reaches the peer. `null` if the peer is not bound, or has not opened the
     * session.
     */
    readonly peerLeg: LegKind | null
  }
  /**
   * The relay does not know this 5-tuple. `echo` is that of the ping, or two zero bytes and the
   * frame's tag.
   */
  | { readonly _tag: "Rebind"; readonly echo: Uint8Array }
  | { readonly _tag: "RateLimited"; readonly mark: Uint8Array; readonly retryAfterMs: number }
  | { readonly _tag: "Refused"; readonly nonce: Uint8Array; readonly asked: Asked; readonly code: Refusal }
  | { readonly _tag: "Ping" | "Pong"; readonly echo: Uint8Array }
  /**
   * The relay reaches the peer differently now, in the session in which this node sends with `tag`.
   * `null` if it does not reach it at all.
   */
  | { readonly _tag: "Leg"; readonly mark: Uint8Array; readonly tag: number; readonly peerLeg: LegKind | null }
  /** The node will not use the session any more. There is no answer. */
  | { readonly _tag: "Close"; readonly tag: number }

/**
 * Reason why bytes are not a relay message. It is data and not an exception, because stray packets
 * are ordinary on UDP.
 */
export type Rejected = "NotControl" | "Truncated" | "UnknownType" | "BadValue"

const TYPE: Readonly<Record<Message["_tag"], number>> = {
  BindRequest: 1,
  Cookie: 2,
  Bind: 3,
  Bound: 4,
  Open: 5,
  Opened: 6,
  Rebind: 7,
  RateLimited: 8,
  Refused: 9,
  Ping: 10,
  Pong: 11,
  Leg: 12,
  Close: 13
}

/** Returns the bytes that the node key signs in order to bind. */
export const bindText = (cookie: Uint8Array, relay: string): Uint8Array =>
  textToSign("bind", Uint8Array.of(...cookie, ...new TextEncoder().encode(relay)))

// --- Encoding

/**
 * Encodes a message as a whole frame of at least `padTo` bytes. A document longer than
 * {@link MAX_PAYLOAD_BYTES} makes a frame that no reader accepts.
 */
export const encode = (message: Message, padTo = 0): Uint8Array => {
  const body = bodyOf(message)
  const length = Math.max(padTo, message._tag === "BindRequest" ? BIND_REQUEST_BYTES : BODY + body.length)
  const frame = new Uint8Array(length)
  Frame.writeRelayedHead(frame, 0, length, Frame.CONTROL_TAG)
  frame[HEAD] = TYPE[message._tag]
  frame.set(body, BODY)
  return frame
}

const bodyOf = (m: Message): Uint8Array => {
  switch (m._tag) {
    case "BindRequest":
      return m.nonce
    case "Cookie":
      return concat([m.nonce, m.cookie])
    case "Bind":
      return concat([m.nonce, m.cookie, m.signature, signedBytes(m.credential)])
    case "Bound":
      return concat([m.nonce, m.mark, number(m.lifetimeSeconds, 2), addressBytes(m.mapped)])
    case "Open":
      return concat([m.nonce, signedBytes(m.ticket)])
    case "Opened":
      return concat([m.nonce, tagBytes(m.tag), legBytes(m.peerLeg)])
    case "RateLimited":
      return concat([m.mark, number(m.retryAfterMs, 4)])
    case "Refused":
      return concat([m.nonce, Uint8Array.of(ASKED.indexOf(m.asked), REFUSALS.indexOf(m.code))])
    case "Rebind":
    case "Ping":
    case "Pong":
      return m.echo
    case "Leg":
      return concat([m.mark, tagBytes(m.tag), legBytes(m.peerLeg)])
    case "Close":
      return tagBytes(m.tag)
  }
}

const number = (value: number, bytes: 2 | 4): Uint8Array => {
  const most = 2 ** (8 * bytes) - 1
  const whole = Math.min(most, Math.max(0, Math.floor(value)))
  return Uint8Array.from({ length: bytes }, (_, i) => Math.floor(whole / 2 ** (8 * (bytes - 1 - i))) & 255)
}

const tagBytes = (tag: number): Uint8Array => {
  const bytes = new Uint8Array(Frame.TAG_BYTES)
  Frame.writeTag(bytes, 0, tag)
  return bytes
}

const legBytes = (leg: LegKind | null): Uint8Array => Uint8Array.of(leg === null ? 0 : LEG_KINDS.indexOf(leg) + 1)

const signedBytes = (signed: Signed): Uint8Array =>
  concat([number(signed.payload.length, 2), signed.payload, signed.signature])

/** Encodes an address: its length (0, 4 or 16), the port, the address. */
const addressBytes = (addr: SocketAddr | null): Uint8Array => {
  const ip = new Uint8Array(16)
  const length = addr === null ? 0 : IpBytes.parse(addr.host, ip)
  return addr === null || length === 0
    ? Uint8Array.of(0)
    : concat([Uint8Array.of(length), number(addr.port, 2), ip.subarray(0, length)])
}

// --- Decoding

/**
 * Reads fields one by one. Once something is missing or wrong, further reads return placeholders,
 * and `failed` says what was wrong.
 */
class Reader {
  failed: Rejected | null = null
  private readonly bytes: Uint8Array
  private at: number

  constructor(bytes: Uint8Array, at: number) {
    this.bytes = bytes
    this.at = at
  }

  /** Returns a copy, because what is read outlives the receive buffer. */
  take(length: number): Uint8Array {
    if (this.failed !== null || this.at + length > this.bytes.length) {
      this.failed ??= "Truncated"
      return new Uint8Array(length)
    }
    this.at += length
    return this.bytes.slice(this.at - length, this.at)
  }

  number(bytes: 1 | 2 | 4): number {
    return this.take(bytes).reduce((value, byte) => value * 256 + byte, 0)
  }

  tag(): number {
    const tag = Frame.readTag(this.take(Frame.TAG_BYTES), 0)
    if (tag === Frame.CONTROL_TAG) this.failed ??= "BadValue"
    return tag
  }

  oneOf<A>(all: ReadonlyArray<A>): A {
    const value = all[this.number(1)]
    if (value === undefined) this.failed ??= "BadValue"
    return value ?? all[0]!
  }

  leg(): LegKind | null {
    return this.oneOf([null, ...LEG_KINDS])
  }

  signed(): Signed {
    const length = this.number(2)
    if (length > MAX_PAYLOAD_BYTES) this.failed ??= "BadValue"
    const payload = this.take(this.failed === null ? length : 0)
    return { payload, signature: this.take(SIGNATURE_BYTES) }
  }

  address(): SocketAddr | null {
    const length = this.number(1)
    if (length === 0) return null
    if (length !== 4 && length !== 16) {
      this.failed ??= "BadValue"
      return null
    }
    const port = this.number(2)
    const host = IpBytes.format(this.take(length), 0, length)
    if (port === 0) this.failed ??= "BadValue"
    return { host, port }
  }
}

/**
 * Decodes one whole frame, head included. Never throws, whatever the bytes. The result shares no
 * memory with them.
 */
export const decode = (frame: Uint8Array): Either.Either<Message, Rejected> => {
  const length = Frame.lengthAt(frame, 0)
  if (length < BODY || (frame[0]! & 0xf0) !== 0x20) return Either.left("NotControl")
  if (Frame.tagAt(frame, 0) !== Frame.CONTROL_TAG) return Either.left("NotControl")
  const reader = new Reader(frame.subarray(0, length), BODY)
  const message = read(frame[HEAD]!, reader, length)
  if (message === null) return Either.left("UnknownType")
  return reader.failed === null ? Either.right(message) : Either.left(reader.failed)
}

const read = (type: number, from: Reader, length: number): Message | null => {
  switch (type) {
    case TYPE.BindRequest:
      // only the padding allows an answer
      if (length < BIND_REQUEST_BYTES) from.failed = "Truncated"
      return { _tag: "BindRequest", nonce: from.take(NONCE_BYTES) }
    case TYPE.Cookie:
      return { _tag: "Cookie", nonce: from.take(NONCE_BYTES), cookie: from.take(COOKIE_BYTES) }
    case TYPE.Bind:
      return {
        _tag: "Bind",
        nonce: from.take(NONCE_BYTES),
        cookie: from.take(COOKIE_BYTES),
        signature: from.take(SIGNATURE_BYTES),
        credential: from.signed()
      }
    case TYPE.Bound:
      return {
        _tag: "Bound",
        nonce: from.take(NONCE_BYTES),
        mark: from.take(NONCE_BYTES),
        lifetimeSeconds: from.number(2),
        mapped: from.address()
      }
    case TYPE.Open:
      return { _tag: "Open", nonce: from.take(NONCE_BYTES), ticket: from.signed() }
    case TYPE.Opened:
      return { _tag: "Opened", nonce: from.take(NONCE_BYTES), tag: from.tag(), peerLeg: from.leg() }
    default:
      return readNotice(type, from)
  }
}

const readNotice = (type: number, from: Reader): Message | null => {
  switch (type) {
    case TYPE.Rebind:
      return { _tag: "Rebind", echo: from.take(NONCE_BYTES) }
    case TYPE.RateLimited:
      return { _tag: "RateLimited", mark: from.take(NONCE_BYTES), retryAfterMs: from.number(4) }
    case TYPE.Refused:
      return { _tag: "Refused", nonce: from.take(NONCE_BYTES), asked: from.oneOf(ASKED), code: from.oneOf(REFUSALS) }
    case TYPE.Ping:
      return { _tag: "Ping", echo: from.take(NONCE_BYTES) }
    case TYPE.Pong:
      return { _tag: "Pong", echo: from.take(NONCE_BYTES) }
    case TYPE.Leg:
      return { _tag: "Leg", mark: from.take(NONCE_BYTES), tag: from.tag(), peerLeg: from.leg() }
    case TYPE.Close:
      return { _tag: "Close", tag: from.tag() }
    default:
      return null
  }
}
