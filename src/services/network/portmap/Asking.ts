/** The request for a port mapping and its result, the same for each protocol. */
import { type Effect, Schema } from "effect"
import type { SocketAddr } from "../../../protocol/bytes/SocketAddr.ts"
import { type Epoch, Protocol } from "../../../protocol/nat/PortMapping.ts"

/**
 * Error when a gateway did not map the port. `Silent`: it does not speak the protocol, or gave no
 * usable answer. `Refused`: it speaks the protocol but refused. `Local`: this host could not send
 * the request. `message` is for the log.
 */
export class PortMappingFailed extends Schema.TaggedError<PortMappingFailed>()("PortMappingFailed", {
  protocol: Protocol,
  reason: Schema.Literal("Silent", "Refused", "Local"),
  message: Schema.String
}) {}

/** The mapping that a node wants. */
export type Wish = {
  /** A literal IPv4 address. */
  readonly gateway: string
  /** UDP port of PCP and NAT-PMP. UPnP devices announce their own. */
  readonly port: number
  /** UDP port on which UPnP devices are searched for. Tests use another one. */
  readonly ssdpPort: number
  readonly internalPort: number
  /** The external port that this node had before, or would like to have. */
  readonly externalPort: number
  /** PCP's mapping nonce (RFC 6887). It must stay the same to renew the same mapping. */
  readonly nonce: Uint8Array
}

/** A mapping that the gateway granted. */
export type Granted = {
  /** Protocol by which the gateway granted the mapping. */
  readonly protocol: Protocol
  readonly external: SocketAddr
  readonly lifetimeS: number
  /** Time of the gateway's clock in its answer. `null` for UPnP, which has no clock. */
  readonly epoch: Epoch | null
  /**
   * Ends the mapping at the gateway. A failure is ignored, and the wait for the answer is limited.
   */
  readonly release: Effect.Effect<void>
}

/** Requests a mapping by one protocol. */
export type Ask = (wish: Wish) => Effect.Effect<Granted, PortMappingFailed>
