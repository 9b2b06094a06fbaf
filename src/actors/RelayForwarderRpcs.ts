/** What the relay's other actors may ask of its RelayForwarderActor, which passes packets between bound nodes. No behaviour here. */
import * as Transferable from "@effect/platform/Transferable"
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import { NodeKey } from "../protocol/NodeKey.ts"
import * as ActorAddress from "./runtime/ActorAddress.ts"

export const ForwarderStats = Schema.Record({ key: Schema.String, value: Schema.Number })
export type ForwarderStats = typeof ForwarderStats.Type

/** The addresses of this machine at which nodes can bind, and those at which they cannot. */
export const ForwarderAddresses = Schema.Struct({
  /** Whether the configured address stands for all of this machine's. */
  all: Schema.Boolean,
  serving: Schema.Array(Schema.String),
  /** `code` is the system's name of the error. They are tried again. */
  skipped: Schema.Array(Schema.Struct({ host: Schema.String, code: Schema.String })),
  /** Whether the system does not tell this process which addresses there are. */
  unseen: Schema.Boolean
})

/** Null: not there. */
export const TurnPorts = Schema.Struct({ udp: Schema.NullOr(Schema.Int), tcp: Schema.NullOr(Schema.Int) })

export class RelayForwarderRpcs extends RpcGroup.make(
  /** The UDP port that nodes bind at, and the ports of TURN where that is configured. */
  Rpc.make("AwaitListening", { success: Schema.Struct({ udp: Schema.Int, turn: Schema.NullOr(TurnPorts) }) }),
  /**
   * A node's packet link. Whole relayed frames go both ways over the port as transferred buffers, one message for each batch;
   * closing the port detaches the link.
   */
  Rpc.make("AttachLink", {
    payload: { nodeKey: NodeKey, kind: Schema.Literal("relay-tcp", "relay-h3"), port: Transferable.MessagePort }
  }),
  /** Its binding and its sessions end now. */
  Rpc.make("Revoke", { payload: { nodeKey: NodeKey } }),
  /** Its allocations end, and its credentials of until `at` (epoch seconds) are refused. TURN knows nodes by their names. */
  Rpc.make("RevokeTurn", { payload: { name: Schema.String, at: Schema.Int } }),
  /** How far the directory's clock is ahead of this machine's `HostClock`. Until it is told, this machine's own clock has to do. */
  Rpc.make("SetTime", { payload: { offsetMs: Schema.Number } }),
  Rpc.make("Addresses", { success: ForwarderAddresses }),
  Rpc.make("Stats", { success: ForwarderStats })
) {}

export const RelayForwarder = ActorAddress.make("relayForwarder", RelayForwarderRpcs)
