/** A UDP port that the gateway forwards to this host, by PCP, NAT-PMP or UPnP-IGD. */
import { Schema } from "effect"
import type { SocketAddr } from "../bytes/SocketAddr.ts"

/** Protocols that map ports, in the order in which they are tried. */
export const Protocol = Schema.Literal("pcp", "nat-pmp", "upnp")
export type Protocol = typeof Protocol.Type

/** A mapped port: the protocol that made it, and its address outside. */
export type PortMapping = { readonly protocol: Protocol; readonly external: SocketAddr }

/** Abilities of the gateway, from the protocols that it answered. */
export const Report = Schema.Struct({
  /**
   * Address of the gateway. `null` if no IPv4 default gateway is known here, so that nothing was
   * asked.
   */
  gateway: Schema.NullOr(Schema.String),
  protocols: Schema.Array(Protocol),
  /** The gateway's outside address, as it reports it. `null` if no answer contained it. */
  external: Schema.NullOr(Schema.String)
})
export type Report = typeof Report.Type

/**
 * Lifetime that is requested, in seconds. It is shorter than the two hours that RFC 6886 (section
 * 3.3) recommends. A node that died leaves its port open for no longer, and a gateway that silently
 * lost the mapping is asked again within half of it.
 */
export const LIFETIME_S = 600
/** Shortest time between two renewals, however short the lifetime is (RFC 6887, section 11.2.1). */
const LEAST_RENEWAL_MS = 4_000

/**
 * Returns how long after its grant to renew a mapping, in ms. A gateway may grant a longer lifetime
 * than requested. With UPnP, 0 is a lease without an end.
 */
export const renewAfterMs = (lifetimeS: number): number => {
  const granted = lifetimeS > 0 ? Math.min(lifetimeS, LIFETIME_S) : LIFETIME_S
  return Math.max(LEAST_RENEWAL_MS, granted * 500)
}

/**
 * Time of the gateway, and this host's time when it arrived. The gateway counts seconds since it
 * lost its state. This host's time is in ms, monotonic.
 */
export type Epoch = { readonly serverS: number; readonly atMs: number }

/**
 * Whether the gateway has lost its mappings between two answers (PCP: RFC 6887, section 8.5;
 * NAT-PMP: RFC 6886, section 3.6).
 */
export const hasRestarted = (protocol: "pcp" | "nat-pmp", before: Epoch, now: Epoch): boolean => {
  const server = now.serverS - before.serverS
  const client = Math.max(0, now.atMs - before.atMs) / 1000
  if (protocol === "nat-pmp") return server + 2 < (client * 7) / 8
  return server < -1 || client + 2 < server - server / 16 || server + 2 < client - client / 16
}
