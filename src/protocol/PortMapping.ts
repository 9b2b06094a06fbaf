/** A UDP port that the gateway forwards to this host, however it was asked: by PCP, by NAT-PMP or by UPnP-IGD. */
import { Schema } from "effect"
import type { SocketAddr } from "./SocketAddr.ts"

/** In the order in which they are asked. */
export const Protocol = Schema.Literal("pcp", "nat-pmp", "upnp")
export type Protocol = typeof Protocol.Type

export type PortMapping = { readonly protocol: Protocol; readonly external: SocketAddr }

/** What the gateway can do, of those that answered. */
export const Report = Schema.Struct({
  /** Null: no IPv4 default gateway is known here, and nothing was asked. */
  gateway: Schema.NullOr(Schema.String),
  protocols: Schema.Array(Protocol),
  /** The gateway's outer address as it tells it itself; null where nothing that answered tells it. */
  external: Schema.NullOr(Schema.String)
})
export type Report = typeof Report.Type

/**
 * Asked for. Shorter than the two hours that RFC 6886 (section 3.3) recommends: a node that died leaves its door open for no longer,
 * and a gateway that lost the mapping without a word is asked again within half of it.
 */
export const LIFETIME_S = 600
/** RFC 6887, section 11.2.1: renewals are at least so far apart, however short the lifetime. */
const LEAST_RENEWAL_MS = 4_000

/** When to renew, from when it was granted. A gateway may grant more than was asked, or (UPnP) for ever: 0. */
export const renewAfterMs = (lifetimeS: number): number => {
  const granted = lifetimeS > 0 ? Math.min(lifetimeS, LIFETIME_S) : LIFETIME_S
  return Math.max(LEAST_RENEWAL_MS, granted * 500)
}

/** The gateway's clock (seconds since it lost its state), and ours when it said so (ms, monotonic). */
export type Epoch = { readonly serverS: number; readonly atMs: number }

/** Whether the gateway has lost its mappings in between. PCP: RFC 6887, section 8.5; NAT-PMP: RFC 6886, section 3.6. */
export const hasRestarted = (protocol: "pcp" | "nat-pmp", before: Epoch, now: Epoch): boolean => {
  const server = now.serverS - before.serverS
  const client = Math.max(0, now.atMs - before.atMs) / 1000
  if (protocol === "nat-pmp") return server + 2 < (client * 7) / 8
  return server < -1 || client + 2 < server - server / 16 || server + 2 < client - client / 16
}
