/**
 * Messages on a session's control stream. That is the first stream that the client opens, with an
 * Open of kind `control`.
 *
 *   length u16 (of what follows) | type u8 | body
 *
 * A type that is not known is skipped, so that either side may be newer than the other. 5 and 7 are
 * retired.
 */
import { LEG_KINDS, type LegKind } from "../path/PathKind.ts"

/** Types of message, with their numbers on the wire. */
export const Type = {
  probeSecret: 1,
  grant: 2,
  grantAck: 3,
  grantRefused: 4,
  leg: 6,
  goaway: 8,
  ice: 9,
  outage: 10
} as const

/** A message on the control stream. */
export type SessionMessage =
  /**
   * Client to connector, as the first message: 32 random bytes from which both derive the keys of
   * path messages.
   */
  | { readonly _tag: "ProbeSecret"; readonly secret: Uint8Array }
  /** Client to connector: a signed grant, as the authority made it. */
  | { readonly _tag: "Grant"; readonly signed: Uint8Array }
  /** Client to connector: a signed outage permit for the grant that was sent before. */
  | { readonly _tag: "Outage"; readonly signed: Uint8Array }
  /** Connector to client: the grant with this id is accepted until it expires. */
  | { readonly _tag: "GrantAck"; readonly id: string }
  | { readonly _tag: "GrantRefused"; readonly reason: string }
  /** Both directions: the sender's leg to the relay is of this kind now. */
  | { readonly _tag: "Leg"; readonly kind: LegKind }
  /**
   * Both directions: the sender takes no new flows. The session ends when the open ones have ended.
   */
  | { readonly _tag: "Goaway"; readonly reason: string }
  /** Both directions: a WebRTC signal, see `IceSignal`. */
  | { readonly _tag: "Ice"; readonly signal: Uint8Array }

/** Length of the secret in a `ProbeSecret`, in bytes. */
export const SECRET_BYTES = 32
/** Largest message, in bytes. The length field allows no more. */
export const MAX_MESSAGE_BYTES = 65_535
/** Longest text in a message, in bytes. */
const MAX_TEXT_BYTES = 1024

const encoder = new TextEncoder()
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

const frame = (type: number, body: Uint8Array): Uint8Array | null => {
  const length = 1 + body.length
  if (length > MAX_MESSAGE_BYTES) return null
  const bytes = new Uint8Array(2 + length)
  bytes.set([length >> 8, length & 255, type])
  bytes.set(body, 3)
  return bytes
}

/** Encodes a message. `null` if the body is too long, or a secret has the wrong length. */
export const encode = (message: SessionMessage): Uint8Array | null => {
  switch (message._tag) {
    case "ProbeSecret":
      return message.secret.length === SECRET_BYTES ? frame(Type.probeSecret, message.secret) : null
    case "Grant":
      return frame(Type.grant, message.signed)
    case "Outage":
      return frame(Type.outage, message.signed)
    case "GrantAck":
      return text(Type.grantAck, message.id)
    case "GrantRefused":
      return text(Type.grantRefused, message.reason)
    case "Leg":
      return frame(Type.leg, Uint8Array.of(LEG_KINDS.indexOf(message.kind)))
    case "Goaway":
      return text(Type.goaway, message.reason)
    case "Ice":
      return frame(Type.ice, message.signal)
  }
}

const text = (type: number, words: string): Uint8Array | null => {
  const body = encoder.encode(words)
  return body.length > MAX_TEXT_BYTES ? null : frame(type, body)
}

/** The part of a message that is invalid. */
export type BadMessage = "empty" | "secret" | "leg" | "text"
export type Step =
  | { readonly _tag: "Messages"; readonly messages: ReadonlyArray<SessionMessage> }
  /** The peer breaks the protocol: close the session. The messages before this one are lost. */
  | { readonly _tag: "Bad"; readonly reason: BadMessage }

/**
 * Collects the stream's bytes and cuts messages out of them. It cannot be used any more after
 * `Bad`.
 */
export class Decoder {
  /**
   * Unread bytes. The buffer grows by doubling, so that a message in tiny pieces costs no more than
   * one in large pieces.
   */
  #room = new Uint8Array(256)
  #length = 0

  /** Takes bytes of the stream and returns the messages that end in them. */
  push(bytes: Uint8Array): Step {
    this.#append(bytes)
    const all = this.#room.subarray(0, this.#length)
    const messages: Array<SessionMessage> = []
    let at = 0
    for (;;) {
      const [high, low] = all.subarray(at, at + 2)
      if (high === undefined || low === undefined) break
      const length = high << 8 | low
      if (length === 0) return { _tag: "Bad", reason: "empty" }
      if (at + 2 + length > all.length) break
      const message = decode(all[at + 2] ?? 0, all.slice(at + 3, at + 2 + length))
      if (typeof message === "string") return { _tag: "Bad", reason: message }
      if (message !== null) messages.push(message)
      at += 2 + length
    }
    this.#room.copyWithin(0, at, this.#length)
    this.#length -= at
    return { _tag: "Messages", messages }
  }

  #append(bytes: Uint8Array): void {
    const length = this.#length + bytes.length
    if (length > this.#room.length) {
      const room = new Uint8Array(2 * length)
      room.set(this.#room.subarray(0, this.#length))
      this.#room = room
    }
    this.#room.set(bytes, this.#length)
    this.#length = length
  }
}

/** Decodes a message. `null` if its type is not known, as from a newer version. */
const decode = (type: number, body: Uint8Array): SessionMessage | BadMessage | null => {
  switch (type) {
    case Type.probeSecret:
      return body.length === SECRET_BYTES ? { _tag: "ProbeSecret", secret: body } : "secret"
    case Type.grant:
      return { _tag: "Grant", signed: body }
    case Type.outage:
      return { _tag: "Outage", signed: body }
    case Type.grantAck:
      return withText(body, (id) => ({ _tag: "GrantAck", id }))
    case Type.grantRefused:
      return withText(body, (reason) => ({ _tag: "GrantRefused", reason }))
    case Type.leg:
      return decodeLeg(body)
    case Type.goaway:
      return withText(body, (reason) => ({ _tag: "Goaway", reason }))
    case Type.ice:
      return { _tag: "Ice", signal: body }
    default:
      return null
  }
}

const decodeLeg = (body: Uint8Array): SessionMessage | BadMessage => {
  const kind = LEG_KINDS[body[0] ?? LEG_KINDS.length]
  return kind === undefined || body.length !== 1 ? "leg" : { _tag: "Leg", kind }
}

const withText = (body: Uint8Array, make: (words: string) => SessionMessage): SessionMessage | BadMessage => {
  if (body.length > MAX_TEXT_BYTES) return "text"
  try {
    return make(decoder.decode(body))
  } catch {
    return "text"
  }
}
