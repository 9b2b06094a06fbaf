/**
 * Header of the PROXY protocol (HAProxy, versions 1 and 2), in which a load balancer says where the
 * connection that it passes on came from. Only connections from listed balancers are read in this
 * way.
 */
import * as IpBytes from "../bytes/IpBytes.ts"

/**
 * Longest header that is accepted, in bytes. Version 2 may carry extensions; a cloud's are about
 * 100 bytes.
 */
export const MAX_BYTES = 16 + 2048
/** Longest header of version 1 with its line end, in bytes. */
const MAX_V1_BYTES = 107

/** Result of reading a header. */
export type Step =
  /** More bytes are needed. */
  | { readonly _tag: "More" }
  | { readonly _tag: "Bad"; readonly problem: string }
  /**
   * A header of `length` bytes. `source` is `null` if the balancer speaks for itself, as in its
   * health checks, or does not name the source.
   */
  | { readonly _tag: "Header"; readonly length: number; readonly source: Source | null }
/** Address from which the connection came to the balancer. */
export interface Source {
  readonly host: string
  readonly port: number
}

const V1 = new TextEncoder().encode("PROXY ")
const V2 = Uint8Array.of(0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a)
const V2_HEAD_BYTES = 16

const MORE: Step = { _tag: "More" }
const bad = (problem: string): Step => ({ _tag: "Bad", problem })

/**
 * Reads a header. `bytes` are all bytes since the connection began. Those after the header belong
 * to the next protocol.
 */
export const read = (bytes: Uint8Array): Step => {
  if (begins(bytes, V1)) return bytes.length < V1.length ? MORE : readV1(bytes)
  if (begins(bytes, V2)) return bytes.length < V2_HEAD_BYTES ? MORE : readV2(bytes)
  return bad("the connection does not begin with a PROXY header")
}

/** Whether `bytes` agrees with `prefix`, as far as it goes. */
const begins = (bytes: Uint8Array, prefix: Uint8Array): boolean =>
  prefix.every((byte, at) => at >= bytes.length || bytes[at] === byte)

const readV1 = (bytes: Uint8Array): Step => {
  const text = String.fromCharCode(...bytes.subarray(0, MAX_V1_BYTES))
  const end = text.indexOf("\r\n")
  if (end === -1) return bytes.length < MAX_V1_BYTES ? MORE : bad("the PROXY header's line does not end")
  const [, family, host, , port, ...rest] = text.slice(0, end).split(" ")
  const length = end + 2
  if (family === "UNKNOWN") return { _tag: "Header", length, source: null }
  const size = family === "TCP4" ? 4 : family === "TCP6" ? 16 : 0
  const isHost = host !== undefined && !host.includes("%") && IpBytes.parse(host, new Uint8Array(16)) === size
  const isPort = port !== undefined && /^(0|[1-9]\d{0,4})$/.test(port) && Number(port) <= 65_535
  if (size === 0 || !isHost || !isPort || rest.length !== 1) return bad("the PROXY header's line is malformed")
  return { _tag: "Header", length, source: { host, port: Number(port) } }
}

const COMMAND = { local: 0x20, proxy: 0x21 } as const
/** Bytes of one address by family: TCP over IPv4 and IPv6. Other families are not known here. */
const ADDRESS_BYTES: Readonly<Record<number, 4 | 16>> = { 0x11: 4, 0x21: 16 }

const readV2 = (bytes: Uint8Array): Step => {
  const command = bytes[12]
  const size = ADDRESS_BYTES[bytes[13] ?? 0]
  const length = V2_HEAD_BYTES + ((bytes[14] ?? 0) << 8 | (bytes[15] ?? 0))
  if (command !== COMMAND.local && command !== COMMAND.proxy) return bad("the PROXY header's version is not known")
  if (length > MAX_BYTES) return bad(`the PROXY header has ${length} bytes; at most ${MAX_BYTES} are taken`)
  if (bytes.length < length) return MORE
  if (command === COMMAND.local || size === undefined) return { _tag: "Header", length, source: null }
  if (length < V2_HEAD_BYTES + 2 * size + 4) return bad("the PROXY header is too short for its addresses")
  const portAt = V2_HEAD_BYTES + 2 * size
  const port = (bytes[portAt] ?? 0) << 8 | (bytes[portAt + 1] ?? 0)
  return { _tag: "Header", length, source: { host: IpBytes.format(bytes, V2_HEAD_BYTES, size), port } }
}
