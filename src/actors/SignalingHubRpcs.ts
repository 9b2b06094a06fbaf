/** What the relay's other parts may ask of its SignalingHubActor, which nodes are connected to. No behaviour here. */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import { NodeRole, Resource } from "../protocol/Documents.ts"
import { NodeKey } from "../protocol/NodeKey.ts"
import { Findings, NodeReport } from "../protocol/NodeReport.ts"
import { PATH_KINDS } from "../protocol/PathKind.ts"
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

const Path = Schema.Literal(...PATH_KINDS)

/** How one pair of nodes is joined. */
export interface Seen {
  readonly path: typeof Path.Type
  readonly reason: string
}

/** Pairs of nodes at one moment (epoch ms), of those that report. */
export const Sample = Schema.Struct({ at: Schema.Number, direct: Schema.Int, total: Schema.Int })
export type Sample = typeof Sample.Type

/** Nodes in one answer: a report is up to 16 KiB, and an answer is written at one go. */
export const MAX_NODES = 200
/** Which nodes: those with `find` in their names, whatever the case, by name, after the one called `after`. */
export const Wanted = Schema.Struct({
  find: Schema.String,
  after: Schema.String,
  limit: Schema.Int.pipe(Schema.between(1, MAX_NODES))
})
export type Wanted = typeof Wanted.Type

const networkWith = (report: Schema.Schema<NodeReport>) =>
  Schema.Struct({
    at: Schema.Number,
    /** Of all that are enrolled. `silent`: connected, and reporting nothing. `found`: by `find`. */
    counts: Schema.Struct({
      enrolled: Schema.Int,
      connected: Schema.Int,
      reporting: Schema.Int,
      silent: Schema.Int,
      found: Schema.Int
    }),
    /** What to give as `after` for the nodes that follow; null: there are none. */
    next: Schema.NullOr(Schema.String),
    nodes: Schema.Array(Schema.Struct({
      name: Schema.String,
      role: NodeRole,
      network: Schema.NullOr(Schema.String),
      /** Null: not connected. */
      since: Schema.NullOr(Schema.Number),
      reportedAt: Schema.NullOr(Schema.Number),
      /** Null: nothing since it last signed in. */
      report: Schema.NullOr(report)
    })),
    /** Pairs now, by path; of the relayed ones by reason. */
    paths: Schema.partial(Schema.Record({ key: Path, value: Schema.Int })),
    relayed: Schema.Array(Schema.Struct({ reason: Schema.String, count: Schema.Int })),
    /** One a minute, the oldest first, for a day at most. */
    samples: Schema.Array(Sample)
  })

/** The nodes that are enrolled, and what those that consent have reported. Times: epoch ms. */
export const Network = networkWith(NodeReport)
export type Network = typeof Network.Type

/** Reports were checked when they came: to check a thousand again for each look would stop signaling for 50 ms. */
const Checked = Schema.declare((value): value is NodeReport => typeof value === "object" && value !== null)

/** There are no findings of this node; `message` says why and what to do. */
export class ExamineFailed extends Schema.TaggedError<ExamineFailed>()("ExamineFailed", { message: Schema.String }) {}

/** The relay cannot do its work; `message` says what to mend. */
export class HubError extends Schema.TaggedError<HubError>()("HubError", { message: Schema.String }) {}

export class SignalingHubRpcs extends RpcGroup.make(
  /** The port that HTTPS listens on. */
  Rpc.make("AwaitListening", { success: Schema.Struct({ https: Schema.Int }) }),
  /** Replaces resources and access rules, and cuts what they no longer permit. */
  Rpc.make("SetPolicy", { payload: Policy, error: HubError }),
  Rpc.make("Nodes", { success: Schema.Array(ConnectedNode) }),
  /** How far this machine's clock is ahead of the directory's time, milliseconds: more than a little only if it was set. */
  Rpc.make("ClockAhead", { success: Schema.Number }),
  Rpc.make("Network", { payload: Wanted, success: networkWith(Checked), error: HubError }),
  /** What the node's own doctor says now, within 5 seconds. */
  Rpc.make("Examine", { payload: { name: Schema.String }, success: Findings, error: ExamineFailed })
) {}

export const SignalingHub = ActorAddress.make("signalingHub", SignalingHubRpcs)
