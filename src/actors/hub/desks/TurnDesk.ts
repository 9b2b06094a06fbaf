/** Issues TURN credentials to enrolled nodes. They are short-lived and valid only at this relay. */
import { Effect } from "effect"
import { renderHostPort } from "../../../protocol/bytes/SocketAddr.ts"
import type { NodeKey } from "../../../protocol/trust/NodeKey.ts"
import type * as Directory from "../../../services/directory/Directory.ts"
import * as TurnCredentials from "../../../services/identity/TurnCredentials.ts"
import { NoTurn } from "../../signaling/RelaySignalingRpcs.ts"

/** Options of {@link make}. */
export interface Options {
  readonly stateDir: string
  readonly directory: typeof Directory.Directory.Service
  /** Name or address of the relay, as nodes know it. */
  readonly host: string
  /**
   * Ports at which TURN is offered. `null` for a transport that is not offered, or if TURN is off.
   */
  readonly ports: { readonly udp: number | null; readonly tcp: number | null } | null
}

/**
 * Makes the function that issues TURN credentials. It also makes TURN's secret if there is none
 * yet. The function fails with `NoTurn` if TURN is off or the node is not enrolled.
 */
export const make = Effect.fnUntraced(function*({ directory, host, ports, stateDir }: Options) {
  const secret = ports === null ? null : yield* TurnCredentials.loadOrCreate(stateDir)
  return Effect.fn("TurnDesk.issue")(function*(node: NodeKey) {
    if (secret === null || ports === null) {
      return yield* new NoTurn({ message: "this relay offers no TURN; its configuration has no turn" })
    }
    const member = yield* Effect.mapError(
      Effect.flatten(directory.findNode(node)),
      () => new NoTurn({ message: "this node is not enrolled here, or was removed" })
    )
    const urls = [
      ...(ports.udp === null ? [] : [`turn:${renderHostPort({ host, port: ports.udp })}?transport=udp`]),
      ...(ports.tcp === null ? [] : [`turn:${renderHostPort({ host, port: ports.tcp })}?transport=tcp`])
    ]
    return { ...yield* TurnCredentials.issue(secret, member.name), urls }
  })
})
