/**
 * Calls of the relay's SignalingHubActor, to which nodes are connected. This file has no behaviour.
 */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import { PATH_KINDS } from "../../protocol/path/PathKind.ts"
import { Findings, NodeReport } from "../../protocol/relay/NodeReport.ts"
import { NodeRole } from "../../protocol/trust/Documents.ts"
import { NodeKey } from "../../protocol/trust/NodeKey.ts"
import * as ActorAddress from "../runtime/actor/ActorAddress.ts"
import { NamedResource } from "../signaling/RelaySignalingRpcs.ts"

/** Rule that lets clients reach resources. Both are given by name; `*` stands for all. */
export const AccessRule = Schema.Struct({
  clients: Schema.Array(Schema.String),
  resources: Schema.Array(Schema.String)
})
export type AccessRule = typeof AccessRule.Type

/** All resources and access rules of the relay. */
export const Policy = Schema.Struct({ resources: Schema.Array(NamedResource), access: Schema.Array(AccessRule) })
export type Policy = typeof Policy.Type

/** A node with a link to the relay. */
export const ConnectedNode = Schema.Struct({
  /** Name as the administrator wrote it. */
  name: Schema.String,
  role: NodeRole,
  network: Schema.NullOr(Schema.String),
  nodeKey: NodeKey,
  /** When the node connected, in ms since the epoch. */
  since: Schema.Number
})
export type ConnectedNode = typeof ConnectedNode.Type

const Path = Schema.Literal(...PATH_KINDS)

/** How one pair of nodes is connected, and why. */
export interface Seen {
  readonly path: typeof Path.Type
  readonly reason: string
}

/**
 * Number of reported pairs of nodes at one moment (`at`, in ms since the epoch), and how many of
 * them are direct.
 */
export const Sample = Schema.Struct({ at: Schema.Number, direct: Schema.Int, total: Schema.Int })
export type Sample = typeof Sample.Type

/** Most nodes in one answer. A report has up to 16 KiB, and the whole answer is written at once. */
export const MAX_NODES = 200
/**
 * Selects nodes whose name contains `find`, in any case. They are listed by name and begin after
 * the name `after`.
 */
export const Wanted = Schema.Struct({
  find: Schema.String,
  after: Schema.String,
  limit: Schema.Int.pipe(Schema.between(1, MAX_NODES))
})
export type Wanted = typeof Wanted.Type

const networkWith = (report: Schema.Schema<NodeReport>) =>
  Schema.Struct({
    at: Schema.Number,
    /**
     * Numbers of nodes. `enrolled`: all. `silent`: connected without reporting, not counting
     * relays. `found`: selected by `find`.
     */
    counts: Schema.Struct({
      enrolled: Schema.Int,
      connected: Schema.Int,
      reporting: Schema.Int,
      silent: Schema.Int,
      found: Schema.Int
    }),
    /** Value of `after` for the next page. `null` if there is none. */
    next: Schema.NullOr(Schema.String),
    nodes: Schema.Array(Schema.Struct({
      name: Schema.String,
      role: NodeRole,
      network: Schema.NullOr(Schema.String),
      /** When the node connected. `null` if it is not connected. */
      since: Schema.NullOr(Schema.Number),
      /** When the node last reported. `null` if it has not since it last signed in. */
      reportedAt: Schema.NullOr(Schema.Number),
      /** The last report. `null` if there is none since the node last signed in. */
      report: Schema.NullOr(report)
    })),
    /** Number of pairs now, by path. */
    paths: Schema.partial(Schema.Record({ key: Path, value: Schema.Int })),
    /** Number of relayed pairs now, by reason. */
    relayed: Schema.Array(Schema.Struct({ reason: Schema.String, count: Schema.Int })),
    /** Samples, one for each minute of at most the last day, oldest first. */
    samples: Schema.Array(Sample)
  })

/** The enrolled nodes, and the reports of those that consent. Times are in ms since the epoch. */
export const Network = networkWith(NodeReport)
export type Network = typeof Network.Type

/**
 * Reports were checked when they arrived. To check a thousand of them again for each request would
 * block signaling for 50 ms.
 */
const Checked = Schema.declare((value): value is NodeReport => typeof value === "object" && value !== null)

/** Error when the relay has no findings of a node's `doctor`. `message` says why and what to do. */
export class ExamineFailed extends Schema.TaggedError<ExamineFailed>()("ExamineFailed", { message: Schema.String }) {}

/** Error when the relay cannot do its work. `message` says what to repair. */
export class HubError extends Schema.TaggedError<HubError>()("HubError", { message: Schema.String }) {}

/** How the machine of the directory is. */
const Condition = Schema.Struct({
  /**
   * How far the machine's clock is ahead of the directory's time, in milliseconds. It is more than
   * a little only if the clock was set.
   */
  clockAheadMs: Schema.Number,
  /** Why the directory could not be written the last time. `null` if it could. */
  directoryProblem: Schema.NullOr(Schema.String),
  /** How long the last write took, in milliseconds. `null` if it took no longer than usual. */
  slowWriteMs: Schema.NullOr(Schema.Number)
})

/** Calls of the SignalingHubActor by other parts of the relay. */
export class SignalingHubRpcs extends RpcGroup.make(
  /** Answers with the port of HTTPS once it is served. */
  Rpc.make("AwaitListening", { success: Schema.Struct({ https: Schema.Int }) }),
  /** Replaces resources and access rules, and cuts flows that they no longer permit. */
  Rpc.make("SetPolicy", { payload: Policy, error: HubError }),
  /** Answers with the nodes that are connected. */
  Rpc.make("Nodes", { success: Schema.Array(ConnectedNode) }),
  /** Answers how the machine of the directory is. */
  Rpc.make("Condition", { success: Condition }),
  /** Answers with one page of nodes and the figures of the whole network. */
  Rpc.make("Network", { payload: Wanted, success: networkWith(Checked), error: HubError }),
  /** Asks a node for the findings of its doctor. The node has 5 seconds to answer. */
  Rpc.make("Examine", { payload: { name: Schema.String }, success: Findings, error: ExamineFailed })
) {}

/** Address of the SignalingHubActor, by which other actors call it. */
export const SignalingHub = ActorAddress.make("signalingHub", SignalingHubRpcs)
