/**
 * Keeps a node's sessions permitted: fetches new documents while a session is used, and takes those
 * that arrive by signaling.
 */
import { Effect, Either } from "effect"
import { LIFETIMES } from "../../../protocol/trust/Lifetimes.ts"
import type { Signed } from "../../../protocol/trust/Signed.ts"
import { RENEW_TICKET_AFTER_MS } from "../../../session/core/Renewals.ts"
import type { NodeContext } from "../../../transport/plane/FlowSession.ts"
import type { Relay } from "../../relay/RelayRpcs.ts"
import type { RpcsOf } from "../../runtime/actor/ActorAddress.ts"
import type { ActorRef } from "../../runtime/actor/ActorRef.ts"
import type { SessionId } from "../../signaling/RelaySignalingRpcs.ts"
import type { Signaling } from "../../signaling/SignalingRpcs.ts"
import type { Held, HeldSessions } from "./HeldSessions.ts"
import { internal } from "./SessionDials.ts"
import type { SessionDocuments } from "./SessionDocuments.ts"

/** How long before its end a grant is renewed, so that a relay has time to come back. */
const RENEW_BEFORE_SECONDS = LIFETIMES.grantRenewBefore
/**
 * How long before its end a connector renews a grant that the client has not renewed. The client
 * may be cut off from the relay while this connector is not.
 */
const SERVE_BEFORE_SECONDS = LIFETIMES.grantRenewBefore / 4
/**
 * How recently a client must have been heard for a connector to renew its grant. It sends something
 * every 25 s or more often. The session of a client that is gone ends with its grant.
 */
const HEARD_MS = 60_000
/** Most sessions that a connector renews at the same time when the directory is back. */
export const RENEWALS_AT_ONCE = 8
/** Shortest time between two renewals of one session. */
const RENEW_RETRY_MS = 5_000

/** Options of {@link make}. */
export interface Options {
  readonly held: HeldSessions
  readonly node: NodeContext
  readonly documents: SessionDocuments
  readonly signaling: ActorRef<RpcsOf<typeof Signaling>>
  readonly relay: ActorRef<RpcsOf<typeof Relay>>
  /** Whether the directory is reached. */
  readonly isReached: () => boolean
  readonly fork: (effect: Effect.Effect<void>) => void
}

/** Makes the renewals of one node's sessions. */
export const make = ({ documents, fork, held, isReached, node, relay, signaling }: Options) => {
  /** Fetches new documents of a session. */
  const renew = Effect.fnUntraced(function*(it: Held) {
    const { session } = it
    const renewed = yield* signaling.ask((client) => client.Renew({ ticket: it.ticket }))
    const opened = yield* Either.mapLeft(documents.open(renewed), internal)
    if (opened.ticket.session !== session.id) {
      return yield* Effect.fail(internal("the renewed grant is for another session"))
    }
    it.ticket = renewed.ticket
    it.ticketAt = node.now()
    session.setGrant(opened.grant, renewed.grant, opened.outage)
    yield* relay.ask((client) => client.OpenSession({ session: session.id, ticket: renewed.ticket }))
  })

  /**
   * Opens the session at the relay with the new ticket, which the other end has fetched. Otherwise
   * the relay would close this end when the ticket before expires.
   */
  const onTicketRenewed = (id: SessionId, signed: Signed): Effect.Effect<void> => {
    const it = held.get(id)
    const opened = documents.verify("ticket", signed)
    if (it === undefined || Either.isLeft(opened) || opened.right.session !== id) return Effect.void
    it.ticket = signed
    it.ticketAt = node.now()
    return Effect.ignore(relay.ask((client) => client.OpenSession({ session: id, ticket: signed })))
  }

  /**
   * Takes a grant that came by signaling. It comes from the directory itself, so unlike a grant
   * from a client it may also permit less than the one before.
   */
  const onGrantReplaced = (id: SessionId, signed: Signed, outage: Signed | undefined) => {
    const session = held.get(id)?.session
    if (session === undefined) return
    const opened = documents.verify("grant", signed)
    if (Either.isRight(opened)) return void session.setGrant(opened.right, signed, documents.outageOf(outage))
    const why = opened.left
    fork(Effect.logWarning("a new grant was refused").pipe(Effect.annotateLogs({ session: id, why })))
  }

  /**
   * Fetches new documents of all sessions. Rules may have changed while the directory was not
   * reached, and a client may be late or may not ask at all. A grant that permits nothing any more
   * cuts the flows. Connector only.
   */
  const confirmAll = Effect.suspend(() =>
    Effect.forEach(held.all(), (it) => Effect.ignore(renew(it)), {
      concurrency: RENEWALS_AT_ONCE,
      discard: true
    })
  )

  /** Whether it is time to renew the documents of a session. */
  const isDue = ({ renewAt, session, ticketAt }: Held, now: number): boolean => {
    if (now < renewAt || !isReached()) return false
    return node.role === "connector"
      ? session.leftSeconds < SERVE_BEFORE_SECONDS && session.peer.unheardMs < HEARD_MS
      : session.leftSeconds < RENEW_BEFORE_SECONDS || now - ticketAt >= RENEW_TICKET_AFTER_MS
  }

  /** Renews the documents of a session if it is time. */
  const onTick = (it: Held, now: number) => {
    if (!isDue(it, now)) return
    it.renewAt = now + RENEW_RETRY_MS
    const log = node.role === "client" ? Effect.logWarning : Effect.logDebug
    fork(
      Effect.catchAll(renew(it), (error) =>
        log("a grant could not be renewed").pipe(
          Effect.annotateLogs({ session: it.session.id, why: "message" in error ? error.message : error.reason })
        ))
    )
  }

  return { confirmAll, onGrantReplaced, onTick, onTicketRenewed } as const
}

/** Renewals of one node's sessions. */
export type SessionRenewal = ReturnType<typeof make>
