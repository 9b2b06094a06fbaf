/** How an actor reaches other actors: by address, wherever they run, through their restarts. */
import type { Rpc } from "@effect/rpc"
import { Context, Effect } from "effect"
import type { ActorAddress } from "./ActorAddress.ts"
import type { ActorRef } from "./ActorRef.ts"

export class Peers extends Context.Tag("sallyport/actors/Peers")<Peers, {
  /** The address must be among the actor's `uses`; another one is a defect. */
  readonly ref: <Rpcs extends Rpc.Any>(address: ActorAddress<Rpcs>) => ActorRef<Rpcs>
}>() {
  /** `const signaling = yield* Peers.ref(Signaling)`; keep it for as long as the actor lives. */
  static readonly ref = <Rpcs extends Rpc.Any>(
    address: ActorAddress<Rpcs>
  ): Effect.Effect<ActorRef<Rpcs>, never, Peers> => Effect.map(Peers, (peers) => peers.ref(address))
}
