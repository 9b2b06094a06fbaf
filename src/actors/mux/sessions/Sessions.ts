/**
 * The sessions of a node. A client makes them by dialling, and a connector by accepting an
 * invitation. They are kept permitted while in use, and ended when they are idle, revoked or
 * expired. Signaling is asked only if no live session reaches the peer.
 */
import { Effect } from "effect"
import type { NodeKey } from "../../../protocol/trust/NodeKey.ts"
import * as Tracing from "../../../services/telemetry/Tracing.ts"
import type { NodeContext } from "../../../transport/plane/FlowSession.ts"
import type { TicketKeys } from "../../../transport/quic/engine/Resumption.ts"
import { CloseCode } from "../../../transport/quic/QuicSession.ts"
import type { PathEvent } from "../../path/PathProberRpcs.ts"
import type { Relay } from "../../relay/RelayRpcs.ts"
import type { RpcsOf } from "../../runtime/actor/ActorAddress.ts"
import type { ActorRef } from "../../runtime/actor/ActorRef.ts"
import type { SessionId, SignalingEvent } from "../../signaling/RelaySignalingRpcs.ts"
import type { Signaling } from "../../signaling/SignalingRpcs.ts"
import type * as FlowTrace from "../FlowTrace.ts"
import type { MuxMetrics } from "../MuxMetrics.ts"
import type { Refused } from "../Refusals.ts"
import type { Draining } from "../StreamMuxRpcs.ts"
import { DrainState } from "./DrainState.ts"
import { HeldSessions } from "./HeldSessions.ts"
import * as InviteAnswers from "./InviteAnswers.ts"
import * as PathFeed from "./PathFeed.ts"
import * as SessionDials from "./SessionDials.ts"
import * as SessionDocuments from "./SessionDocuments.ts"
import * as SessionLife from "./SessionLife.ts"
import * as SessionRenewal from "./SessionRenewal.ts"
import * as SessionUpkeep from "./SessionUpkeep.ts"

/** Options of {@link make}. */
export interface Options {
  readonly node: NodeContext
  /** Keys for session resumption. Connector only. */
  readonly ticketKeys: TicketKeys
  readonly authorityKey: NodeKey
  /**
   * Succeeds when the directory's time is known. After a restart of the data plane, a dial may be
   * answered before that.
   */
  readonly timeKnown: Effect.Effect<void>
  readonly signaling: ActorRef<RpcsOf<typeof Signaling>>
  readonly relay: ActorRef<RpcsOf<typeof Relay>>
  readonly publish: (event: PathEvent) => void
  /** Called with each WebRTC signal of the peer, and with `null` when the session has ended. */
  readonly onIce: (session: SessionId, signal: Uint8Array | null) => void
  /** Called with each flow that was not opened. Connector only. */
  readonly onRefused: (refused: Refused) => void
  readonly metrics: MuxMetrics
  readonly traces: FlowTrace.FlowTraces
  /** Whether another actor takes browsers. */
  readonly webRtc: boolean
  /** Whether it declines new sessions from the start. Connector only. */
  readonly draining: boolean
  /** Runs an effect of this actor from a callback of the data plane. */
  readonly fork: (effect: Effect.Effect<void>) => void
}

/** Makes an empty set of sessions. Call `tick` once a second. */
export const make = (options: Options) => {
  const { authorityKey, fork, metrics, node, onIce, onRefused, relay, signaling, ticketKeys, timeKnown, traces } =
    options
  const held = new HeldSessions()
  const drain = new DrainState(options.draining)
  const documents = SessionDocuments.make({
    authorityKey,
    role: node.role,
    key: node.key,
    nowSeconds: () => node.nowSeconds()
  })
  const isReached = () => node.reach?.().reached ?? true
  const feed = PathFeed.make({ held, node, publish: options.publish })

  const { begin, kindOf, onKept, onSelected, routeOf } = SessionLife.make({
    held,
    node,
    drain,
    feed,
    relay,
    metrics,
    traces,
    onIce,
    onRefused,
    fork
  })
  const { dial, elsewhere, obtain } = SessionDials.make({ held, documents, signaling, timeKnown, begin })
  const renewal = SessionRenewal.make({ held, node, documents, signaling, relay, isReached, fork })
  const answer = InviteAnswers.make({
    held,
    drain,
    documents,
    signaling,
    declined: "invitation declined",
    full: "no room for another session",
    refuse: ({ over }) =>
      node.role !== "connector"
        ? "this node is not a connector"
        : over === "webrtc"
        ? "this connector accepts no browsers; set webrtc: auto in its configuration"
        : null,
    begin: Effect.fnUntraced(function*(opened, { clientName, session, ticket }) {
      const claim = ticketKeys.claim(opened.grant.clientKey, session, node.hostMs())
      if (claim._tag === "Spent") return "this session was already started once"
      yield* begin(opened, ticket, null, clientName, claim.ticketKey)
      return null
    })
  })
  const onInvite = Effect.fn("StreamMux.onInvite")(
    (invite: InviteAnswers.Invite) => answer(invite),
    Effect.catchAll((error) => Effect.logWarning("an invitation could not be answered", error.message))
  )

  const onSignal = (event: SignalingEvent): Effect.Effect<void> => {
    switch (event._tag) {
      case "Invite":
        if (event.over === "webrtc" && options.webRtc) return Effect.void // the WebRtcActor answers
        return Effect.sync(() => fork(Tracing.under(event.traceparent)(onInvite(event))))
      case "GrantReplaced":
        return Effect.sync(() => renewal.onGrantReplaced(event.session, event.grant, event.outage))
      case "Revoked":
        return Effect.sync(() => {
          for (const { session } of held) {
            if (session.peer.peerKey === event.node) session.close(CloseCode.denied, "the peer was removed")
            else if (node.key === event.node) session.close(CloseCode.denied, "this node was removed")
          }
        })
      case "Sealed":
        return Effect.sync(() => held.get(event.session)?.session.peer.onSealed(event.box, null, 0))
      case "TicketRenewed":
        return renewal.onTicketRenewed(event.session, event.ticket)
      case "SessionLost":
        return Effect.sync(() =>
          held.get(event.session)?.session.close(CloseCode.normal, "the connector was restarted")
        )
      case "Snapshot":
      case "RelaysChanged":
      case "BindingsLost":
      case "CredentialRenewed":
      case "Examine":
      case "GoAway":
        return Effect.void
    }
  }

  /** Opens all sessions again at a RelayActor that has just started, because it knows none. */
  const reopen = Effect.suspend(() =>
    Effect.forEach(
      held,
      ({ session: { id: session }, ticket }) =>
        Effect.ignore(relay.ask((client) => client.OpenSession({ session, ticket }))),
      { discard: true }
    )
  )

  return {
    obtain,
    elsewhere,
    reopen,
    onSignal,
    tick: SessionUpkeep.make({ held, node, feed, renewal, signaling, isReached, dial, fork }),
    /** Handles the directory's return. */
    onReturn: node.role === "connector" ? renewal.confirmAll : Effect.void,
    snapshot: feed.snapshot,
    setDirect: feed.setDirect,
    kindOf,
    routeOf,
    onSelected,
    onKept,
    get: (id: SessionId) => held.get(id)?.session,
    all: () => held.all().map(({ session }) => session),
    setDraining: (wanted: boolean): Draining => drain.set(wanted, held.all().map(({ session }) => session)),
    closeAll: (code: number, text: string) => {
      for (const { session } of held) session.close(code, text)
    }
  } as const
}
