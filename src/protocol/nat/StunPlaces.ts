/** Pairs of a server's addresses for behaviour discovery (RFC 5780, section 6). */
import * as IpBytes from "../bytes/IpBytes.ts"
import { familyOf } from "../bytes/SocketAddr.ts"
import * as Candidate from "../candidate/Candidate.ts"

/**
 * Returns, for each address, a second one of the same IP version. `wanted` is the address that the
 * operator named. Without it only public addresses are paired, each with the next, because nobody
 * outside could tell a private address from one that a filter blocks.
 */
export const pairs = (hosts: ReadonlyArray<string>, wanted: string | null): ReadonlyMap<string, string> => {
  const found = new Map<string, string>()
  if (wanted !== null) {
    const alike = hosts.filter((host) => host !== wanted && familyOf(host) === familyOf(wanted))
    for (const host of alike) found.set(host, wanted)
    if (alike[0] !== undefined) found.set(wanted, alike[0])
    return found
  }
  for (const family of [4, 6]) {
    const alike = hosts.filter((host) => isPublic(host) && familyOf(host) === family)
    for (const [index, host] of alike.entries()) {
      const other = alike[(index + 1) % alike.length]!
      if (other !== host) found.set(host, other)
    }
  }
  return found
}

/**
 * Whether this can be an address on the internet, and is not private, shared, loopback or
 * link-local (RFC 6890).
 */
export const isPublic = (host: string): boolean => {
  const ip = new Uint8Array(16)
  const length = IpBytes.parse(host, ip)
  const [a = 0, b = 0] = ip
  if (length === 16) return (a & 0xe0) === 0x20
  return length === 4 && Candidate.isUsableHost(host, false) && a !== 10 && !(a === 172 && (b & 0xf0) === 16) &&
    !(a === 192 && b === 168) && !(a === 100 && (b & 0xc0) === 64)
}
