/**
 * Answers what the two ends of an arranged session ask: new documents for it, whether its connector
 * is connected, to pass on a sealed message, and to notify the clients of sessions that a connector
 * has lost. A client proves its session by the ticket, so this also works after a restart of the
 * relay, which remembers no sessions.
 */
import { Deferred, Effect, Either } from "effect"
import { MAX_OUTAGE_SECONDS } from "../../../protocol/trust/Documents.ts"
import type { NodeKey } from "../../../protocol/trust/NodeKey.ts"
import type { Signed } from "../../../protocol/trust/Signed.ts"
import type * as Directory from "../../../services/directory/Directory.ts"
import * as Authority from "../../../services/identity/Authority.ts"
import * as DirectoryClock from "../../../services/identity/DirectoryClock.ts"
import { nowMs } from "../../../session/MonotonicClock.ts"
import { DialRefused, type SessionId, UnknownSession } from "../../signaling/RelaySignalingRpcs.ts"
import type * as Board from "../Board.ts"
import type { HubMetrics } from "../HubMetrics.ts"
import type { NodeRates } from "../NodeRates.ts"
import type * as SignedDocuments from "../SignedDocuments.ts"
import { SESSION_MEMORY_SECONDS } from "./DialDesk.ts"

/**
 * Time after a relay's start by which every node is back: twice the longest delay between two of a
 * node's tries.
 */
const RETURN_MS = 30_000

/** Options of {@link make}. */
export interface Options {
  readonly board: ReturnType<typeof Board.make>
  readonly directory: Pick<typeof Directory.Directory.Service, "findNode">
  /** Key of the authority that has signed the tickets. */
  readonly authorityKey: NodeKey
  readonly signed: Pick<ReturnType<typeof SignedDocuments.make>, "forSession">
  readonly rates: Pick<NodeRates, "mayForward">
  readonly metrics: Pick<HubMetrics, "onMessage">
}

/** Makes the desk. The time from now on counts as the relay's uptime. */
export const make = Effect.fnUntraced(function*(options: Options) {
  const { authorityKey, board, directory, metrics, rates, signed } = options
  const startedAtMs = yield* nowMs

  /**
   * Returns the ticket if this node is one of its ends. The ticket may have expired while nodes
   * could not reach this relay. It only names the session; the directory decides what is permitted.
   */
  const ticketOf = Effect.fnUntraced(function*(node: NodeKey, text: Signed) {
    const now = yield* DirectoryClock.nowSeconds
    const ticket = yield* Either.mapLeft(
      Authority.verify("ticket", text, authorityKey, now, MAX_OUTAGE_SECONDS),
      (rejected) => refuse(rejected.message)
    )
    if (ticket.clientKey === node || ticket.connectorKey === node) return ticket
    return yield* refuse("this ticket is another node's")
  })

  /**
   * Notifies clients that a connector has lost its ends of these sessions with them. Forgets the
   * sessions, because they are no load of the connector any more.
   */
  const tellLost = (connector: NodeKey, isLost: (session: Board.Session, isBrowser: boolean) => boolean) => {
    for (const session of board.sessions.values()) {
      if (session.connector !== connector) continue
      const isBrowser = board.links.get(session.client)?.isBrowser === true
      if (!isLost(session, isBrowser)) continue
      board.sessions.delete(session.id)
      board.send(session.client, { _tag: "SessionLost", session: session.id })
    }
  }

  return {
    renew: Effect.fn("SignalingHub.renew")(function*(node: NodeKey, old: Signed) {
      const { expiresAt: _, ...session } = yield* ticketOf(node, old)
      const { clientKey: client, clientTag, connectorKey, connectorTag, session: id } = session
      const isClient = client === node
      const connector = yield* Effect.mapError(
        Effect.flatten(directory.findNode(connectorKey)),
        () => refuse("the connector was removed")
      )
      const network = connector.network ?? ""
      const fresh = yield* Effect.mapError(
        signed.forSession(session, network, null),
        () => refuse("the directory has no such node any more")
      )
      if (fresh.empty && isClient) return yield* refuse("nothing is permitted through this connector any more")
      const expiresAt = (yield* DirectoryClock.nowSeconds) + SESSION_MEMORY_SECONDS
      const known = board.sessions.get(id)
      if (known !== undefined) known.expiresAt = expiresAt
      else {
        const answer = yield* Deferred.make<void, string>()
        board.addSession({ id, client, connector: connectorKey, network, clientTag, connectorTag, expiresAt, answer })
      }
      const { empty: _empty, ...documents } = fresh
      const { grant, outage, ticket } = documents
      const other = isClient ? connectorKey : client
      board.send(other, { _tag: "TicketRenewed", session: id, ticket })
      board.send(other, { _tag: "GrantReplaced", session: id, grant, outage })
      return documents
    }),
    presence: Effect.fn("SignalingHub.presence")(function*(node: NodeKey, text: Signed) {
      const ticket = yield* ticketOf(node, text)
      if (board.links.has(ticket.connectorKey)) return "connected" as const
      return (yield* nowMs) - startedAtMs < RETURN_MS ? "unknown" as const : "absent" as const
    }),
    /** Passes on a sealed message to the other end. A message too many is dropped. */
    forward: Effect.fnUntraced(function*(node: NodeKey, session: SessionId, box: Uint8Array) {
      const known = board.sessionOf(session, node)
      if (known === undefined) return yield* new UnknownSession({ session })
      const passes = rates.mayForward(node, yield* nowMs)
      metrics.onMessage(passes)
      if (!passes) return
      board.send(known.client === node ? known.connector : known.client, { _tag: "Sealed", session, box })
    }),
    /**
     * A connector has lost its sessions with browsers. A browser that is still being dialled does
     * not know its session yet, and ignores this.
     */
    browsersLost: (node: NodeKey) => Effect.sync(() => tellLost(node, (_, isBrowser) => isBrowser)),
    /** A connector has lost all sessions with nodes that it had accepted, but for the held ones. */
    sessionsLost: Effect.fnUntraced(function*(node: NodeKey, held: ReadonlyArray<string>) {
      const taken = new Set<string>()
      for (const { answer, id } of board.sessions.values()) if (yield* Deferred.isDone(answer)) taken.add(id)
      tellLost(node, ({ id }, isBrowser) => !isBrowser && taken.has(id) && !held.includes(id))
    })
  } as const
})

const refuse = (message: string) => new DialRefused({ code: "denied", message })
