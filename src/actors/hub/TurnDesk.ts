/** Where enrolled nodes get their TURN credentials: short-lived, and of this relay alone. */
import { Effect } from "effect"
import type { NodeKey } from "../../protocol/NodeKey.ts"
import type * as Directory from "../../services/Directory.ts"
import * as TurnCredentials from "../../services/TurnCredentials.ts"
import { NoTurn } from "../RelaySignalingRpcs.ts"

export interface Options {
  readonly stateDir: string
  readonly directory: typeof Directory.Directory.Service
  /** As nodes are told where the relay is: a name or an address. */
  readonly host: string
  /** Where TURN is offered; null: not by this transport, or not at all. */
  readonly ports: { readonly udp: number | null; readonly tcp: number | null } | null
}

/** The secret is made where there is none. Fails with `NoTurn` where no TURN is offered, or for a node that is not enrolled. */
export const make = Effect.fnUntraced(function*({ directory, host, ports, stateDir }: Options) {
  const secret = ports === null ? null : yield* TurnCredentials.loadOrCreate(stateDir)
  const literal = host.includes(":") ? `[${host}]` : host
  return Effect.fn("TurnDesk.issue")(function*(node: NodeKey) {
    if (secret === null || ports === null) {
      return yield* new NoTurn({ message: "this relay offers no TURN; its configuration has no turn" })
    }
    const member = yield* Effect.mapError(
      Effect.flatten(directory.findNode(node)),
      () => new NoTurn({ message: "this node is not enrolled here, or was removed" })
    )
    const urls = [
      ...(ports.udp === null ? [] : [`turn:${literal}:${ports.udp}?transport=udp`]),
      ...(ports.tcp === null ? [] : [`turn:${literal}:${ports.tcp}?transport=tcp`])
    ]
    return { ...yield* TurnCredentials.issue(secret, member.name), urls }
  })
})
