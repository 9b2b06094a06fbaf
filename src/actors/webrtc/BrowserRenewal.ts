/** Keeps a connector's sessions with browsers permitted, by documents that come by signaling. */
import { Effect, Either } from "effect"
import type { Signed } from "../../protocol/trust/Signed.ts"
import type { SessionTable } from "../../session/core/SessionTable.ts"
import type { BrowserSession } from "../../transport/webrtc/BrowserSession.ts"
import type { SessionDocuments } from "../mux/sessions/SessionDocuments.ts"
import { RENEWALS_AT_ONCE } from "../mux/sessions/SessionRenewal.ts"
import type { RpcsOf } from "../runtime/actor/ActorAddress.ts"
import type { ActorRef } from "../runtime/actor/ActorRef.ts"
import type { SessionId } from "../signaling/RelaySignalingRpcs.ts"
import type { Signaling } from "../signaling/SignalingRpcs.ts"

const BRIEF = { deadline: "2 seconds" } as const

/** A session whose documents are renewed. */
export interface Renewable {
  readonly session: Pick<BrowserSession, "setGrant">
  /** The signed ticket, with which the session is renewed. */
  ticket: Signed
}

/** Options of {@link make}. */
export interface Options {
  readonly held: SessionTable<Renewable>
  readonly documents: Pick<SessionDocuments, "verify">
  readonly signaling: ActorRef<RpcsOf<typeof Signaling>>
}

/** Makes the renewals of one connector's sessions with browsers. */
export const make = ({ documents, held, signaling }: Options) => {
  /**
   * Fetches new grants of all sessions when the directory is back, because rules may have changed
   * meanwhile. A grant that permits nothing any more cuts the flows.
   */
  const confirmAll = Effect.suspend(() =>
    Effect.forEach(
      held.all(),
      (it) =>
        signaling.ask((client) => client.Renew({ ticket: it.ticket }), BRIEF).pipe(
          Effect.map((renewed) => {
            const grant = documents.verify("grant", renewed.grant)
            it.ticket = renewed.ticket
            if (Either.isRight(grant)) it.session.setGrant(grant.right)
          }),
          Effect.ignore // the page renews its grant, or the session ends with it
        ),
      { concurrency: RENEWALS_AT_ONCE, discard: true }
    )
  )

  /** Takes a grant that came by signaling. */
  const onGrantReplaced = (id: SessionId, signed: Signed): Effect.Effect<void> =>
    Effect.suspend(() => {
      const session = held.get(id)?.session
      const grant = documents.verify("grant", signed)
      if (session === undefined) return Effect.void
      if (Either.isRight(grant)) return Effect.sync(() => session.setGrant(grant.right))
      return Effect.logWarning("a new grant was refused").pipe(
        Effect.annotateLogs({ session: id, why: grant.left })
      )
    })
  /** Takes the ticket that the page has fetched. */
  const onTicketRenewed = (id: SessionId, ticket: Signed) => {
    const it = held.get(id)
    if (it !== undefined) it.ticket = ticket
  }

  return { confirmAll, onGrantReplaced, onTicketRenewed } as const
}
