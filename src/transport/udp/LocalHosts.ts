/**
 * The literal addresses that a configured address stands for. A server has one socket for each,
 * because an answer must leave from the address that was asked, and on a wildcard socket the kernel
 * chooses the address.
 */
import { isUnspecified } from "../../services/config/HostPort.ts"
import * as LocalAddresses from "../../services/network/LocalAddresses.ts"

/**
 * Returns `host` itself if it is specified. Otherwise it returns every address that this machine
 * has now, without IPv6 link-local ones; `0.0.0.0` stands for IPv4 only, `::` for both families.
 * `null` if the addresses cannot be listed.
 */
export const of = (host: string, see: () => LocalAddresses.Seen = LocalAddresses.see): ReadonlyArray<string> | null => {
  if (!isUnspecified(host)) return [host]
  const { interfaces, source } = see()
  if (source === "unseen") return null
  const found = Object.values(interfaces).flatMap((addresses) =>
    (addresses ?? []).filter(({ address, family }) =>
      (host.includes(":") || family === "IPv4") && !address.startsWith("fe80:")
    ).map(({ address }) => address)
  )
  return [...new Set(found)]
}
