/** Builds `struct sockaddr_in` and `sockaddr_in6` of Linux, once for each destination. */
import * as IpBytes from "../../protocol/bytes/IpBytes.ts"
import * as LocalAddresses from "../../services/network/LocalAddresses.ts"
import { AF_INET, AF_INET6 } from "./Libc.ts"

/**
 * Most addresses that {@link Destinations} keeps. When it is full it is cleared, so that memory
 * stays bounded; the next sends only take longer.
 */
const MAX_ADDRESSES = 4096
/** Most ports of one address that are kept. When they are full they are cleared. */
const MAX_PORTS = 4096

const ip = new Uint8Array(16)

/**
 * Builds an address. Returns `null` if `address` is not a literal address of this family. A zone
 * (`fe80::1%eth0`) becomes the scope id.
 */
export const make = (address: string, port: number, family: 4 | 6): Uint8Array | null => {
  const length = IpBytes.parse(address, ip)
  if (length !== (family === 4 ? 4 : 16)) return null
  const bytes = new Uint8Array(family === 4 ? 16 : 28)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, family === 4 ? AF_INET : AF_INET6, true)
  view.setUint16(2, port)
  bytes.set(ip.subarray(0, length), family === 4 ? 4 : 8)
  if (family === 6) view.setUint32(24, scopeOf(address), true)
  return bytes
}

const scopeOf = (address: string): number => {
  const at = address.indexOf("%")
  if (at < 0) return 0
  const zone = address.slice(at + 1)
  if (/^\d+$/.test(zone)) return Number(zone)
  return LocalAddresses.see().interfaces[zone]?.find((one) => one.family === "IPv6")?.scopeid ?? 0
}

/** The destinations of one socket. */
export class Destinations {
  readonly #family: 4 | 6
  readonly #byAddress = new Map<string, Map<number, Uint8Array>>()
  #address = ""
  #port = -1
  #last: Uint8Array | null = null

  constructor(family: 4 | 6) {
    this.#family = family
  }

  /** Returns the address for a destination. `null` as for {@link make}. */
  get(address: string, port: number): Uint8Array | null {
    if (port === this.#port && address === this.#address) return this.#last
    let ports = this.#byAddress.get(address)
    let found = ports?.get(port)
    if (found === undefined) {
      const made = make(address, port, this.#family)
      if (made === null) return null
      found = made
      if (ports === undefined || ports.size >= MAX_PORTS) {
        if (this.#byAddress.size >= MAX_ADDRESSES) this.#byAddress.clear()
        this.#byAddress.set(address, ports = new Map())
      }
      ports.set(port, found)
    }
    this.#address = address
    this.#port = port
    this.#last = found
    return found
  }
}
