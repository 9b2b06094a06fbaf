/**
 * Calls of the RelayMemberActor, the only connection to the directory of a relay that has joined
 * another one. This file has no behaviour.
 */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import * as ActorAddress from "../runtime/actor/ActorAddress.ts"

/** State of the link to the directory. */
export const MemberState = Schema.Struct({
  /**
   * Whether the directory lists this relay at its present address, and reports removed nodes to it.
   */
  up: Schema.Boolean,
  /** Host and port of the relay that it has joined. */
  relay: Schema.String,
  /** Why it is not up. Empty when it is. */
  problem: Schema.String,
  /**
   * How far this machine's clock is ahead of the directory's, in ms. `null` before the first
   * sign-in.
   */
  clockAheadMs: Schema.NullOr(Schema.Number)
})
export type MemberState = typeof MemberState.Type

/** Calls of the RelayMemberActor. */
export class RelayMemberRpcs extends RpcGroup.make(Rpc.make("State", { success: MemberState })) {}

/** Address of the RelayMemberActor, by which other actors call it. */
export const RelayMember = ActorAddress.make("relayMember", RelayMemberRpcs)
