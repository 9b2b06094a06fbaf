/** Lets an actor reach other actors by address, on any thread and across their restarts. */
import type { Rpc } from "@effect/rpc"
import { Context, Effect } from "effect"
import type { ActorAddress } from "./ActorAddress.ts"
import type { ActorRef } from "./ActorRef.ts"

/** The actors that an actor may call. */
export class Peers extends Context.Tag("sallyport/actors/Peers")<Peers, {
  /**
   * Returns the ref to an actor. The address must be among the actor's `uses`; any other is a
   * defect.
   */
  readonly ref: <Rpcs extends Rpc.Any>(address: ActorAddress<Rpcs>) => ActorRef<Rpcs>
}>() {
  /**
   * Gets the ref to an actor, as in `const signaling = yield* Peers.ref(Signaling)`. Keep it for as
   * long as the actor lives.
   */
  static readonly ref = <Rpcs extends Rpc.Any>(
    address: ActorAddress<Rpcs>
  ): Effect.Effect<ActorRef<Rpcs>, never, Peers> => Effect.map(Peers, (peers) => peers.ref(address))
}
