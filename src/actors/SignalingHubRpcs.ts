/** What the relay's other parts may ask of its SignalingHubActor, which nodes are connected to. No behaviour here. */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import { NodeRole, Resource } from "../protocol/Documents.ts"
import { NodeKey } from "../protocol/NodeKey.ts"
import * as ActorAddress from "./runtime/ActorAddress.ts"

/** Who may reach what: names, or `*` for all. */
export const AccessRule = Schema.Struct({
  clients: Schema.Array(Schema.String),
  resources: Schema.Array(Schema.String)
})
export type AccessRule = typeof AccessRule.Type

export const Policy = Schema.Struct({ resources: Schema.Array(Resource), access: Schema.Array(AccessRule) })
export type Policy = typeof Policy.Type

export const ConnectedNode = Schema.Struct({
  name: Schema.String,
  role: NodeRole,
  network: Schema.NullOr(Schema.String),
  nodeKey: NodeKey,
  /** Epoch ms. */
  since: Schema.Number
})
export type ConnectedNode = typeof ConnectedNode.Type

/** The relay cannot do its work; `message` says what to mend. */
export class HubError extends Schema.TaggedError<HubError>()("HubError", { message: Schema.String }) {}

export class SignalingHubRpcs extends RpcGroup.make(
  /** The port that HTTPS listens on. */
  Rpc.make("AwaitListening", { success: Schema.Struct({ https: Schema.Int }) }),
  /** Replaces resources and access rules, and cuts what they no longer permit. */
  Rpc.make("SetPolicy", { payload: Policy, error: HubError }),
  Rpc.make("Nodes", { success: Schema.Array(ConnectedNode) })
) {}

export const SignalingHub = ActorAddress.make("signalingHub", SignalingHubRpcs)
