/**
 * Follows changes of the directory, also by other processes such as the command line, and notifies
 * the nodes that they concern: of removed nodes, of other relays, and of access rules by new
 * grants. It owns how far the audit log has been read, and whether some session has an old grant.
 */
import { Effect } from "effect"
import type { RelayPoint } from "../../protocol/relay/RelayPoint.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import type * as Directory from "../../services/directory/Directory.ts"
import * as DirectoryClock from "../../services/identity/DirectoryClock.ts"
import { NoRelay } from "../signaling/RelaySignalingRpcs.ts"
import type * as Board from "./Board.ts"
import type * as RemovedNodes from "./RemovedNodes.ts"
import type * as SignedDocuments from "./SignedDocuments.ts"

/** Options of {@link make}. */
export interface Options {
  readonly board: ReturnType<typeof Board.make>
  readonly directory: Pick<
    typeof Directory.Directory.Service,
    "changesSince" | "latestAuditId" | "placeRelay" | "relays"
  >
  readonly removed: Pick<ReturnType<typeof RemovedNodes.make>, "revoke" | "revokeTurn">
  readonly signed: Pick<ReturnType<typeof SignedDocuments.make>, "replaceGrants">
}

/** Starts to follow the directory from its present state on. Run `poll` again and again. */
export const make = Effect.fnUntraced(function*({ board, directory, removed, signed }: Options) {
  let seen = yield* directory.latestAuditId
  let grantsAreStale = false

  const tellRelays = Effect.map(directory.relays, (relays) => {
    for (const node of board.links.keys()) board.send(node, { _tag: "RelaysChanged", relays })
  })
  const replaceGrants = Effect.suspend(() => {
    // This stays set until the grants are replaced, even if the directory cannot be read now.
    grantsAreStale = true
    return Effect.map(signed.replaceGrants, () => {
      grantsAreStale = false
    })
  })

  return {
    /** Handles all changes since the last poll. One that fails is repeated by the next poll. */
    poll: Effect.gen(function*() {
      const now = yield* DirectoryClock.nowSeconds
      board.expire(now)
      if (grantsAreStale) yield* replaceGrants
      if ((yield* directory.latestAuditId) === seen) return
      const changes = yield* directory.changesSince(seen)
      seen = changes.at(-1)?.id ?? seen
      for (const { at, kind, nodeKey, nodeName } of changes) {
        if (kind !== "node_removed") continue
        if (nodeKey !== null) yield* removed.revoke(nodeKey as NodeKey)
        if (nodeName !== null) yield* removed.revokeTurn(nodeName, Math.min(at, now))
      }
      if (changes.some(isOfRelays)) yield* tellRelays
      if (changes.some(({ kind }) => kind === "policy_replaced")) yield* replaceGrants
    }).pipe(
      Effect.catchTag("DirectoryError", ({ message }) => Effect.logWarning(`the directory cannot be read: ${message}`))
    ),
    /** Lists a relay at the addresses that it has reported itself. */
    placeRelay: Effect.fn("SignalingHub.placeRelay")(function*(node: NodeKey, point: RelayPoint) {
      const member = board.links.get(node)?.member
      if (member?.role !== "relay" || member.name !== point.name) {
        return yield* new NoRelay({ message: `this node has not joined as the relay ${point.name}` })
      }
      yield* directory.placeRelay(node, point)
      // Even if nothing is new, because a restarted relay knows none of its nodes.
      yield* tellRelays
    }, Effect.catchTag("DirectoryError", ({ message }) => Effect.fail(new NoRelay({ message }))))
  } as const
})

const isOfRelays = ({ detail, kind }: Directory.AuditEntry): boolean =>
  kind === "relay_placed" || (kind === "node_removed" && detail["role"] === "relay")
