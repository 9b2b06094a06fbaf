/**
 * The literal addresses that a configured one stands for. A server has one socket for each, because an answer must leave
 * from the address that was asked, and a wildcard socket lets the kernel choose.
 */
import { isUnspecified } from "../../services/config/HostPort.ts"
import * as LocalAddresses from "../../services/LocalAddresses.ts"

/** An unspecified address stands for every one that this machine has now; `null` if these cannot be seen. */
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
