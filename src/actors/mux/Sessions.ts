/**
 * The sessions of a node. A client makes them by dialling, and a connector by accepting an
 * invitation. They are kept permitted while in use, and ended when they are idle, revoked or
 * expired. Signaling is asked only if no live session reaches the peer.
 */
import { Deferred, Duration, Effect, Either, Exit } from "effect"
import type { Target, Verdict } from "../../protocol/flow/FlowWire.ts"
import * as PathKind from "../../protocol/path/PathKind.ts"
import { type PathRef, type Reason, RELAY } from "../../protocol/path/PathRef.ts"
import * as PeerLoss from "../../protocol/path/PeerLoss.ts"
import { LIFETIMES } from "../../protocol/trust/Lifetimes.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import type { Signed } from "../../protocol/trust/Signed.ts"
import * as Tracing from "../../services/telemetry/Tracing.ts"
import type { Asked, FlowWatch } from "../../transport/plane/ConnectorFlows.ts"
import { FlowSession, type FlowSessionEvents, type NodeContext } from "../../transport/plane/FlowSession.ts"
import type { TicketKeys } from "../../transport/quic/engine/Resumption.ts"
import { CloseCode, type CloseReason } from "../../transport/quic/QuicSession.ts"
import type { PathEvent } from "../path/PathProberRpcs.ts"
import type { Relay } from "../relay/RelayRpcs.ts"
import type { RpcsOf } from "../runtime/actor/ActorAddress.ts"
import type { ActorRef } from "../runtime/actor/ActorRef.ts"
import type { SessionId, SignalingEvent } from "../signaling/RelaySignalingRpcs.ts"
import type { Signaling } from "../signaling/SignalingRpcs.ts"
import * as FlowTrace from "./FlowTrace.ts"
import { type Held, HeldSessions } from "./HeldSessions.ts"
import type { MuxMetrics } from "./MuxMetrics.ts"
import type { Refused } from "./Refusals.ts"
import * as SessionDials from "./SessionDials.ts"
import * as SessionDocuments from "./SessionDocuments.ts"
import { DRAINING, type Draining } from "./StreamMuxRpcs.ts"

/**
 * How long a session without flows is kept, so that the next flow opens at once and on a path
 * already found.
 */
export const IDLE_SESSION_MS = LIFETIMES.idleSession * 1000
/**
 * How long after its last flow a session still counts as active for prober and status, because
 * another flow may follow. Each second of it costs ten packets in each direction, and as many at
 * the relay. A direct path is sought for longer (`PathMachine.SEEK_MS`).
 */
const ACTIVE_AFTER_FLOW_MS = 3_000
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
const RENEWALS_AT_ONCE = 8
/** Shortest time between two renewals of one session. */
const RENEW_RETRY_MS = 5_000
/**
 * Age at which a ticket is renewed although the grant is fresh. Each change of rules brings a new
 * grant but no ticket, so where rules change often the grant alone would never cause a renewal.
 */
const RENEW_TICKET_AFTER_MS = LIFETIMES.ticket * 500
/**
 * How long a peer may owe an answer while flows are open before another dial finds out whether it
 * has lost the session.
 */
const REDIAL_AFTER_MS = 3_000
/** Shortest time between two dials that check the same silent session. */
const REDIAL_EVERY_MS = 10_000

/**
 * How long asking for a peer's presence may take. The next question follows after
 * `PeerLoss.ASK_EVERY_MS`.
 */
const PRESENCE_DEADLINE = Duration.millis(PeerLoss.ASK_EVERY_MS)

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
  const { authorityKey, fork, metrics, node, onIce, relay, signaling, ticketKeys, timeKnown, traces } = options
  const held = new HeldSessions()
  const documents = SessionDocuments.make({
    authorityKey,
    role: node.role,
    key: node.key,
    nowSeconds: () => node.nowSeconds()
  })
  let isDraining = options.draining

  /** Whether the prober may learn of this event. With relays only, it must not probe. */
  const isPublic = ({ _tag }: PathEvent) => node.router.direct || (_tag !== "PeerCandidates" && _tag !== "PeerOpened")
  const publish = (event: PathEvent) => {
    if (isPublic(event)) options.publish(event)
  }
  const isActive = (session: FlowSession) => session.flows > 0 || node.now() - session.lastFlowAt < ACTIVE_AFTER_FLOW_MS

  const onUp = (session: FlowSession) => {
    const it = held.get(session.id)
    if (it === undefined) return
    it.active = isActive(session)
    it.upAt = node.now()
    if (isDraining) session.goAway(DRAINING)
    Deferred.unsafeDone(it.up, Exit.succeed(session))
    const { path, peer: { peerName: peer, role } } = session
    publish({ _tag: "SessionUp", session: session.id, role, peer, path, active: it.active })
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
    publish({ _tag: "SessionDown", session: session.id })
    onIce(session.id, null)
    fork(
      Effect.logInfo("session down").pipe(
        Effect.annotateLogs({ session: session.id, peer: session.peer.peerName, why: reason.text || reason.kind }),
        Effect.zipRight(Effect.ignore(relay.ask((client) => client.CloseSession({ session: session.id }))))
      )
    )
  }
  const kindOf = ({ path, peerLeg }: FlowSession) => PathKind.of(path, node.leg(), peerLeg)
  const routeOf = (id: SessionId): FlowTrace.Route | null => {
    const it = held.get(id)
    return it === undefined ? null : { kind: kindOf(it.session), why: it.why }
  }
  const onMoved = (it: Held, path: PathRef) => {
    const kind = PathKind.of(path, node.leg(), it.session.peerLeg)
    metrics.onSwitch(kind, it.selected)
    traces.onSwitch(it.session.id, { kind, why: it.selected })
    if (!PathKind.isDirect(kind) || it.wasDirect) return
    it.wasDirect = true
    metrics.onFirstDirect((node.now() - it.upAt) / 1000)
  }
  const serve = (id: SessionId, asked: Asked): FlowWatch =>
    FlowTrace.serve(traces, id, routeOf(id), asked, metrics.resources, (verdict) => {
      metrics.onFlow(verdict.code, null)
      const { host, port } = asked
      if (verdict.code !== "accepted") {
        return options.onRefused({ host, port, peer: held.get(id)?.session.peer.peerName ?? null, verdict })
      }
      fork(Effect.logDebug("flow").pipe(Effect.annotateLogs({ session: id, host, port, verdict: verdict.code })))
    })
  const eventsOf = (id: SessionId): FlowSessionEvents => ({
    onUp,
    onDown,
    onFlow: (asked) => serve(id, asked),
    onCandidates: (seq, list, mapping) => {
      const event = { _tag: "PeerCandidates" as const, session: id, seq, list, mapping }
      const it = held.get(id)
      if (it !== undefined && seq >= (it.candidates?.seq ?? 0)) it.candidates = event
      publish(event)
    },
    onOpened: (opened) => publish({ _tag: "PeerOpened", session: id, opened }),
    onCandidatesAck: (seq) => publish({ _tag: "CandidatesAcked", session: id, seq }),
    onPing: (path) => publish({ _tag: "PingSeen", session: id, path }),
    onPong: (path, txId, rttMs, observed) => {
      metrics.onPong(PathKind.of(path, node.leg(), held.get(id)?.session.peerLeg ?? null), rttMs)
      publish({ _tag: "Pong", session: id, path, txId, rttMs, observed })
    },
    onIce: (signal) => onIce(id, signal),
    onHeard: (path) => publish({ _tag: "Heard", session: id, path }),
    onTraffic: (moving) => publish({ _tag: "Traffic", session: id, moving }),
    onSwitchRequest: (reason) => publish({ _tag: "SwitchRequested", session: id, reason }),
    onPath: (path) => {
      const it = held.get(id)
      if (it !== undefined) onMoved(it, path)
      if (node.role === "connector") publish({ _tag: "PeerSelected", session: id, path })
    }
  })

  const isReached = () => node.reach?.().reached ?? true

  const begin = Effect.fnUntraced(function*(
    { grant, outage, ticket: opened }: SessionDocuments.Opened,
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

  const { dial, elsewhere, obtain } = SessionDials.make({ held, documents, signaling, timeKnown, begin })

  /** Fetches new documents of a session. */
  const renew = Effect.fnUntraced(function*(it: Held) {
    const { session } = it
    const renewed = yield* signaling.ask((client) => client.Renew({ ticket: it.ticket }))
    const opened = yield* Either.mapLeft(documents.open(renewed), SessionDials.internal)
    if (opened.ticket.session !== session.id) {
      return yield* Effect.fail(SessionDials.internal("the renewed grant is for another session"))
    }
    it.ticket = renewed.ticket
    it.ticketAt = node.now()
    session.setGrant(opened.grant, renewed.grant, opened.outage)
    yield* relay.ask((client) => client.OpenSession({ session: session.id, ticket: renewed.ticket }))
  })

  const onInvite = Effect.fn("StreamMux.onInvite")(function*(invite: SignalingEvent & { readonly _tag: "Invite" }) {
    const { session } = invite
    const decline = (reason: string, log = Effect.logWarning) =>
      Effect.zipRight(
        log("invitation declined").pipe(Effect.annotateLogs({ session, reason })),
        signaling.ask((client) => client.Decline({ session, reason }))
      )
    if (node.role !== "connector") return yield* decline("this node is not a connector")
    // The relay invites a draining connector again and again, which is no trouble.
    if (isDraining) return yield* decline(DRAINING, Effect.logDebug)
    if (invite.over === "webrtc") {
      return yield* decline("this connector accepts no browsers; set webrtc: auto in its configuration")
    }
    if (held.isFull) return yield* decline("no room for another session")
    const opened = documents.open(invite)
    if (Either.isLeft(opened)) return yield* decline(opened.left)
    if (opened.right.ticket.session !== session) return yield* decline("the ticket is for another session")
    if (!held.has(session)) {
      const claim = ticketKeys.claim(opened.right.grant.clientKey, session, node.hostMs())
      if (claim._tag === "Spent") return yield* decline("this session was already started once")
      yield* begin(opened.right, invite.ticket, null, invite.clientName, claim.ticketKey)
    }
    return yield* signaling.ask((client) => client.Ready({ session }))
  }, Effect.catchAll((error) => Effect.logWarning("an invitation could not be answered", error.message)))

  const onSignal = (event: SignalingEvent): Effect.Effect<void> => {
    switch (event._tag) {
      case "Invite":
        if (event.over === "webrtc" && options.webRtc) return Effect.void // the WebRtcActor answers
        return Effect.sync(() => fork(Tracing.under(event.traceparent)(onInvite(event))))
      case "GrantReplaced":
        return Effect.sync(() => onGrantReplaced(event.session, event.grant, event.outage))
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
        return onTicketRenewed(event.session, event.ticket)
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

  const askPresence = (it: Held) =>
    signaling.ask((client) => client.Presence({ ticket: it.ticket }), { deadline: PRESENCE_DEADLINE }).pipe(
      Effect.map((presence) => {
        it.loss = PeerLoss.onPresence(it.loss, node.now(), presence)
      }),
      Effect.ignore // the relay cannot be asked now, so nothing is known
    )

  /** Ends a session whose connector is gone. Returns whether it did. Client only. */
  const endIfLost = (it: Held, now: number): boolean => {
    const { peer } = it.session
    const [step, loss] = PeerLoss.onTick(it.loss, now, peer.silentMs, {
      canHear: node.leg() !== null,
      isReplaced: held.isReplaced(it, now)
    })
    it.loss = loss
    if (step === "ask") fork(askPresence(it))
    if (step === "wait" || step === "ask") return false
    it.session.close(CloseCode.normal, `${peer.peerName} ${LOST[step]}`)
    return true
  }

  const tick = Effect.sync(() => {
    const now = node.now()
    for (const it of held) {
      const { session } = it
      session.peer.tick()
      const active = isActive(session)
      if (active !== it.active && session.peer.up) {
        it.active = active
        publish({ _tag: "Activity", session: session.id, active })
      }
      if (session.standing() !== null) {
        session.close(CloseCode.denied, isReached() ? EXPIRED : `${EXPIRED}, and the relay cannot be reached`)
      } else if (session.flows === 0 && now - session.lastFlowAt > IDLE_SESSION_MS) {
        session.close(CloseCode.normal, "idle")
      } else if (node.role === "client" && endIfLost(it, now)) {
        continue
      } else if (held.isSuperseded(it, now)) {
        session.close(CloseCode.normal, "the peer answers only in a newer session")
      } else if (
        it.target !== null && session.flows > 0 && session.peer.silentMs >= REDIAL_AFTER_MS && now >= it.redialAt
      ) {
        it.redialAt = now + REDIAL_EVERY_MS
        fork(Effect.ignore(dial(it.target)))
      } else if (isDue(it, now)) {
        it.renewAt = now + RENEW_RETRY_MS
        fork(
          Effect.catchAll(
            renew(it),
            (error) =>
              (node.role === "client" ? Effect.logWarning : Effect.logDebug)("a grant could not be renewed").pipe(
                Effect.annotateLogs({ session: session.id, why: "message" in error ? error.message : error.reason })
              )
          )
        )
      }
    }
  })

  const ofSession = ({ active, candidates, session }: Held): ReadonlyArray<PathEvent> => {
    const { path, peer: { peerName: peer, role } } = session
    // A client that uses only relays is about to leave a direct path.
    const chosen = node.router.direct || role === "connector" || path.kind === "relay" ? path : RELAY
    const up: PathEvent = { _tag: "SessionUp", session: session.id, role, peer, path: chosen, active }
    const traffic: PathEvent = { _tag: "Traffic", session: session.id, moving: session.peer.moving }
    return [up, traffic, ...(candidates === null ? [] : [candidates])].filter(isPublic)
  }
  /** Lists the live sessions and their peers' candidates, for a prober that subscribes. */
  const snapshot = (): ReadonlyArray<PathEvent> =>
    held.all().filter(({ session }) => session.peer.up).flatMap(ofSession)

  /**
   * Allows direct paths, or closes them. When they are closed, a client moves to the home relay,
   * and a connector asks its clients to move. The prober begins with each session again, so it
   * offers this host's addresses again.
   */
  const setDirect = (allowed: boolean) => {
    if (node.router.direct === allowed) return
    for (const it of held) {
      it.why = allowed ? it.selected : "relay_only"
      if (allowed || it.session.path.kind !== "direct") continue
      const { peer } = it.session
      if (node.role === "connector") peer.sendOnAllPaths({ _tag: "Switch", reason: "path_failed" })
      else {
        it.selected = "relay_only"
        peer.select(RELAY)
      }
    }
    node.router.direct = allowed
    for (const it of held) {
      if (!it.session.peer.up) continue
      publish({ _tag: "SessionDown", session: it.session.id })
      for (const event of ofSession(it)) publish(event)
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
    tick,
    /** Handles the directory's return. */
    onReturn: node.role === "connector" ? confirmAll : Effect.void,
    snapshot,
    setDirect,
    kindOf,
    routeOf,
    /** Records why the next move of this session happens. Client only. */
    onSelected: (id: SessionId, reason: Reason) => {
      const it = held.get(id)
      if (it !== undefined) it.selected = it.why = reason
    },
    /** Records why this session's path is kept. */
    onKept: (id: SessionId, why: Reason) => {
      const it = held.get(id)
      if (it === undefined || !node.router.direct) return
      it.why = why
      traces.onKept(id, { kind: kindOf(it.session), why })
    },
    get: (id: SessionId) => held.get(id)?.session,
    all: () => held.all().map(({ session }) => session),
    /**
     * Declines new sessions from now on and asks clients for no more flows in the open ones, or
     * takes new sessions again.
     */
    setDraining: (wanted: boolean): Draining => {
      const sessions = held.all().map(({ session }) => session)
      if (wanted && !isDraining) { for (const session of sessions) session.goAway(DRAINING) }
      isDraining = wanted
      return { sessions: sessions.length, flows: sessions.reduce((sum, { flows }) => sum + flows, 0) }
    },
    closeAll: (code: number, text: string) => {
      for (const { session } of held) session.close(code, text)
    }
  } as const
}

const EXPIRED = "the grant has expired"

/** Why a session with a lost connector ends, after the connector's name. */
const LOST = {
  absent: "has left the relay and does not answer",
  forgotten: "is connected to the relay, but answers nothing in this session",
  replaced: "answers nothing in this session, and another connector does"
} as const
