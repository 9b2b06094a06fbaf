/** One socket for each local address: an answer must leave from the address that was asked, and a wildcard socket lets the kernel choose. */
import { networkInterfaces } from "node:os"
import { isUnspecified } from "../../services/config/HostPort.ts"

/** Unspecified addresses stand for every address that this machine has now. */
export const of = (host: string): ReadonlyArray<string> => {
  if (!isUnspecified(host)) return [host]
  return Object.values(networkInterfaces()).flatMap((addresses) =>
    (addresses ?? []).filter(({ address, family }) =>
      (host.includes(":") || family === "IPv4") && !address.startsWith("fe80:")
    ).map(({ address }) => address)
  )
}
