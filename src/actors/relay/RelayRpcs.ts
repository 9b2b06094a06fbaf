/**
 * Calls of a node's RelayActor, which keeps the node bound at its home relay. This file has no
 * behaviour.
 */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import { LEG_KINDS } from "../../protocol/path/PathKind.ts"
import { Signed } from "../../protocol/trust/Signed.ts"
import * as ActorAddress from "../runtime/actor/ActorAddress.ts"
import { SessionId } from "../signaling/RelaySignalingRpcs.ts"

/** Carrier of relayed packets between this node and the relay: UDP, HTTP/3 or TLS over TCP. */
export const LegKind = Schema.Literal(...LEG_KINDS)
export type LegKind = typeof LegKind.Type

/** Why the leg is in its present state. */
export const LegCause = Schema.Literal(
  "works", // UDP works
  "waiting", // nothing is known yet
  "lost", // a leg has just ended, and another one is being made
  "udp_unanswered", // UDP to the relay gets no answer
  "udp_too_small", // the network carries UDP, but no packets as large as QUIC needs
  "name", // DNS gives no address for the relay's name
  "no_udp" // the relay offers no UDP
)
export type LegCause = typeof LegCause.Type

/** State of the leg between this node and its home relay. */
export const LegState = Schema.Struct({
  /** Carrier that is bound. `null` if none is. */
  kind: Schema.NullOr(LegKind),
  /** UDP address of the relay that is in use or tried. `null` if none is known. */
  relay: Schema.NullOr(SocketAddr),
  /** This node's UDP address as the relay sees it. `null` if it is not known. */
  mapped: Schema.NullOr(SocketAddr),
  /** Why the leg has this kind and not a better one, for programs. */
  cause: LegCause,
  /** Why the leg has this kind and not a better one, for people. Never empty. */
  reason: Schema.String
})
export type LegState = typeof LegState.Type

/** Calls of the RelayActor. */
export class RelayRpcs extends RpcGroup.make(
  /**
   * Opens the session at the relay on the present leg, and again on each later leg, until the
   * session is closed.
   */
  Rpc.make("OpenSession", { payload: { session: SessionId, ticket: Signed } }),
  Rpc.make("CloseSession", { payload: { session: SessionId } }),
  Rpc.make("State", { success: LegState }),
  /** Answers when a leg is bound. */
  Rpc.make("AwaitBound", {})
) {}

/** Address of the RelayActor, by which other actors call it. */
export const Relay = ActorAddress.make("relay", RelayRpcs)
