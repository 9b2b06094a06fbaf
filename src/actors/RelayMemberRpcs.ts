/** What a relay that has joined another one may ask of its RelayMemberActor, its only tie to the directory. No behaviour here. */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import * as ActorAddress from "./runtime/ActorAddress.ts"

export const MemberState = Schema.Struct({
  /** Whether the directory lists this relay where it is, and tells it who is removed. */
  up: Schema.Boolean,
  /** Host and port of the relay that it has joined. */
  relay: Schema.String,
  /** Why it is not up; empty when it is. */
  problem: Schema.String,
  /** How far this machine's clock is ahead of the directory's, milliseconds. `null` before the first sign-in. */
  clockAheadMs: Schema.NullOr(Schema.Number)
})
export type MemberState = typeof MemberState.Type

export class RelayMemberRpcs extends RpcGroup.make(Rpc.make("State", { success: MemberState })) {}

export const RelayMember = ActorAddress.make("relayMember", RelayMemberRpcs)
