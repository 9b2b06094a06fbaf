/**
 * Says who an actor is and which calls it takes. Addresses are made in `*Rpcs.ts` files: callers
 * import these and never the actor.
 */
import type { Rpc, RpcGroup } from "@effect/rpc"

/** Address of an actor with its typed calls. */
export interface ActorAddress<Rpcs extends Rpc.Any> {
  /** Name that is unique in a process. Placements, logs and spans use it, too. */
  readonly name: string
  readonly rpcs: RpcGroup.RpcGroup<Rpcs>
}

/** Address of any actor, for code that needs only the name. */
export interface Any {
  readonly name: string
  readonly rpcs: RpcGroup.Any
}

export const make = <Rpcs extends Rpc.Any>(name: string, rpcs: RpcGroup.RpcGroup<Rpcs>): ActorAddress<Rpcs> => ({
  name,
  rpcs
})

/** The calls of an address, as in `ActorRef<RpcsOf<typeof Signaling>>`. */
export type RpcsOf<Address> = Address extends ActorAddress<infer Rpcs> ? Rpcs : never
