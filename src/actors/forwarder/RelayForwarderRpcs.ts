/**
 * Calls of the relay's RelayForwarderActor, which forwards packets between bound nodes. This file
 * has no behaviour.
 */
import * as Transferable from "@effect/platform/Transferable"
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import { LINK_KINDS } from "../../protocol/path/PathKind.ts"
import { NodeKey } from "../../protocol/trust/NodeKey.ts"
import * as ActorAddress from "../runtime/actor/ActorAddress.ts"

/** Counters of the relay's forwarding plane, by dotted names such as `drops.unbound`. */
export const ForwarderStats = Schema.Record({ key: Schema.String, value: Schema.Number })
export type ForwarderStats = typeof ForwarderStats.Type

/** Addresses of this machine at which nodes can bind, and those at which they cannot. */
export const ForwarderAddresses = Schema.Struct({
  /** Whether the configured address stands for all addresses of this machine. */
  all: Schema.Boolean,
  serving: Schema.Array(Schema.String),
  /**
   * Addresses that could not be bound. `code` is the system's name of the error. They are tried
   * again.
   */
  skipped: Schema.Array(Schema.Struct({ host: Schema.String, code: Schema.String })),
  /** Whether the system does not tell this process which addresses there are. */
  unseen: Schema.Boolean
})

/** Ports at which TURN is served. `null` for a transport that is not offered. */
export const TurnPorts = Schema.Struct({ udp: Schema.NullOr(Schema.Int), tcp: Schema.NullOr(Schema.Int) })

/** Calls of the RelayForwarderActor. */
export class RelayForwarderRpcs extends RpcGroup.make(
  /**
   * Answers with the UDP port at which nodes bind, and with the ports of TURN if it is configured.
   */
  Rpc.make("AwaitListening", { success: Schema.Struct({ udp: Schema.Int, turn: Schema.NullOr(TurnPorts) }) }),
  /**
   * Attaches a node's packet link. Whole relayed frames go both ways over the port as transferred
   * buffers, one message for each batch. Closing the port detaches the link.
   */
  Rpc.make("AttachLink", {
    payload: { nodeKey: NodeKey, kind: Schema.Literal(...LINK_KINDS), port: Transferable.MessagePort }
  }),
  /** Ends the node's binding and its sessions now. */
  Rpc.make("Revoke", { payload: { nodeKey: NodeKey } }),
  /**
   * Ends the node's TURN allocations and rejects credentials issued up to `at` (epoch seconds). It
   * takes a name, because TURN identifies nodes by name.
   */
  Rpc.make("RevokeTurn", { payload: { name: Schema.String, at: Schema.Int } }),
  /**
   * Sets how far the directory's clock is ahead of this machine's `HostClock`. Until the first such
   * call, this machine's own clock is used.
   */
  Rpc.make("SetTime", { payload: { offsetMs: Schema.Number } }),
  /**
   * Notes whether this relay reaches the directory. Until the first such call it does. While it
   * does not, documents stay valid that were valid before.
   */
  Rpc.make("SetReach", { payload: { reached: Schema.Boolean } }),
  Rpc.make("Addresses", { success: ForwarderAddresses }),
  Rpc.make("Stats", { success: ForwarderStats })
) {}

/** Address of the RelayForwarderActor, by which other actors call it. */
export const RelayForwarder = ActorAddress.make("relayForwarder", RelayForwarderRpcs)
