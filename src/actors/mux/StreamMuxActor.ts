/**
 * A node's data plane: its UDP sockets, its sessions with their flows, and its local listeners
 * (client) or its dials (connector). `transport` moves packets and bytes in callbacks of this
 * thread, without Effect. The code here runs once for a flow or a session, or once a second. There
 * is no inbox: all state is changed by synchronous calls on this one thread, in order of arrival.
 */
import { Deferred, Effect, Either, FiberSet, PubSub, Redacted, Schedule, Schema, Stream } from "effect"
import { familyOf, type SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import * as IceSignal from "../../protocol/candidate/IceSignal.ts"
import { LocalListener } from "../../protocol/flow/LocalListener.ts"
import { LARGEST_BYTES } from "../../protocol/path/PathMtu.ts"
import { RELAY, viaRelay } from "../../protocol/path/PathRef.ts"
import { DirectoryTime } from "../../protocol/trust/DirectoryTime.ts"
import type { Reach } from "../../protocol/trust/Outage.ts"
import { HostClock } from "../../services/host/HostClock.ts"
import * as Authority from "../../services/identity/Authority.ts"
import * as NodeState from "../../services/identity/NodeState.ts"
import * as Pki from "../../services/identity/Pki.ts"
import { Places } from "../../transport/flow/Places.ts"
import { Trim } from "../../transport/flow/Trim.ts"
import type { NodeContext } from "../../transport/plane/FlowSession.ts"
import { PacketRouter } from "../../transport/plane/PacketRouter.ts"
import { native } from "../../transport/quic/engine/Binding.ts"
import { engine } from "../../transport/quic/engine/QuicheEngine.ts"
import { SavedSessions, TicketKeys } from "../../transport/quic/engine/Resumption.ts"
import { CloseCode } from "../../transport/quic/QuicSession.ts"
import { afterPoll } from "../../transport/udp/AfterPoll.ts"
import type { PathEvent } from "../path/PathProberRpcs.ts"
import { type LegKind, Relay } from "../relay/RelayRpcs.ts"
import * as Actor from "../runtime/actor/Actor.ts"
import { Peers } from "../runtime/actor/Peers.ts"
import * as Self from "../runtime/actor/Self.ts"
import type { SessionId } from "../signaling/RelaySignalingRpcs.ts"
import { type NodeEvent, Signaling } from "../signaling/SignalingRpcs.ts"
import { type ControlDatagram, SendForbidden } from "../stun/StunRpcs.ts"
import * as FlowOpener from "./FlowOpener.ts"
import * as FlowTrace from "./FlowTrace.ts"
import { ForeignPrograms } from "./ForeignPrograms.ts"
import * as Guesses from "./Guesses.ts"
import * as Listeners from "./Listeners.ts"
import { MuxMetrics } from "./MuxMetrics.ts"
import * as PacketLink from "./PacketLink.ts"
import * as PathOrders from "./PathOrders.ts"
import { Refusals, type Refused } from "./Refusals.ts"
import * as Sessions from "./sessions/Sessions.ts"
import * as Sockets from "./Sockets.ts"
import { type IceEvent, LINK_ADDRESS, StreamMux, StreamMuxRpcs } from "./StreamMuxRpcs.ts"

/** Settings of the StreamMuxActor. */
export const Config = Schema.Struct({
  stateDir: Schema.String,
  role: Schema.Literal("client", "connector"),
  carrier: Schema.Literal("auto", "webtransport", "websocket"),
  /** A proxy's URL, `none`, or `null` if the environment decides. */
  proxy: Schema.optionalWith(Schema.NullOr(Schema.String), { default: () => null }),
  /** PEM file of authorities beside the public ones. `null` if there is none. */
  ca: Schema.optionalWith(Schema.NullOr(Schema.String), { default: () => null }),
  /** Whether direct paths are allowed at the start; see `SetDirect`. */
  direct: Schema.Boolean,
  /** Whether the WebRtcActor runs, which takes browsers. */
  webRtc: Schema.Boolean,
  /** Whether it drains from the start; see `SetDraining`. */
  draining: Schema.optionalWith(Schema.Boolean, { default: () => false }),
  /** UDP port to bind. 0 stands for any free one. */
  udpPort: Schema.Int,
  /**
   * How long grants count while the directory is not reached, in seconds from their issue; 0 if
   * they never do. `null` on a client, where the outage permit decides.
   */
  offlineAccess: Schema.optionalWith(Schema.NullOr(Schema.Int), { default: () => null }),
  /** Listeners to open at the start. */
  listeners: Schema.Array(LocalListener),
  /**
   * Most flows at the same time, and most flows of one client. `flowsPerClient` applies to
   * connectors.
   */
  limits: Schema.Struct({ flows: Schema.Int, flowsPerClient: Schema.Int })
})
export type Config = typeof Config.Type

/** How many path events a slow reader may fall behind. Then it loses the oldest. */
const EVENTS_CAPACITY = 4096
/** How many control datagrams a slow reader may fall behind. Then it loses the oldest. */
const DATAGRAMS_CAPACITY = 256
/** How many ICE events a slow reader may fall behind. Then it loses the oldest. */
const ICE_CAPACITY = 1024
const TICK = "1 second"
/**
 * Delay before the relay is notified again of this data plane's sessions, if it could not be
 * reached.
 */
const TELL_AGAIN_AFTER = "1 second"
/**
 * Largest segment to send: a QUIC packet of the largest size, with the longer of the two frame
 * headers.
 */
const SEGMENT_BYTES = LARGEST_BYTES + 8

const make = Effect.fnUntraced(function*(config: Config) {
  native() // a library that cannot be loaded is a fault of this thread, not of the first session
  const node = yield* NodeState.load(config.stateDir)
  const signaling = yield* Peers.ref(Signaling)
  const relay = yield* Peers.ref(Relay)
  const fork = yield* FiberSet.makeRuntime()
  const events = yield* PubSub.sliding<PathEvent>(EVENTS_CAPACITY)
  const control = {
    stun: yield* PubSub.sliding<ControlDatagram>(DATAGRAMS_CAPACITY),
    relay: yield* PubSub.sliding<ControlDatagram>(DATAGRAMS_CAPACITY)
  }
  const ice = yield* PubSub.sliding<IceEvent>(ICE_CAPACITY)
  const onIce = (session: SessionId, bytes: Uint8Array | null) => {
    const signal = bytes === null ? null : IceSignal.decode(bytes)
    if (bytes === null || signal !== null) ice.unsafeOffer({ session, signal })
  }
  const publish = (event: PathEvent) => {
    if (event._tag === "SessionDown") guesses.sockets.forget(event.session)
    events.unsafeOffer(event)
  }

  const router = new PacketRouter((kind, bytes, address, port) => {
    control[kind].unsafeOffer({
      from: { host: address === "" ? LINK_ADDRESS.host : address, port: port === 0 ? LINK_ADDRESS.port : port },
      bytes: Uint8Array.from(bytes)
    })
  })
  router.direct = config.direct
  const sockets = yield* Sockets.make({ router, port: config.udpPort, segment: SEGMENT_BYTES })

  // This clock is for people. Documents are judged by `time`.
  const clock = yield* Effect.clock
  const hostMs = (yield* HostClock).now
  const time = new DirectoryTime(hostMs)
  const timeKnown = yield* Deferred.make<void>()
  let reach: Reach = { reached: true, sinceMs: hostMs() }
  let { offlineAccess } = config
  let leg: LegKind | null = null
  const places = new Places({ flows: config.limits.flows })
  const trim = new Trim()
  const tick = Effect.sync(() => {
    places.tick()
    trim.tick(places.size, performance.now())
  })
  yield* Self.fork(Effect.repeat(tick, Schedule.spaced(TICK)))
  const context: NodeContext = {
    role: config.role,
    key: node.identity.key,
    router,
    engine,
    certificate: yield* node.identity.certificate,
    privateKey: Redacted.value(node.identity.privateKey),
    savedSessions: new SavedSessions(),
    keyOfCertificate: (der) => Either.getOrElse(Pki.publicKeyOfCert(der), () => null),
    now: () => performance.now(),
    hostMs,
    nowSeconds: () => time.nowSeconds(),
    reach: () => reach,
    maxOutageSeconds: () => offlineAccess ?? Infinity,
    openGrant: (signed) =>
      Either.mapLeft(
        Authority.verify("grant", signed, node.relay.authorityKey, time.nowSeconds()),
        ({ message }) => message
      ),
    openOutage: (signed) =>
      Either.mapLeft(
        Authority.verify("outage", signed, node.relay.authorityKey, time.nowSeconds()),
        ({ message }) => message
      ),
    leg: () => leg,
    flowLimits: { places, flowsPerClient: config.limits.flowsPerClient }
  }
  const metrics = new MuxMetrics()
  const traces = yield* FlowTrace.make
  const refusals = new Refusals()
  const onRefused = (refused: Refused) => void fork(refusals.onRefused(refused, clock.unsafeCurrentTimeMillis()))
  const sessions = Sessions.make({
    node: context,
    ticketKeys: new TicketKeys(),
    onRefused,
    metrics,
    traces,
    webRtc: config.webRtc,
    draining: config.draining,
    authorityKey: node.relay.authorityKey,
    timeKnown: Deferred.await(timeKnown),
    onIce,
    signaling,
    relay,
    publish,
    fork: (effect) => void fork(effect)
  })
  const peerOf = (session: SessionId) => sessions.get(session)?.peer
  const guesses = yield* Guesses.make({ router, segment: SEGMENT_BYTES, publish, peerOf })
  const self = yield* Self.Self
  const { all, kindOf } = sessions
  const foreign = new ForeignPrograms()
  yield* self.exposeMetrics(() => [...metrics.read({ router, sessions: all, kindOf }), ...foreign.read()])
  yield* Effect.addFinalizer(() =>
    Effect.zipRight(
      Effect.sync(() => sessions.closeAll(CloseCode.goaway, "this node stops")),
      Effect.sleep("50 millis")
    )
  )

  const link = yield* PacketLink.make({
    node,
    stateDir: config.stateDir,
    carrier: config.carrier,
    proxy: config.proxy,
    ca: config.ca,
    onFrame: (frame) => router.onLinkFrames(frame)
  })
  const flowOpener = yield* FlowOpener.make({
    obtain: sessions.obtain,
    elsewhere: sessions.elsewhere,
    routeOf: sessions.routeOf,
    onRefused: ({ forward, host, port }, peer, verdict) => {
      if (forward !== null) metrics.onForwardReset(forward, `${host}:${port}`, verdict.code)
      onRefused({ host, port, forward, peer, verdict })
    },
    metrics,
    traces
  })
  const listeners = yield* Listeners.make(config.listeners, {
    places,
    onRequest: (request) => void fork(flowOpener(request)),
    onForeign: (reason, address) => void fork(foreign.onForeign(reason, address, clock.unsafeCurrentTimeMillis()))
  })

  const onSignal = (event: NodeEvent) => {
    if (event._tag === "TimeLearned") {
      time.set(event.offsetMs)
      return Deferred.succeed(timeKnown, undefined)
    }
    if (event._tag !== "ReachChanged") return sessions.onSignal(event)
    const isBack = event.reached && !reach.reached
    reach = event
    return isBack ? Effect.sync(() => void fork(sessions.onReturn)) : Effect.void
  }
  yield* Self.fork(Stream.runForEach(signaling.subscribe((client) => client.Events()), onSignal))
  /** Lets the clients of the previous data plane dial again at once. */
  const tellLost = Effect.suspend(() =>
    signaling.ask((client) => client.SessionsLost({ held: sessions.all().map(({ id }) => id) }))
  ).pipe(
    Effect.retry(Schedule.spaced(TELL_AGAIN_AFTER)),
    Effect.ignore
  )
  if (config.role === "connector") yield* Effect.forkScoped(tellLost)
  yield* Self.fork(Effect.repeat(sessions.tick, Schedule.spaced(TICK)))
  yield* Self.fork(Stream.runForEach(relay.incarnations, () => sessions.reopen))

  return StreamMuxRpcs.of({
    LocalPorts: () => Effect.sync(sockets.ports),
    RebindSockets: ({ families }) => {
      if (families.includes(4)) guesses.sockets.forgetAll()
      return sockets.rebind(families)
    },
    TakeConfiguredPort: () => sockets.takeConfigured,
    SendControl: ({ bytes, family, to }) =>
      Effect.suspend(() => {
        if (isLink(to)) link.leg()?.send(bytes)
        const udp = isLink(to) ? null : router.portFor(family)
        const before = udp?.forbidden
        udp?.send(bytes, 0, bytes.length, to.port, to.host)
        return before === udp?.forbidden ? Effect.void : Effect.fail(new SendForbidden())
      }),
    ControlDatagrams: ({ kind }) => Stream.fromPubSub(control[kind]),
    OpenLink: ({ http3 }) => link.open(http3),
    ReplaceLinkByHttp3: () => link.replaceByHttp3,
    CloseLink: () => link.close,
    LinkEnded: () => link.ended,
    UseLeg: ({ leg: choice }) =>
      Effect.sync(() => {
        router.leg = choice === null
          ? null
          : choice.kind === "link"
          ? link.leg()
          : {
            kind: "relay-udp",
            family: familyOf(choice.relay.host),
            address: choice.relay.host,
            port: choice.relay.port
          }
        const kind = router.leg?.kind ?? null
        const changed = kind !== leg
        leg = kind
        publish({ _tag: "RelayLeg", kind })
        for (const session of sessions.all()) {
          if (changed) session.tellLeg()
          if (kind !== null) session.peer.onRelayBound(RELAY)
        }
      }),
    UseRelay: ({ at, bound, name }) =>
      Effect.sync(() => {
        router.useRelay(name, at && { family: familyOf(at.host), address: at.host, port: at.port, bound })
        publish({ _tag: "OtherRelay", name, bound })
        if (bound) { for (const session of sessions.all()) session.peer.onRelayBound(viaRelay(name)) }
      }),
    PathEvents: () =>
      Stream.unwrapScoped(Effect.gen(function*() {
        const later = yield* PubSub.subscribe(events)
        // A new prober knows nothing about the sockets that the one before has opened.
        guesses.sockets.closeAll()
        const first: ReadonlyArray<PathEvent> = [
          { _tag: "RelayLeg", kind: leg },
          ...router.boundRelays.map((name) => ({ _tag: "OtherRelay" as const, name, bound: true })),
          ...sessions.snapshot()
        ]
        return Stream.concat(Stream.fromIterable(first), Stream.fromQueue(later))
      })),
    IceEvents: () => Stream.fromPubSub(ice),
    ...guesses.handlers,
    ...PathOrders.make({ sessions, signaling, publish, isDirect: () => router.direct, socketsRead }),
    Status: () =>
      Effect.sync(() =>
        sessions.all().map((session) => ({
          session: session.id,
          peer: session.peer.peerName,
          role: session.peer.role,
          up: session.peer.up,
          path: session.path,
          leg,
          peerLeg: session.peerLeg,
          rttMs: session.peer.quic.stats().rttMs,
          flows: session.flows,
          bytesIn: session.peer.bytesIn,
          bytesOut: session.peer.bytesOut
        }))
      ),
    Refusals: () => Effect.sync(() => refusals.recent(clock.unsafeCurrentTimeMillis())),
    SetListeners: ({ listeners: wanted }) => listeners.set(wanted),
    SetOfflineAccess: ({ seconds }) => Effect.sync(() => void (offlineAccess = seconds)),
    Outage: () =>
      Effect.sync(() => {
        const ends = sessions.all().flatMap(({ outageEndsAt, peer }) => peer.up ? [outageEndsAt] : [])
        if (reach.reached || ends.length === 0) return null
        const since = clock.unsafeCurrentTimeMillis() - (hostMs() - reach.sinceMs)
        return { since, endsAt: Math.min(...ends) }
      }),
    SetDirect: ({ allowed }) => Effect.sync(() => sessions.setDirect(allowed)),
    Listeners: () => Effect.sync(listeners.list),
    SetDraining: ({ wanted }) => Effect.sync(() => sessions.setDraining(wanted))
  })
})

const socketsRead = Effect.async<void>((resume) => afterPoll(() => resume(Effect.void)))

const isLink = ({ host, port }: SocketAddr) => host === LINK_ADDRESS.host && port === LINK_ADDRESS.port

/** The StreamMuxActor, for the runtime that starts it. */
export const actor = Actor.make({
  address: StreamMux,
  config: Config,
  uses: [Signaling, Relay],
  layer: (config) => StreamMuxRpcs.toLayer(make(config))
})
