/**
 * The client's side of the NAT Port Mapping Protocol, for UDP (RFC 6886). It shares its port
 * (`Pcp.PORT`) with PCP, its successor.
 */
import { Data, Either } from "effect"
import * as IpBytes from "../bytes/IpBytes.ts"

/**
 * Multicast address at which gateways announce a restart or a new address (RFC 6886, section 3.2.1;
 * RFC 6887, section 14.1.3 for PCP).
 */
export const ANNOUNCEMENTS = { group: "224.0.0.1", port: 5350 } as const

const VERSION = 0
const RESPONSE = 0x80
const EXTERNAL = 0
const MAP_UDP = 1
const SUCCESS = 0
const HEAD_BYTES = 8
const EXTERNAL_BYTES = 12
const MAP_BYTES = 16

/** Request to map a UDP port. */
export type MapRequest = {
  /** UDP port of this host to map. */
  readonly internalPort: number
  /**
   * External port to ask for. 0 leaves the choice to the gateway. With a lifetime of 0 it must be
   * 0.
   */
  readonly suggestedPort: number
  /** Lifetime to ask for, in seconds. 0 ends the mapping. */
  readonly lifetimeS: number
}

/** Answer of a gateway. `epochS`: seconds since the gateway lost its mappings. */
export type Response =
  | { readonly _tag: "External"; readonly epochS: number; readonly host: string }
  | {
    readonly _tag: "Mapped"
    readonly epochS: number
    readonly internalPort: number
    readonly externalPort: number
    /** Lifetime that was granted, in seconds. */
    readonly lifetimeS: number
  }
  /** Error answer. `to` says which of the two requests it answers. */
  | { readonly _tag: "Refused"; readonly to: "External" | "Mapped"; readonly result: number; readonly epochS: number }

/** Reason why bytes are not a valid answer. */
export class NatPmpError extends Data.TaggedError("NatPmpError")<{
  readonly reason: "Truncated" | "Version" | "NotAResponse" | "Opcode"
}> {}

/** Encodes the request for the gateway's external address. */
export const encodeExternal = (): Uint8Array => new Uint8Array([VERSION, EXTERNAL])

/** Encodes the request to map a UDP port. */
export const encodeMap = ({ internalPort, lifetimeS, suggestedPort }: MapRequest): Uint8Array => {
  const bytes = new Uint8Array(12)
  const view = new DataView(bytes.buffer)
  bytes[1] = MAP_UDP
  view.setUint16(4, internalPort)
  view.setUint16(6, suggestedPort)
  view.setUint32(8, lifetimeS)
  return bytes
}

/** Decodes an answer. Never throws, whatever the bytes. */
export const decode = (bytes: Uint8Array): Either.Either<Response, NatPmpError> => {
  if (bytes.length < HEAD_BYTES) return fail("Truncated")
  if (bytes[0] !== VERSION) return fail("Version")
  if ((bytes[1]! & RESPONSE) === 0) return fail("NotAResponse")
  const opcode = bytes[1]! & ~RESPONSE
  if (opcode !== EXTERNAL && opcode !== MAP_UDP) return fail("Opcode")
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const result = view.getUint16(2)
  const epochS = view.getUint32(4)
  if (result !== SUCCESS) {
    return Either.right({ _tag: "Refused", to: opcode === EXTERNAL ? "External" : "Mapped", result, epochS })
  }
  if (bytes.length < (opcode === EXTERNAL ? EXTERNAL_BYTES : MAP_BYTES)) return fail("Truncated")
  return Either.right(
    opcode === EXTERNAL
      ? { _tag: "External", epochS, host: IpBytes.format(bytes, 8, 4) }
      : {
        _tag: "Mapped",
        epochS,
        internalPort: view.getUint16(8),
        externalPort: view.getUint16(10),
        lifetimeS: view.getUint32(12)
      }
  )
}

/** Returns the name of a result code (RFC 6886, section 3.5), for people. */
export const resultName = (result: number): string => RESULTS[result] ?? `result ${result}`

const RESULTS = [
  "success",
  "unsupported version",
  "not authorized",
  "network failure",
  "out of resources",
  "unsupported opcode"
]

const fail = (reason: NatPmpError["reason"]) => Either.left(new NatPmpError({ reason }))
