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

export const LegState = Schema.Struct({
  /** Null while none is bound. */
  kind: Schema.NullOr(LegKind),
  relay: Schema.NullOr(SocketAddr),
  /** This node's address as the relay sees it, over UDP. */
  mapped: Schema.NullOr(SocketAddr),
  /** Why it is this kind and not a better one; never empty. */
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
