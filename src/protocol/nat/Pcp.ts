/**
 * The client's side of the Port Control Protocol: MAP for UDP over IPv4, and ANNOUNCE (RFC 6887).
 */
import { Data, Either } from "effect"
import * as IpBytes from "../bytes/IpBytes.ts"
import type { SocketAddr } from "../bytes/SocketAddr.ts"

/** UDP port of PCP and of NAT-PMP servers. */
export const PORT = 5351
/** Length of a mapping nonce, in bytes (RFC 6887, section 11.1). */
export const NONCE_BYTES = 12
/** Largest message, in bytes (RFC 6887, section 7). */
export const MAX_BYTES = 1100

const VERSION = 2
const RESPONSE = 0x80
const ANNOUNCE = 0
const MAP = 1
const UDP = 17
const HEAD_BYTES = 24
const MAP_BYTES = 36
/**
 * Shortest answer, in bytes: that of a NAT-PMP server that was asked in PCP's version (RFC 6886,
 * section 3.5).
 */
const LEAST_BYTES = 4
const SUCCESS = 0

/** Request to map a UDP port. */
export type MapRequest = {
  /**
   * IPv4 address from which the request is sent. The server refuses a request that arrives from
   * another address.
   */
  readonly clientHost: string
  /**
   * Random value that is the same in all requests of one mapping, also in renewals and in the one
   * that ends it. Nobody else can then change the mapping (RFC 6887, section 11.2).
   */
  readonly nonce: Uint8Array
  /** UDP port of this host to map. */
  readonly internalPort: number
  /**
   * External address that the mapping had before, or that the caller would like. A host of `null`
   * and a port of 0 leave the choice to the server.
   */
  readonly suggested: { readonly host: string | null; readonly port: number }
  /** Lifetime to ask for, in seconds. 0 ends the mapping. */
  readonly lifetimeS: number
}

/**
 * Answer of a server. With an error, `lifetimeS` says how long the error will last. `external` may
 * be of either IP version.
 */
export type Response =
  | { readonly _tag: "Announce"; readonly result: number; readonly lifetimeS: number; readonly epochS: number }
  | {
    readonly _tag: "Map"
    readonly result: number
    readonly lifetimeS: number
    readonly epochS: number
    readonly nonce: Uint8Array
    readonly internalPort: number
    /** External address of the mapping. `null` if the answer is an error. */
    readonly external: SocketAddr | null
  }

/**
 * Reason why bytes are not a valid answer. `Version`: the server speaks another version, perhaps
 * NAT-PMP.
 */
export class PcpError extends Data.TaggedError("PcpError")<{
  readonly reason: "Truncated" | "Version" | "NotAResponse" | "Opcode" | "Address"
}> {}

/** Encodes an ANNOUNCE request. The epoch in its answer shows whether the server has restarted. */
export const encodeAnnounce = (clientHost: string): Uint8Array => head(ANNOUNCE, clientHost, 0, HEAD_BYTES)

/** Encodes the request to map a UDP port. */
export const encodeMap = (request: MapRequest): Uint8Array => {
  const bytes = head(MAP, request.clientHost, request.lifetimeS, HEAD_BYTES + MAP_BYTES)
  const view = new DataView(bytes.buffer)
  bytes.set(request.nonce.subarray(0, NONCE_BYTES), 24)
  bytes[36] = UDP
  view.setUint16(40, request.internalPort)
  view.setUint16(42, request.suggested.port)
  writeHost(bytes, 44, request.suggested.host ?? "0.0.0.0")
  return bytes
}

/** Decodes an answer. Never throws, whatever the bytes. Options are ignored. */
export const decode = (bytes: Uint8Array): Either.Either<Response, PcpError> => {
  if (bytes.length < LEAST_BYTES) return fail("Truncated")
  if (bytes[0] !== VERSION) return fail("Version")
  if (bytes.length < HEAD_BYTES) return fail("Truncated")
  if ((bytes[1]! & RESPONSE) === 0) return fail("NotAResponse")
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const common = { result: bytes[3]!, lifetimeS: view.getUint32(4), epochS: view.getUint32(8) }
  switch (bytes[1]! & ~RESPONSE) {
    case ANNOUNCE:
      return Either.right({ _tag: "Announce", ...common })
    case MAP: {
      if (bytes.length < HEAD_BYTES + MAP_BYTES) return fail("Truncated")
      if (bytes[36] !== UDP) return fail("Opcode")
      const port = view.getUint16(42)
      const external = common.result === SUCCESS && port > 0 ? { host: readHost(bytes, 44), port } : null
      if (common.result === SUCCESS && common.lifetimeS > 0 && external === null) return fail("Address")
      return Either.right({
        _tag: "Map",
        ...common,
        nonce: bytes.slice(24, 24 + NONCE_BYTES),
        internalPort: view.getUint16(40),
        external
      })
    }
    default:
      return fail("Opcode")
  }
}

export const isSuccess = ({ result }: Response): boolean => result === SUCCESS

/** Returns the name of a result code (RFC 6887, section 7.4), for people. */
export const resultName = (result: number): string => RESULTS[result] ?? `result ${result}`

const RESULTS = [
  "success",
  "unsupported version",
  "not authorized",
  "malformed request",
  "unsupported opcode",
  "unsupported option",
  "malformed option",
  "network failure",
  "no resources",
  "unsupported protocol",
  "quota exceeded",
  "cannot provide external",
  "address mismatch",
  "excessive remote peers"
]

const head = (opcode: number, clientHost: string, lifetimeS: number, length: number): Uint8Array => {
  const bytes = new Uint8Array(length)
  bytes[0] = VERSION
  bytes[1] = opcode
  new DataView(bytes.buffer).setUint32(4, lifetimeS)
  writeHost(bytes, 8, clientHost)
  return bytes
}

/**
 * Writes an address. IPv4 is written inside IPv6, as PCP does with all addresses (RFC 6887, section
 * 5).
 */
const writeHost = (bytes: Uint8Array, at: number, host: string): void => {
  const ip = new Uint8Array(16)
  const length = IpBytes.parse(host, ip)
  if (length === 16) return bytes.set(ip, at)
  bytes[at + 10] = bytes[at + 11] = 0xff
  if (length === 4) bytes.set(ip.subarray(0, 4), at + 12)
}

const readHost = (bytes: Uint8Array, at: number): string => {
  const isV4 = bytes[at + 10] === 0xff && bytes[at + 11] === 0xff && bytes.subarray(at, at + 10).every((it) => it === 0)
  return isV4 ? IpBytes.format(bytes, at + 12, 4) : IpBytes.format(bytes, at, 16)
}

const fail = (reason: PcpError["reason"]) => Either.left(new PcpError({ reason }))
