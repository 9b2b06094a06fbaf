/** Who an actor is and what may be asked of it. Lives in `*Rpcs.ts` files: callers import this, never the actor. */
import type { Rpc, RpcGroup } from "@effect/rpc"

export interface ActorAddress<Rpcs extends Rpc.Any> {
  /** Unique in a process; also its name in placements, logs and spans. */
  readonly name: string
  readonly rpcs: RpcGroup.RpcGroup<Rpcs>
}

/** Any address, where only the name matters. */
export interface Any {
  readonly name: string
  readonly rpcs: RpcGroup.Any
}

export const make = <Rpcs extends Rpc.Any>(name: string, rpcs: RpcGroup.RpcGroup<Rpcs>): ActorAddress<Rpcs> => ({
  name,
  rpcs
})

/** The calls of an address: `ActorRef<RpcsOf<typeof Signaling>>`. */
export type RpcsOf<Address> = Address extends ActorAddress<infer Rpcs> ? Rpcs : never
