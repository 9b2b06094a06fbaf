/** Hands a node's packet link to the forwarder, which runs on another thread. */
import { Effect } from "effect"
import { MessageChannel } from "node:worker_threads"
import * as PathKind from "../../protocol/path/PathKind.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import type { Link } from "../../session/Link.ts"
import * as LinkToPort from "../../transport/link/LinkToPort.ts"
import type { RelayForwarder } from "../forwarder/RelayForwarderRpcs.ts"
import type { RpcsOf } from "../runtime/actor/ActorAddress.ts"
import type { ActorRef } from "../runtime/actor/ActorRef.ts"

/** Moves relayed frames between a node's link and the forwarder, until one of them ends. */
export const bridge = (
  link: Link,
  nodeKey: NodeKey,
  forwarder: ActorRef<RpcsOf<typeof RelayForwarder>>
): Effect.Effect<void> =>
  Effect.gen(function*() {
    const { port1, port2 } = new MessageChannel()
    yield* Effect.addFinalizer(() => Effect.sync(() => port1.close()))
    LinkToPort.join(link, port1)
    const kind = PathKind.ofLink(link.carrier)
    yield* forwarder.ask((client) => client.AttachLink({ nodeKey, kind, port: port2 as never })).pipe(
      Effect.catchAll((error) => Effect.sync(() => link.close(error.message)))
    )
    port1.once("close", () => link.close("the forwarder has ended; connect again"))
    yield* Effect.promise(() => link.closed)
  }).pipe(Effect.scoped)
