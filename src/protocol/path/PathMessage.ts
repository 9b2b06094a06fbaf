/**
 * Messages about paths between the two sides of a session, before they are sealed. The first byte
 * is the type. Numbers are big-endian:
 *
 *     ping           1 | flags u8 | path id u16 (0xffff: none) | tx id 8 | zeros up to any length
 *     pong           2 | path id u8 (0xff: none) | tx id 8 | address
 *     candidates     3 | seq u32 | count u8 | count × (kind u8 | priority u32 | address)
 *                      | mapping u8, absent if not known
 *     candidates-ack 4 | seq u32
 *     switch         5 | reason u8
 *     opened         6 | attempt u32 | delta i8 (0: none) | count u8 | count × address
 *
 * An address is: family u8 (0 none, 4, 6) | port u16 | 0, 4 or 16 bytes. No answer is longer than
 * what it answers: a ping is at least as long as its pong, and a candidates message is never
 * shorter than its ack. `PortGuess` describes `opened`.
 */
import { Either } from "effect"
import * as IpBytes from "../bytes/IpBytes.ts"
import type { SocketAddr } from "../bytes/SocketAddr.ts"
import * as Candidate from "../candidate/Candidate.ts"
import type { SwitchReason } from "./PathRef.ts"
import { MAX_SEEN, type Opened } from "./PortGuess.ts"

export const TX_ID_BYTES = 8
const PING_HEAD_BYTES = 12
const MAX_PONG_BYTES = 10 + 19
/** Shortest plaintext of a ping, in bytes. The longest pong fits into it. */
export const MIN_PING_BYTES = 32
/** Bytes that sealing adds to the plaintext: mark, hint, counter and tag. */
export const SEAL_BYTES = 33
/**
 * Largest plaintext that is made or read, in bytes. The padded probes of the MTU search stay below
 * it.
 */
export const MAX_BYTES = 4000
const NO_PATH_ID = 0xffff
const NO_SHORT_PATH_ID = 0xff

/** Ping flag: the sender's packets go by this path now. */
export const FLAG_ACTIVE = 1

/** A message about paths. */
export type PathMessage =
  | {
    readonly _tag: "Ping"
    readonly txId: Uint8Array
    /** The sender's own number for the path, 0 to 65534. `null` if none. */
    readonly pathId: number | null
    readonly flags: number
    /** Length of the plaintext, in bytes. */
    readonly padTo: number
  }
  | {
    readonly _tag: "Pong"
    readonly txId: Uint8Array
    /** Number from the ping, 0 to 254. `null` if none. */
    readonly pathId: number | null
    /** Address from which the ping came. `null` over a relay. */
    readonly observed: SocketAddr | null
  }
  | {
    readonly _tag: "Candidates"
    readonly seq: number
    readonly list: ReadonlyArray<Candidate.Candidate>
    /** How the sender's NAT maps ports. Absent if not known. */
    readonly mapping?: Candidate.Mapping | undefined
  }
  | { readonly _tag: "CandidatesAck"; readonly seq: number }
  | { readonly _tag: "Switch"; readonly reason: SwitchReason }
  | { readonly _tag: "Opened"; readonly opened: Opened }

/**
 * Reason why bytes are not a path message. The bytes were sealed, so the peer has another version
 * or is hostile.
 */
export type Rejected =
  | "Empty"
  | "TooLong"
  | "UnknownType"
  | "Truncated"
  | "Trailing"
  | "BadAddress"
  | "BadCount"
  | "BadEnum"

const TYPE = { Ping: 1, Pong: 2, Candidates: 3, CandidatesAck: 4, Switch: 5, Opened: 6 } as const
// the index is on the wire
const KINDS: ReadonlyArray<Candidate.Kind> = ["host", "srflx", "prflx", "port-mapped"]
const MAPPINGS: ReadonlyArray<Candidate.Mapping> = ["steady", "varies"] // the index is on the wire
// The index is on the wire.
const SWITCH_REASONS: ReadonlyArray<SwitchReason> = ["path_blackholed", "path_failed", "network_changed"]

/**
 * Encodes a message. The caller checks text ids and lists: an address that is not literal is
 * written as no address, and a list is cut to 16 entries.
 */
export const encode = (message: PathMessage): Uint8Array => {
  switch (message._tag) {
    case "Ping":
      return encodePing(message.txId, message.pathId, message.flags, message.padTo)
    case "Pong":
      return encodePong(message.txId, message.pathId, message.observed)
    case "Candidates":
      return encodeCandidates(message.seq, message.list, message.mapping)
    case "CandidatesAck":
      return Uint8Array.of(TYPE.CandidatesAck, ...u32(message.seq))
    case "Switch":
      return Uint8Array.of(TYPE.Switch, Math.max(0, SWITCH_REASONS.indexOf(message.reason)))
    case "Opened":
      return encodeOpened(message.opened)
  }
}

const u32 = (
  value: number
): ReadonlyArray<number> => [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255]

const encodePing = (txId: Uint8Array, pathId: number | null, flags: number, padTo: number): Uint8Array => {
  const out = new Uint8Array(Math.min(Math.max(Math.trunc(padTo) || 0, MIN_PING_BYTES), MAX_BYTES))
  const id = pathId ?? NO_PATH_ID
  out[0] = TYPE.Ping
  out[1] = flags
  out[2] = id >>> 8
  out[3] = id
  out.set(txId.subarray(0, TX_ID_BYTES), 4)
  return out
}

/** Encodes a pong of at most {@link MAX_PONG_BYTES}, so that it is never longer than the ping. */
const encodePong = (txId: Uint8Array, pathId: number | null, observed: SocketAddr | null): Uint8Array => {
  const out = new Uint8Array(MAX_PONG_BYTES)
  out[0] = TYPE.Pong
  out[1] = pathId ?? NO_SHORT_PATH_ID
  out.set(txId.subarray(0, TX_ID_BYTES), 2)
  return out.subarray(0, writeAddress(out, 10, observed))
}

const encodeCandidates = (
  seq: number,
  list: ReadonlyArray<Candidate.Candidate>,
  mapping: Candidate.Mapping | undefined
): Uint8Array => {
  const cut = list.slice(0, Candidate.MAX_CANDIDATES)
  const out = new Uint8Array(7 + cut.length * 24)
  out[0] = TYPE.Candidates
  out.set(u32(seq), 1)
  out[5] = cut.length
  let at = 6
  for (const { address, kind, priority } of cut) {
    out[at] = KINDS.indexOf(kind)
    out.set(u32(priority), at + 1)
    at = writeAddress(out, at + 5, address)
  }
  if (mapping !== undefined) out[at++] = MAPPINGS.indexOf(mapping)
  return out.subarray(0, at)
}

const encodeOpened = ({ attempt, delta, seen }: Opened): Uint8Array => {
  const cut = seen.slice(0, MAX_SEEN)
  const out = new Uint8Array(7 + cut.length * 19)
  out[0] = TYPE.Opened
  out.set(u32(attempt), 1)
  out[5] = delta === null || Math.abs(delta) > 127 ? 0 : delta
  out[6] = cut.length
  let at = 7
  for (const address of cut) at = writeAddress(out, at, address)
  return out.subarray(0, at)
}

/** Writes an address and returns the position of the next field. */
const writeAddress = (out: Uint8Array, at: number, address: SocketAddr | null): number => {
  const ip = new Uint8Array(16)
  const length = address === null ? 0 : IpBytes.parse(address.host, ip)
  const port = address === null || length === 0 ? 0 : address.port
  out[at] = length === 0 ? 0 : length === 4 ? 4 : 6
  out[at + 1] = port >>> 8
  out[at + 2] = port
  out.set(ip.subarray(0, length), at + 3)
  return at + 3 + length
}

// --- Decoding

/**
 * Decodes a message. Never throws, whatever the bytes. Candidates are read, but not checked: see
 * `Candidate.accept`.
 */
export const decode = (bytes: Uint8Array): Either.Either<PathMessage, Rejected> => {
  if (bytes.length === 0) return Either.left("Empty")
  if (bytes.length > MAX_BYTES) return Either.left("TooLong")
  switch (bytes[0]!) {
    case TYPE.Ping:
      return decodePing(bytes)
    case TYPE.Pong:
      return decodePong(bytes)
    case TYPE.Candidates:
      return decodeCandidates(bytes)
    case TYPE.CandidatesAck:
      return bytes.length < 5
        ? Either.left("Truncated")
        : whole(bytes, 5, { _tag: "CandidatesAck", seq: readU32(bytes, 1) })
    case TYPE.Switch:
      return decodeSwitch(bytes)
    case TYPE.Opened:
      return decodeOpened(bytes)
    default:
      return Either.left("UnknownType")
  }
}

const whole = (bytes: Uint8Array, end: number, message: PathMessage): Either.Either<PathMessage, Rejected> =>
  end === bytes.length ? Either.right(message) : Either.left("Trailing")

const readU32 = (bytes: Uint8Array, at: number): number =>
  ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0

/**
 * Decodes a ping. One shorter than {@link MIN_PING_BYTES} is refused, because its pong might be
 * longer.
 */
const decodePing = (bytes: Uint8Array): Either.Either<PathMessage, Rejected> => {
  if (bytes.length < MIN_PING_BYTES) return Either.left("Truncated")
  const id = (bytes[2]! << 8) | bytes[3]!
  return Either.right({
    _tag: "Ping",
    txId: bytes.slice(4, PING_HEAD_BYTES),
    pathId: id === NO_PATH_ID ? null : id,
    flags: bytes[1]!,
    padTo: bytes.length
  })
}

const decodePong = (bytes: Uint8Array): Either.Either<PathMessage, Rejected> => {
  if (bytes.length < 13) return Either.left("Truncated")
  const address = readAddress(bytes, 10)
  if (typeof address === "string") return Either.left(address)
  return whole(bytes, address.end, {
    _tag: "Pong",
    txId: bytes.slice(2, 10),
    pathId: bytes[1] === NO_SHORT_PATH_ID ? null : bytes[1]!,
    observed: address.value
  })
}

const decodeCandidates = (bytes: Uint8Array): Either.Either<PathMessage, Rejected> => {
  if (bytes.length < 6) return Either.left("Truncated")
  const count = bytes[5]!
  if (count > Candidate.MAX_CANDIDATES) return Either.left("BadCount")
  const list: Array<Candidate.Candidate> = []
  let at = 6
  for (let i = 0; i < count; i++) {
    if (at + 8 > bytes.length) return Either.left("Truncated")
    const kind = KINDS[bytes[at]!]
    const priority = readU32(bytes, at + 1)
    if (kind === undefined || priority === 0 || priority > 0x7fffffff) return Either.left("BadEnum")
    const address = readAddress(bytes, at + 5)
    if (typeof address === "string") return Either.left(address)
    if (address.value === null) return Either.left("BadAddress")
    list.push({ kind, address: address.value, priority })
    at = address.end
  }
  const seq = readU32(bytes, 1)
  if (at === bytes.length) return Either.right({ _tag: "Candidates", seq, list })
  const mapping = MAPPINGS[bytes[at]!]
  return mapping === undefined
    ? Either.left("BadEnum")
    : whole(bytes, at + 1, { _tag: "Candidates", seq, list, mapping })
}

const decodeOpened = (bytes: Uint8Array): Either.Either<PathMessage, Rejected> => {
  if (bytes.length < 7) return Either.left("Truncated")
  const count = bytes[6]!
  if (count > MAX_SEEN) return Either.left("BadCount")
  const seen: Array<SocketAddr> = []
  let at = 7
  for (let i = 0; i < count; i++) {
    const address = readAddress(bytes, at)
    if (typeof address === "string") return Either.left(address)
    if (address.value === null) return Either.left("BadAddress")
    seen.push(address.value)
    at = address.end
  }
  const step = (bytes[5]! << 24) >> 24
  const opened: Opened = { attempt: readU32(bytes, 1), delta: step === 0 ? null : step, seen }
  return whole(bytes, at, { _tag: "Opened", opened })
}

const decodeSwitch = (bytes: Uint8Array): Either.Either<PathMessage, Rejected> => {
  if (bytes.length < 2) return Either.left("Truncated")
  const reason = SWITCH_REASONS[bytes[1]!]
  return reason === undefined ? Either.left("BadEnum") : whole(bytes, 2, { _tag: "Switch", reason })
}

const readAddress = (
  bytes: Uint8Array,
  at: number
): { readonly value: SocketAddr | null; readonly end: number } | "Truncated" | "BadAddress" => {
  if (at + 3 > bytes.length) return "Truncated"
  const family = bytes[at]!
  const port = (bytes[at + 1]! << 8) | bytes[at + 2]!
  if (family === 0) return port === 0 ? { value: null, end: at + 3 } : "BadAddress"
  if ((family !== 4 && family !== 6) || port === 0) return "BadAddress"
  const length = family === 4 ? 4 : 16
  if (at + 3 + length > bytes.length) return "Truncated"
  return { value: { host: IpBytes.format(bytes, at + 3, length), port }, end: at + 3 + length }
}
