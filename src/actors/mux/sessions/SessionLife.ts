/**
 * Begins a node's sessions, and handles that they come up and end. A flow that waits for a session
 * learns of both.
 */
import { Deferred, Effect, Exit } from "effect"
import type { Target, Verdict } from "../../../protocol/flow/FlowWire.ts"
import * as PeerLoss from "../../../protocol/path/PeerLoss.ts"
import type { Signed } from "../../../protocol/trust/Signed.ts"
import { FlowSession } from "../../../transport/plane/FlowSession.ts"
import { CloseCode, type CloseReason } from "../../../transport/quic/QuicSession.ts"
import type { Relay } from "../../relay/RelayRpcs.ts"
import type { RpcsOf } from "../../runtime/actor/ActorAddress.ts"
import type { ActorRef } from "../../runtime/actor/ActorRef.ts"
import type { SessionId } from "../../signaling/RelaySignalingRpcs.ts"
import type { DrainState } from "./DrainState.ts"
import type { Held } from "./HeldSessions.ts"
import type { Opened } from "./SessionDocuments.ts"
import * as SessionEvents from "./SessionEvents.ts"

/** Options of {@link make}. */
export interface Options extends Omit<SessionEvents.Options, "onUp" | "onDown" | "onIce"> {
  readonly drain: DrainState
  readonly relay: ActorRef<RpcsOf<typeof Relay>>
  /** Called with each WebRTC signal of the peer, and with `null` when the session has ended. */
  readonly onIce: (session: SessionId, signal: Uint8Array | null) => void
}

/** Makes the beginnings and ends of one node's sessions. */
export const make = (options: Options) => {
  const { drain, feed, fork, held, node, onIce, relay } = options
  const onUp = (session: FlowSession) => {
    const it = held.get(session.id)
    if (it === undefined) return
    it.active = feed.isActive(session)
    it.upAt = node.now()
    drain.onUp(session)
    Deferred.unsafeDone(it.up, Exit.succeed(session))
    feed.onUp(it)
    const { peer: { peerName: peer } } = session
    fork(Effect.logInfo("session up").pipe(Effect.annotateLogs({ session: session.id, peer })))
  }
  const onDown = (session: FlowSession, reason: CloseReason) => {
    const it = held.remove(session.id)
    if (it === undefined) return
    const silent = reason.kind === "local" && reason.code === CloseCode.handshakeTimeout
    const verdict: Verdict = silent
      ? { code: "timed_out", reason: "no answer from the connector" }
      : { code: "unreachable", reason: reason.text }
    Deferred.unsafeDone(it.up, Exit.fail(verdict))
    feed.publish({ _tag: "SessionDown", session: session.id })
    onIce(session.id, null)
    fork(
      Effect.logInfo("session down").pipe(
        Effect.annotateLogs({ session: session.id, peer: session.peer.peerName, why: reason.text || reason.kind }),
        Effect.zipRight(Effect.ignore(relay.ask((client) => client.CloseSession({ session: session.id }))))
      )
    )
  }
  const { eventsOf, ...rest } = SessionEvents.make({ ...options, onUp, onDown })

  /** Opens a session at the relay and begins it. A connector passes the key for its resumption. */
  const begin = Effect.fnUntraced(function*(
    { grant, outage, ticket: opened }: Opened,
    ticket: Signed,
    target: Target | null,
    peerWritten: string | undefined,
    ticketKey: Uint8Array | null = null
  ) {
    const { session: id } = opened
    const up = yield* Deferred.make<FlowSession, Verdict>()
    yield* relay.ask((client) => client.OpenSession({ session: id, ticket }))
    const begun = { grant, outage: outage?.document ?? null, ticket: opened }
    const session = new FlowSession(node, begun, eventsOf(id), ticketKey, peerWritten)
    const selected = node.role === "connector" ? "peer_selected" : "relay_first"
    const times = { renewAt: 0, upAt: Infinity, redialAt: 0 }
    const it: Held = {
      session,
      up,
      ticket,
      ticketAt: node.now(),
      active: true,
      target,
      selected,
      why: node.router.direct ? selected : "relay_only",
      candidates: null,
      wasDirect: false,
      loss: PeerLoss.start,
      ...times
    }
    held.add(id, it)
    return it
  })

  return { ...rest, begin } as const
}
