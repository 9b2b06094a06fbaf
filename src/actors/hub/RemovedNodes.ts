/**
 * Nodes that were removed while a document or credential of theirs is still valid. The directory
 * remembers them, so they stay out after a restart of the relay or its forwarder, and after a
 * removal while the relay was down.
 */
import { Effect } from "effect"
import { MAX_OUTAGE_SECONDS, type NodeRole } from "../../protocol/trust/Documents.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import type * as Directory from "../../services/directory/Directory.ts"
import * as DirectoryClock from "../../services/identity/DirectoryClock.ts"
import * as TurnCredentials from "../../services/identity/TurnCredentials.ts"
import { REVOKED_MS } from "../../transport/relay/RelayServer.ts"
import type { RelayForwarder } from "../forwarder/RelayForwarderRpcs.ts"
import type { RpcsOf } from "../runtime/actor/ActorAddress.ts"
import type { ActorRef } from "../runtime/actor/ActorRef.ts"
import type { SignalingEvent } from "../signaling/RelaySignalingRpcs.ts"
import type * as Board from "./Board.ts"

const REVOKED_SECONDS = REVOKED_MS / 1000

/** Delay before a removed node's link is cut. */
const REVOKED_GRACE = "300 millis"

/** Options of {@link make}. */
export interface Options {
  readonly board: ReturnType<typeof Board.make>
  readonly directory: Pick<typeof Directory.Directory.Service, "removedSince">
  /** The forwarder, which ends the removed nodes' bindings. */
  readonly forwarder: ActorRef<RpcsOf<typeof RelayForwarder>>
  /** Drops what else the relay remembers of a node. */
  readonly forget: (node: NodeKey) => void
  /** Runs an effect in a fiber of its own, which ends with the actor. */
  readonly fork: (effect: Effect.Effect<void>) => Effect.Effect<void>
}

/** Returns the effects that notify nodes and the forwarder of removed nodes. */
export const make = ({ board, directory, forget, fork, forwarder }: Options) => {
  const since = (seconds: number) =>
    Effect.flatMap(DirectoryClock.nowSeconds, (now) => directory.removedSince(now - seconds))
  return {
    /** Cuts a removed node's sessions, bindings and link. */
    revoke: Effect.fnUntraced(function*(node: NodeKey) {
      forget(node)
      for (const key of board.links.keys()) board.send(key, { _tag: "Revoked", node })
      // The removed node is notified, too, and gets a moment to read that. Its peers' close notices
      // may no longer reach it through the relay.
      const link = board.links.get(node)
      yield* fork(Effect.delay(Effect.sync(() => link?.cut("this node was removed")), REVOKED_GRACE))
      yield* Effect.ignore(forwarder.ask((client) => client.Revoke({ nodeKey: node })))
      yield* Effect.logInfo("node removed; its flows are cut").pipe(Effect.annotateLogs({ node }))
    }),
    /**
     * Ends the TURN credentials that a node of this name has received until `at`, in epoch seconds.
     */
    revokeTurn: (name: string, at: number) => Effect.ignore(forwarder.ask((client) => client.RevokeTurn({ name, at }))),
    /**
     * Revocations for a node that connects, because it may have missed them. At a connector, grants
     * count for as long as the longest outage, and at a relay credentials and tickets.
     */
    eventsFor: (role: NodeRole) =>
      Effect.map(
        since(role !== "client" ? REVOKED_SECONDS + MAX_OUTAGE_SECONDS : REVOKED_SECONDS),
        (nodes) => nodes.map(({ key }): SignalingEvent => ({ _tag: "Revoked", node: key }))
      ),
    /**
     * Reports the removed nodes to the forwarder. Run it whenever the forwarder has started,
     * because it then knows none of them.
     */
    tellForwarder: Effect.gen(function*() {
      const now = yield* DirectoryClock.nowSeconds
      const ofRelay = new Set((yield* since(REVOKED_SECONDS)).map(({ key }) => key))
      for (const { key, name, removedAt } of yield* since(TurnCredentials.KEEP_SECONDS)) {
        yield* forwarder.ask((client) => client.RevokeTurn({ name, at: Math.min(removedAt, now) }))
        if (ofRelay.has(key)) yield* forwarder.ask((client) => client.Revoke({ nodeKey: key }))
      }
    }).pipe(
      Effect.catchAll(({ message }) =>
        Effect.logError("the relay may still forward packets of removed nodes; restart it", message)
      )
    )
  } as const
}
