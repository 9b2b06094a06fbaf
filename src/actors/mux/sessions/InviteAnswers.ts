/**
 * A connector's answers to the relay's invitations. It verifies the documents, begins the session
 * and says that it is ready, or declines with the reason.
 */
import { type Duration, Effect, Either } from "effect"
import type { SessionTable } from "../../../session/core/SessionTable.ts"
import type { RpcsOf } from "../../runtime/actor/ActorAddress.ts"
import type { ActorRef } from "../../runtime/actor/ActorRef.ts"
import type { SignalingEvent } from "../../signaling/RelaySignalingRpcs.ts"
import type { Signaling } from "../../signaling/SignalingRpcs.ts"
import { DRAINING } from "../StreamMuxRpcs.ts"
import type { DrainState } from "./DrainState.ts"
import type { Opened, SessionDocuments } from "./SessionDocuments.ts"

/** An invitation to a session. */
export type Invite = SignalingEvent & { readonly _tag: "Invite" }

/** Options of {@link make}. */
export interface Options<E, Entry> {
  readonly held: SessionTable<Entry>
  readonly drain: DrainState
  readonly documents: SessionDocuments
  readonly signaling: ActorRef<RpcsOf<typeof Signaling>>
  /** How long an answer to the relay may take. If omitted, the default of calls. */
  readonly deadline?: Duration.DurationInput
  /** Log message when an invitation is declined. */
  readonly declined: string
  /** Reason to decline when no other session fits. */
  readonly full: string
  /** Reason to decline this invitation from the start. `null` if there is none. */
  readonly refuse: (invite: Invite) => string | null
  /** Begins the session. Returns the reason if it cannot, otherwise `null`. */
  readonly begin: (opened: Opened, invite: Invite) => Effect.Effect<string | null, E>
}

/** Makes a function that answers invitations. */
export const make = <E, Entry>(options: Options<E, Entry>) => {
  const { begin, deadline, declined, documents, drain, full, held, refuse, signaling } = options
  const brief = deadline === undefined ? {} : { deadline }
  return Effect.fnUntraced(function*(invite: Invite) {
    const { session } = invite
    const decline = (reason: string, log = Effect.logWarning) =>
      Effect.zipRight(
        log(declined).pipe(Effect.annotateLogs({ session, reason })),
        signaling.ask((client) => client.Decline({ session, reason }), brief)
      )
    // The relay invites a draining connector again and again, which is no trouble.
    if (drain.isOn) return yield* decline(DRAINING, Effect.logDebug)
    const refused = refuse(invite)
    if (refused !== null) return yield* decline(refused)
    if (held.isFull) return yield* decline(full)
    const opened = documents.open(invite)
    if (Either.isLeft(opened)) return yield* decline(opened.left)
    if (opened.right.ticket.session !== session) return yield* decline("the ticket is for another session")
    const failed = held.has(session) ? null : yield* begin(opened.right, invite)
    if (failed !== null) return yield* decline(failed)
    return yield* signaling.ask((client) => client.Ready({ session }), brief)
  })
}
