/**
 * Nodes that were removed while a document or credential of theirs is still valid. The directory
 * remembers them, so they stay out after a restart of the relay or its forwarder, and after a
 * removal while the relay was down.
 */
import { Effect } from "effect"
import type * as Directory from "../../services/directory/Directory.ts"
import * as DirectoryClock from "../../services/identity/DirectoryClock.ts"
import * as TurnCredentials from "../../services/identity/TurnCredentials.ts"
import { REVOKED_MS } from "../../transport/relay/RelayServer.ts"
import type { RelayForwarder } from "../forwarder/RelayForwarderRpcs.ts"
import type { RpcsOf } from "../runtime/actor/ActorAddress.ts"
import type { ActorRef } from "../runtime/actor/ActorRef.ts"
import type { SignalingEvent } from "../signaling/RelaySignalingRpcs.ts"

const REVOKED_SECONDS = REVOKED_MS / 1000

/** Options of {@link make}. */
export interface Options {
  readonly directory: typeof Directory.Directory.Service
  /** The forwarder, which ends the removed nodes' bindings. */
  readonly forwarder: ActorRef<RpcsOf<typeof RelayForwarder>>
}

/** Returns the effects that notify nodes and the forwarder of removed nodes. */
export const make = ({ directory, forwarder }: Options) => {
  const since = (seconds: number) =>
    Effect.flatMap(DirectoryClock.nowSeconds, (now) => directory.removedSince(now - seconds))
  return {
    /** Revocations for a node that connects, because it may have missed them. */
    events: Effect.map(
      since(REVOKED_SECONDS),
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
