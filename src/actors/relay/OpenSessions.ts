/**
 * The tickets of the sessions that are open in the data plane. Each binding presents them to its
 * relay, also when it is made later.
 */
import { Effect, Either } from "effect"
import { tagFromHex } from "../../protocol/bytes/Frame.ts"
import * as Documents from "../../protocol/trust/Documents.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import type { Signed } from "../../protocol/trust/Signed.ts"
import type { SessionId } from "../signaling/RelaySignalingRpcs.ts"
import type { Ticket } from "./BindingLoop.ts"

/** A binding, or several of them, that presents tickets to a relay. */
export interface Presenter {
  readonly onTicket: (session: SessionId, ticket: Ticket, now: number) => Effect.Effect<void>
  readonly onTicketRemoved: (session: SessionId) => Effect.Effect<void>
}

/** Makes the sessions of the node with this key. There are none at first. */
export const make = (nodeKey: NodeKey) => {
  const tickets = new Map<SessionId, Ticket>()
  let hasMux = false

  return {
    /** Tickets of the sessions that are open now. */
    tickets: tickets as ReadonlyMap<SessionId, Ticket>,
    /**
     * Opens a session at the presenters' relays. The data plane has verified the ticket, and the
     * relay itself judges whether it is in force.
     */
    open: Effect.fnUntraced(
      function*(session: SessionId, signed: Signed, presenters: ReadonlyArray<Presenter>, now: number) {
        const decoded = Documents.decode("ticket", signed.payload)
        if (Either.isLeft(decoded)) {
          return yield* Effect.logWarning(`a session cannot be opened at the relay: ${decoded.left.message}`)
        }
        const { clientKey, clientTag, connectorTag } = decoded.right
        const ticket = { tag: tagFromHex(clientKey === nodeKey ? clientTag : connectorTag), ticket: signed }
        tickets.set(session, ticket)
        for (const it of presenters) yield* it.onTicket(session, ticket, now)
      }
    ),
    close: Effect.fnUntraced(function*(session: SessionId, presenters: ReadonlyArray<Presenter>) {
      tickets.delete(session)
      for (const it of presenters) yield* it.onTicketRemoved(session)
    }),
    /**
     * Drops the sessions of the data plane before. The first data plane that this actor sees
     * replaces none, and may have opened sessions here already, so these are kept.
     */
    onMuxStarted: Effect.fnUntraced(function*(presenters: ReadonlyArray<Presenter>) {
      if (hasMux) {
        for (const session of tickets.keys()) for (const it of presenters) yield* it.onTicketRemoved(session)
        tickets.clear()
      }
      hasMux = true
    })
  } as const
}
