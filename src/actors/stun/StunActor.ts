/**
 * Watches this host's network, has the sockets reopened if necessary, and notifies the other
 * actors. It also finds this host's candidates: the addresses of its interfaces, and its addresses
 * as STUN servers see them. Requests leave by the data plane's own sockets, because a NAT's mapping
 * belongs to the socket that asked. One loop owns the state. Datagrams, timers and requests all
 * come through the inbox.
 */
import { Deferred, Duration, Effect, FiberSet, Layer, Match, PubSub, Schema, Stream, SubscriptionRef } from "effect"
import { familyOf, renderHostPort, type SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import * as InterfaceUse from "../../protocol/candidate/InterfaceUse.ts"
import type * as CandidateGathering from "../../protocol/nat/CandidateGathering.ts"
import type { Lifetime } from "../../protocol/nat/MappingLifetime.ts"
import * as StunMessage from "../../protocol/nat/Stun.ts"
import * as Crypto from "../../services/host/Crypto.ts"
import * as NetworkWatch from "../../services/network/NetworkWatch.ts"
import * as PortMapper from "../../services/network/portmap/PortMapper.ts"
import * as LifetimeProbe from "../../transport/udp/LifetimeProbe.ts"
import * as NetCheck from "../../transport/udp/NetCheck.ts"
import { StreamMux } from "../mux/StreamMuxRpcs.ts"
import * as Actor from "../runtime/actor/Actor.ts"
import type { RpcsOf } from "../runtime/actor/ActorAddress.ts"
import type { ActorRef } from "../runtime/actor/ActorRef.ts"
import * as Inbox from "../runtime/actor/Inbox.ts"
import { Peers } from "../runtime/actor/Peers.ts"
import * as Self from "../runtime/actor/Self.ts"
import * as CandidateFeed from "./CandidateFeed.ts"
import * as GatherRounds from "./GatherRounds.ts"
import * as HostNetwork from "./HostNetwork.ts"
import * as LifetimeSearch from "./LifetimeSearch.ts"
import * as SocketPorts from "./SocketPorts.ts"
import * as StunQuestions from "./StunQuestions.ts"
import {
  type ControlDatagram,
  type Mapped,
  NetCheckFailed,
  type NetworkChange,
  Stun,
  StunRpcs,
  type StunTimeout,
  type StunUnavailable
} from "./StunRpcs.ts"

/**
 * Most messages that may wait. When the inbox is full, callers and the data plane's datagrams wait.
 */
const INBOX_CAPACITY = 256
/**
 * How long handing a request to the data plane may take. A later one counts as lost, and the retry
 * schedule sends another.
 */
const SEND_DEADLINE = Duration.millis(400)
const REFRESH_TIMER = "refresh"
const PORT_TIMER = "port"
/**
 * How many network changes a slow subscriber may fall behind. Then it loses the oldest, which is
 * harmless because each change means only "look again".
 */
const CHANGES_CAPACITY = 16

type Mux = ActorRef<RpcsOf<typeof StreamMux>>
type Message =
  | { readonly _tag: "Discover"; readonly server: SocketAddr; readonly reply: StunQuestions.Reply }
  | { readonly _tag: "SetServers"; readonly servers: ReadonlyArray<SocketAddr>; readonly relayHost: string | null }
  | { readonly _tag: "Servers"; readonly reply: Inbox.Reply<ReadonlyArray<SocketAddr>> }
  | { readonly _tag: "SetActive"; readonly count: number; readonly flowing: number }
  | { readonly _tag: "Network"; readonly now: NetworkWatch.NetworkState }
  /** Local addresses from which packets to the servers leave. */
  | { readonly _tag: "Towards"; readonly hosts: ReadonlyArray<string> }
  | { readonly _tag: "MappingChanged" }
  /** A new data plane is up, with new sockets. */
  | { readonly _tag: "MuxStarted" }
  | { readonly _tag: "PortsRead"; readonly ports: CandidateGathering.Ports; readonly missed: boolean }
  | { readonly _tag: "RetryPort" | "PortTaken" }
  | { readonly _tag: "Received"; readonly datagram: ControlDatagram }
  | { readonly _tag: "Retry"; readonly id: string }
  | { readonly _tag: "Refresh" }
  | { readonly _tag: "LifetimeFound"; readonly lifetime: Lifetime | null }
  | { readonly _tag: "PortMapped"; readonly external: SocketAddr | null }
  | { readonly _tag: "MapPort"; readonly wanted: boolean }

/** Configured rules for the addresses that this node offers to peers. */
export type Options = CandidateGathering.Static & {
  readonly interfaces: InterfaceUse.Rules
  /** Whether the UDP port is to be mapped at the start; see `MapPort`. */
  readonly mapPort: boolean
}
const DEFAULTS: Options = { advertise: [], port: 0, interfaces: InterfaceUse.NO_RULES, mapPort: true }

const make = Effect.fnUntraced(function*({ interfaces: rules, mapPort, ...outside }: Options) {
  const mux = yield* Peers.ref(StreamMux)
  const network = yield* NetworkWatch.NetworkWatch
  const { randomBytes } = yield* Crypto.Crypto
  const mapper = yield* PortMapper.PortMapper
  const self = yield* Self.Self
  /** Work in progress: at most one send for each send of a request, and a few questions. */
  const running = yield* FiberSet.make<void>()
  const fork = (effect: Effect.Effect<void>) => FiberSet.run(running, effect)
  const changes = yield* PubSub.sliding<NetworkChange>(CHANGES_CAPACITY)
  const search = yield* LifetimeSearch.make(yield* LifetimeProbe.LifetimeProbe)
  const feed = yield* CandidateFeed.make(outside)
  const { gathering, publish } = feed
  const host = HostNetwork.make(rules)

  const questions = StunQuestions.make({
    // Sends without waiting, because a data plane that is being restarted must not block the loop.
    send: (server, txId) => fork(sendRequest(mux, server, txId)),
    randomBytes,
    setTimer: (id, delayMs) => inbox.setTimer(id, delayMs, { _tag: "Retry", id }),
    clearTimer: (id) => inbox.clearTimer(id),
    onOwn: feed.onAnswer
  })
  yield* self.exposeMetrics(questions.metrics)
  const ports = SocketPorts.make({
    sockets: socketsOf(mux),
    follow: mapper.follow,
    isMapped: mapPort,
    fork,
    onRead: (read, missed) => inbox.post({ _tag: "PortsRead", ports: read, missed }),
    onTaken: Effect.suspend(() => inbox.post({ _tag: "PortTaken" })),
    retryAfter: (delay) => inbox.setTimer(PORT_TIMER, delay, { _tag: "RetryPort" })
  })

  const rounds = GatherRounds.make({
    questions,
    feed,
    onServers: search.onServers,
    look: (servers) =>
      network.towards(hostsOf(servers)).pipe(
        Effect.flatMap((hosts) => inbox.post({ _tag: "Towards", hosts })),
        Effect.asVoid,
        fork
      ),
    setTimer: (delayMs) => inbox.setTimer(REFRESH_TIMER, delayMs, { _tag: "Refresh" }),
    clearTimer: Effect.suspend(() => inbox.clearTimer(REFRESH_TIMER))
  })
  const { gather } = rounds
  const tellChange = Effect.fnUntraced(function*(reason: NetworkChange["reason"], lost: NetworkChange["lost"]) {
    const { addresses: hosts } = host
    yield* PubSub.publish(changes, { reason, hosts, lost })
    yield* Effect.logInfo("network changed").pipe(Effect.annotateLogs({ reason, lost, hosts }))
  })
  /**
   * Handles a change of this host's network. The sockets come first, then the actors that send by
   * them, then the mapped addresses.
   */
  const onNetwork = Effect.fnUntraced(function*(now: NetworkWatch.NetworkState) {
    const step = host.onState(now)
    if (step._tag === "Inner") {
      gathering.onInnerHosts(step.hosts)
      return yield* publish
    }
    gathering.onHosts(step.hosts)
    if (step._tag === "First") return yield* Effect.zipRight(gather, ports.read)
    const { lost, reason, stale } = step
    if (stale.length > 0) yield* rebind(mux, stale)
    yield* tellChange(reason, lost)
    yield* mapper.look
    yield* search.onNetworkChange
    yield* gather
    if (stale.length > 0) yield* ports.read
  })

  const handle: (message: Message) => Effect.Effect<void> = Match.type<Message>().pipe(Match.tagsExhaustive({
    Discover: ({ reply, server }) => questions.discover(server, reply, (literal) => gathering.hasPortFor(literal)),
    SetServers: ({ relayHost, servers }) => {
      gathering.onServers(servers, relayHost)
      return gather
    },
    Servers: ({ reply }) => Effect.asVoid(Deferred.succeed(reply, gathering.askable)),
    SetActive: ({ count, flowing }) => Effect.zipRight(search.onIdle(flowing === 0), rounds.onActive(count)),
    Network: ({ now }) => onNetwork(now),
    Towards: ({ hosts }) => {
      const next = host.onTowards(hosts)
      if (next === null) return Effect.void
      gathering.onInnerHosts(next)
      return publish
    },
    MappingChanged: () =>
      Effect.all([tellChange("mapping", []), mapper.look, search.onMappingChange, gather], { discard: true }),
    MuxStarted: () => {
      host.onMuxStarted()
      return ports.read
    },
    PortsRead: ({ missed, ports: read }) =>
      Effect.zipRight(ports.onPorts(read, missed), gathering.onPorts(read) ? gather : Effect.void),
    MapPort: ({ wanted }) => ports.onWanted(wanted),
    RetryPort: () => ports.retry,
    // Peers and the relay know only the port before, as after a change of the route.
    PortTaken: () => Effect.zipRight(tellChange("route", []), ports.read),
    Received: Effect.fnUntraced(function*({ datagram }) {
      const answered = yield* questions.onDatagram(datagram)
      if (answered === null) return
      const { server: of, success } = answered
      for (const server of gathering.elsewhere(of, success)) yield* questions.ask({ server, reply: null, of })
    }),
    Retry: ({ id }) => questions.onRetry(id),
    Refresh: () => gather,
    LifetimeFound: ({ lifetime }) => feed.onLifetime(lifetime),
    PortMapped: ({ external }) => {
      gathering.onPortMapped(external)
      return publish
    }
  }))
  const inbox = yield* Inbox.make<Message>({ name: "stun", capacity: INBOX_CAPACITY, handle })
  yield* follow({ mux, mapper, network, lifetimes: search.found.changes }, inbox.post)
  return yield* callsOf({ inbox, feed, changes, probe: mapper.probe, lifetime: SubscriptionRef.get(search.found) })
})

/** The parts of the actor that answer calls. */
interface Parts {
  readonly inbox: Inbox.Inbox<Message>
  readonly feed: CandidateFeed.CandidateFeed
  readonly changes: PubSub.PubSub<NetworkChange>
  readonly probe: typeof PortMapper.PortMapper.Service.probe
  readonly lifetime: Effect.Effect<Lifetime | null>
}

const callsOf = Effect.fnUntraced(function*({ changes, feed, inbox, lifetime, probe }: Parts) {
  // One check at a time, because two would take ports between each other's.
  const turn = yield* Effect.makeSemaphore(1)
  const askable = inbox.ask<ReadonlyArray<SocketAddr>>((reply) => ({ _tag: "Servers", reply }))
  const post = (message: Message) => Effect.asVoid(inbox.post(message))
  return StunRpcs.of({
    Candidates: () => feed.changes,
    Discover: ({ server }) =>
      inbox.ask<Mapped, StunTimeout | StunUnavailable>((reply) => ({ _tag: "Discover", server, reply })),
    SetServers: (payload) => post({ _tag: "SetServers", ...payload }),
    Servers: () => askable,
    Local: () => feed.now,
    NetCheck: Effect.fnUntraced(function*() {
      const servers = yield* askable
      const [first] = servers
      if (first === undefined) return yield* noRelay
      const report = yield* Effect.mapError(
        turn.withPermits(1)(NetCheck.run(renderHostPort(first), servers, probe)),
        ({ message }) => new NetCheckFailed({ message })
      )
      return { ...report, lifetime: yield* lifetime }
    }),
    SetActiveSessions: (payload) => post({ _tag: "SetActive", ...payload }),
    NetworkChanges: () => Stream.fromPubSub(changes),
    MappingChanged: () => post({ _tag: "MappingChanged" }),
    MapPort: ({ wanted }) => post({ _tag: "MapPort", wanted })
  })
})

interface Sources {
  readonly mux: Mux
  readonly mapper: typeof PortMapper.PortMapper.Service
  readonly network: typeof NetworkWatch.NetworkWatch.Service
  readonly lifetimes: Stream.Stream<Lifetime | null>
}

/** Posts what other actors and services say, until the scope ends. */
const follow = Effect.fnUntraced(
  function*({ lifetimes, mapper, mux, network }: Sources, post: (message: Message) => Effect.Effect<unknown>) {
    const external = Stream.map(mapper.changes, (it) => it?.external ?? null)
    yield* each(network.changes, (now) => post({ _tag: "Network", now }))
    yield* each(lifetimes, (lifetime) => post({ _tag: "LifetimeFound", lifetime }))
    yield* each(mux.incarnations, () => post({ _tag: "MuxStarted" }))
    yield* each(Stream.concat(external, Stream.never), (it) => post({ _tag: "PortMapped", external: it }))
    yield* each(
      mux.subscribe((it) => it.ControlDatagrams({ kind: "stun" })),
      (datagram) => post({ _tag: "Received", datagram })
    )
  }
)

const each = <A, E>(stream: Stream.Stream<A, E>, use: (element: A) => Effect.Effect<unknown>) =>
  Self.fork(Stream.runForEach(stream, use))

const socketsOf = (mux: Mux): SocketPorts.Sockets => ({
  localPorts: mux.ask((it) => it.LocalPorts()),
  takeConfigured: mux.ask((it) => it.TakeConfiguredPort())
})

const hostsOf = (servers: ReadonlyArray<SocketAddr>) => [...new Set(servers.map(({ host }) => host))]

const sendRequest = (mux: Mux, server: SocketAddr, txId: Uint8Array) =>
  mux.ask(
    (it) => it.SendControl({ family: familyOf(server.host), to: server, bytes: StunMessage.encodeRequest({ txId }) }),
    {
      deadline: SEND_DEADLINE
    }
  ).pipe(
    Effect.catchTag("ActorUnavailable", (error) => Effect.logDebug("a STUN request was not sent", error)),
    Effect.ignore
  )

const rebind = (mux: Mux, families: ReadonlyArray<4 | 6>) =>
  mux.ask((it) => it.RebindSockets({ families }), { deadline: SEND_DEADLINE }).pipe(
    Effect.catchTag("ActorUnavailable", (error) => Effect.logDebug("the UDP sockets were not replaced", error))
  )

const noRelay = new NetCheckFailed({
  message: "the relay's UDP address is not known: there is no link to the relay yet, or it offers no UDP; see the log"
})

/** Layer of the actor with these options. It needs the data plane as its peer. */
export const layerWith = (options: Options) =>
  StunRpcs.toLayer(make(options).pipe(Effect.annotateLogs({ actor: "stun" })))
/** Layer of the actor with default options. It needs the data plane as its peer. */
export const layer = layerWith(DEFAULTS)

/** The StunActor, for the runtime that starts it. */
export const actor = Actor.make({
  address: Stun,
  config: Schema.Struct({
    portMapping: Schema.Literal("auto", "off"),
    mapPort: Schema.Boolean,
    /** Local port that a configured address leads to, or 0; see `CandidateGathering.Static`. */
    port: Schema.Int,
    advertise: Schema.Array(Schema.Struct({ host: Schema.String, port: Schema.Int })),
    interfaces: Schema.Struct({ prefer: Schema.Array(Schema.String), exclude: Schema.Array(Schema.String) })
  }),
  uses: [StreamMux],
  layer: ({ portMapping, ...options }) =>
    Layer.provide(
      layerWith(options),
      Layer.mergeAll(
        NetworkWatch.layer,
        Crypto.layer,
        LifetimeProbe.layer,
        portMapping === "auto" ? PortMapper.layer : PortMapper.layerOff
      )
    )
})
