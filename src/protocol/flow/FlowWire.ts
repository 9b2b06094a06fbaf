/**
 * The beginning of a flow on its stream. The client writes Open, and the connector answers with a
 * verdict. After that both directions carry the application's bytes. Decoders take a growing prefix
 * of the stream and never throw.
 *
 *   Open:    version u8 | kind u8 | resource text | host text | port u16 | traceparent text
 *   Verdict: code u8 | reason text
 *   text:    length u8 | UTF-8
 */
import { concat } from "../bytes/Concat.ts"
export const VERSION = 1

/** Kinds of stream, with their numbers on the wire: one for each kind of flow, and `control`. */
export const StreamKind = { tcp: 1, control: 2 } as const
export type StreamKind = keyof typeof StreamKind
/** Kind of flow: the protocol between application and resource. A permission is for one kind. */
export type FlowKind = Exclude<StreamKind, "control">

const STREAM_KINDS = Object.keys(StreamKind) as ReadonlyArray<StreamKind>
/** All kinds of flow. */
export const FLOW_KINDS = STREAM_KINDS.filter((kind) => kind !== "control")

/** Target of a flow, as the application asked for it. */
export interface Target {
  readonly kind: FlowKind
  /** Name of a resource, or an address that a resource covers. */
  readonly host: string
  /** Port, from 1 to 65535. */
  readonly port: number
}

/** First message on a stream: what the client wants. */
export interface Open {
  readonly kind: StreamKind
  /**
   * Name of a resource. Clients leave it empty, because the connector finds the resource in the
   * grant.
   */
  readonly resource: string
  /**
   * Target that the application asked for: a name or an address, which the connector resolves.
   * Empty for the control stream.
   */
  readonly host: string
  /** Port, from 1 to 65535. 0 for the control stream. */
  readonly port: number
  /** W3C Trace Context, 55 characters. `null` if the flow is not traced. */
  readonly traceparent: string | null
}

/** All verdicts. A code's number on the wire is its index here. */
export const VERDICTS = [
  "accepted",
  "refused",
  "unreachable",
  "timed_out",
  "denied",
  "name_not_found",
  "port_not_listed",
  "grant_expired",
  "too_many_flows",
  "internal"
] as const
/**
 * Answer of the resource, or reason why the connector did not ask it. On the wire it is the index
 * in {@link VERDICTS}.
 */
export type VerdictCode = (typeof VERDICTS)[number]

/** Answer of the connector to an Open. */
export interface Verdict {
  readonly code: VerdictCode
  /** Text for people: empty, or a sentence of at most 255 bytes. */
  readonly reason: string
}

/**
 * Result of decoding a prefix of a stream. `More`: the message is not complete yet. `Bad`: it is
 * invalid.
 */
export type Decoded<A> =
  | {
    readonly _tag: "Done"
    readonly value: A
    /** Number of bytes used. What follows belongs to the application. */
    readonly used: number
  }
  | { readonly _tag: "More" }
  | { readonly _tag: "Bad"; readonly reason: BadReason }
export type BadReason = "version" | "kind" | "text" | "port" | "host" | "traceparent" | "verdict"

/** Longest host, in bytes. A DNS name has at most 253 characters, and an address fewer. */
export const MAX_HOST_BYTES = 253
/** Longest name of a resource in an Open, in bytes. */
export const MAX_RESOURCE_BYTES = 253
const TRACEPARENT = /^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/
/** Longest reason of a verdict, in bytes. A longer one is cut at the end of a character. */
const MAX_REASON_BYTES = 255
/**
 * Longest Open, in bytes. A stream that has sent more than this without a complete Open is invalid.
 */
export const MAX_OPEN_BYTES = 2 + 1 + 255 + 1 + 255 + 2 + 1 + 255
/** Longest verdict, in bytes. */
export const MAX_VERDICT_BYTES = 2 + MAX_REASON_BYTES

const MORE = { _tag: "More" } as const
const bad = (reason: BadReason) => ({ _tag: "Bad", reason }) as const

const encoder = new TextEncoder()
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** Reads a text. `undefined` if it is not complete yet, `null` if it is not UTF-8. */
const textAt = (bytes: Uint8Array, at: number): string | null | undefined => {
  const length = bytes[at]
  if (length === undefined || at + 1 + length > bytes.length) return undefined
  try {
    return decoder.decode(bytes.subarray(at + 1, at + 1 + length))
  } catch {
    return null
  }
}

/** Encodes a text, cut to `max` bytes at the end of a character. */
const textOf = (text: string, max: number): Uint8Array => {
  const room = new Uint8Array(1 + max)
  const { written } = encoder.encodeInto(text, room.subarray(1))
  room[0] = written
  return room.subarray(0, 1 + written)
}

/** Encodes an Open. `null` if a field is invalid or too long, or the port is out of range. */
export const encodeOpen = (open: Open): Uint8Array | null => {
  const texts = [open.resource, open.host, open.traceparent ?? ""]
  const valid = check(open) === null && texts.every((text) => encoder.encode(text).length <= 255)
  if (!valid) return null
  return concat([
    Uint8Array.of(VERSION, StreamKind[open.kind]),
    textOf(open.resource, 255),
    textOf(open.host, 255),
    Uint8Array.of(open.port >> 8, open.port & 255),
    textOf(open.traceparent ?? "", 255)
  ])
}

const check = (open: Open): BadReason | null => {
  const { host, port, resource, traceparent } = open
  if (encoder.encode(resource).length > MAX_RESOURCE_BYTES) return "text"
  if (encoder.encode(host).length > MAX_HOST_BYTES) return "host"
  if (!Number.isInteger(port) || port < 0 || port > 65_535) return "port"
  if (traceparent !== null && !TRACEPARENT.test(traceparent)) return "traceparent"
  if (open.kind === "control") return host === "" && port === 0 ? null : "host"
  if (host === "" || !/^[\x21-\x7e]+$/.test(host)) return "host"
  return port === 0 ? "port" : null
}

/** Decodes an Open from a prefix of the stream. */
export const decodeOpen = (bytes: Uint8Array): Decoded<Open> => {
  const [version, kindCode] = bytes
  if (version === undefined) return MORE
  if (version !== VERSION) return bad("version")
  if (kindCode === undefined) return MORE
  const kind = STREAM_KINDS.find((one) => StreamKind[one] === kindCode)
  if (kind === undefined) return bad("kind")
  const resourceAt = 2
  const resource = textAt(bytes, resourceAt)
  if (resource === undefined) return MORE
  const hostAt = resourceAt + 1 + (bytes[resourceAt] ?? 0)
  const host = textAt(bytes, hostAt)
  if (host === undefined) return MORE
  const portAt = hostAt + 1 + (bytes[hostAt] ?? 0)
  const [high, low] = bytes.subarray(portAt, portAt + 2)
  if (high === undefined || low === undefined) return MORE
  const trace = textAt(bytes, portAt + 2)
  if (trace === undefined) return MORE
  if (resource === null || host === null || trace === null) return bad("text")
  const traceparent = trace === "" ? null : trace
  const value: Open = { kind, resource, host, port: high << 8 | low, traceparent }
  const wrong = check(value)
  return wrong === null ? { _tag: "Done", value, used: portAt + 3 + (bytes[portAt + 2] ?? 0) } : bad(wrong)
}

/** Encodes a verdict. A reason that is too long is cut. */
export const encodeVerdict = (verdict: Verdict): Uint8Array =>
  concat([Uint8Array.of(VERDICTS.indexOf(verdict.code)), textOf(verdict.reason, MAX_REASON_BYTES)])

/** Decodes a verdict. An unknown code, as from a newer peer, is read as `internal`. */
export const decodeVerdict = (bytes: Uint8Array): Decoded<Verdict> => {
  const [index] = bytes
  if (index === undefined) return MORE
  const reason = textAt(bytes, 1)
  if (reason === undefined) return MORE
  if (reason === null) return bad("text")
  return {
    _tag: "Done",
    value: { code: VERDICTS[index] ?? "internal", reason },
    used: 2 + (bytes[1] ?? 0)
  }
}
