/** What is asked of a gateway by each of the protocols, and what comes of it. */
import { type Effect, Schema } from "effect"
import { type Epoch, Protocol } from "../../protocol/PortMapping.ts"
import type { SocketAddr } from "../../protocol/SocketAddr.ts"

/**
 * `Silent`: nobody there speaks it, or what they said is no answer. `Refused`: it does, and said no. `Local`: this host could not
 * ask. `message` is for the log.
 */
export class PortMappingFailed extends Schema.TaggedError<PortMappingFailed>()("PortMappingFailed", {
  protocol: Protocol,
  reason: Schema.Literal("Silent", "Refused", "Local"),
  message: Schema.String
}) {}

export type Wish = {
  /** A literal IPv4 address. */
  readonly gateway: string
  /** Of PCP and NAT-PMP; UPnP says where it is. */
  readonly port: number
  /** Where to search for UPnP; tests have their own. */
  readonly ssdpPort: number
  readonly internalPort: number
  /** What this node had before, or hopes for. */
  readonly externalPort: number
  /** PCP's; the same for as long as the mapping is to be the same. */
  readonly nonce: Uint8Array
}

export type Granted = {
  readonly protocol: Protocol
  readonly external: SocketAddr
  readonly lifetimeS: number
  /** Null: UPnP has none. */
  readonly epoch: Epoch | null
  /** Ends the mapping at the gateway; tells nobody if it could not. Bounded. */
  readonly release: Effect.Effect<void>
}

export type Ask = (wish: Wish) => Effect.Effect<Granted, PortMappingFailed>
