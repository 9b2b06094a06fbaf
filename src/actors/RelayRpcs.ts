/** What a node's other actors may ask of its RelayActor, which keeps the node bound at its relay. No behaviour here. */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import { Signed } from "../protocol/Signed.ts"
import { SocketAddr } from "../protocol/SocketAddr.ts"
import { SessionId } from "./RelaySignalingRpcs.ts"
import * as ActorAddress from "./runtime/ActorAddress.ts"

/** How relayed packets travel between this node and the relay. */
export const LegKind = Schema.Literal("relay-udp", "relay-h3", "relay-tcp")
export type LegKind = typeof LegKind.Type

/** Why the leg is what it is. */
export const LegCause = Schema.Literal(
  "works", // UDP works
  "waiting", // nothing is known yet
  "lost", // a leg has just ended; another one is being made
  "udp_unanswered", // UDP to the relay gets no answer
  "udp_too_small", // the network carries UDP, but no packets as large as QUIC needs
  "name", // DNS gives no address for the relay's name
  "no_udp" // the relay offers no UDP
)
export type LegCause = typeof LegCause.Type

export const LegState = Schema.Struct({
  /** Null while none is bound. */
  kind: Schema.NullOr(LegKind),
  relay: Schema.NullOr(SocketAddr),
  /** This node's address as the relay sees it, over UDP. */
  mapped: Schema.NullOr(SocketAddr),
  /** Why it is this kind and not a better one, for programs. */
  cause: LegCause,
  /** The same for people; never empty. */
  reason: Schema.String
})
export type LegState = typeof LegState.Type

export class RelayRpcs extends RpcGroup.make(
  /** Opens the session at the relay on the present leg, and again on each later one, until it is closed. */
  Rpc.make("OpenSession", { payload: { session: SessionId, ticket: Signed } }),
  Rpc.make("CloseSession", { payload: { session: SessionId } }),
  Rpc.make("State", { success: LegState }),
  /** Answers when one leg is bound. */
  Rpc.make("AwaitBound", {})
) {}

export const Relay = ActorAddress.make("relay", RelayRpcs)
