/**
 * Watches this host's network, has the sockets reopened if necessary, and notifies the other
 * actors. It also finds this host's candidates: the addresses of its interfaces, and its addresses
 * as STUN servers see them. Requests leave by the data plane's own sockets, because a NAT's mapping
 * belongs to the socket that asked. One loop owns the state. Datagrams, timers and requests all
 * come through the inbox.
 */
import {
  Deferred,
  Duration,
  Effect,
  Either,
  FiberSet,
  Layer,
  Match,
  Predicate,
  PubSub,
  Random,
  Schema,
  Stream,
  SubscriptionRef
} from "effect"
import { familyOf, renderHostPort, type SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import * as Candidate from "../../protocol/candidate/Candidate.ts"
import * as InterfaceUse from "../../protocol/candidate/InterfaceUse.ts"
import * as CandidateGathering from "../../protocol/nat/CandidateGathering.ts"
import type { Lifetime } from "../../protocol/nat/MappingLifetime.ts"
import * as StunMessage from "../../protocol/nat/Stun.ts"
import * as StunRetry from "../../protocol/nat/StunRetry.ts"
import * as Crypto from "../../services/host/Crypto.ts"
import * as NetworkWatch from "../../services/network/NetworkWatch.ts"
import * as PortMapper from "../../services/network/portmap/PortMapper.ts"
import * as Metrics from "../../services/telemetry/Metrics.ts"
import { nowMs } from "../../session/MonotonicClock.ts"
import * as LifetimeProbe from "../../transport/udp/LifetimeProbe.ts"
import * as NetCheck from "../../transport/udp/NetCheck.ts"
import { StreamMux } from "../mux/StreamMuxRpcs.ts"
import * as Actor from "../runtime/actor/Actor.ts"
import * as Inbox from "../runtime/actor/Inbox.ts"
import { Peers } from "../runtime/actor/Peers.ts"
import * as Self from "../runtime/actor/Self.ts"
import * as LifetimeSearch from "./LifetimeSearch.ts"
import {
  type ControlDatagram,
  type LocalCandidates,
  type Mapped,
  NetCheckFailed,
  type NetworkChange,
  Stun,
  StunRpcs,
  StunTimeout,
  StunUnavailable
} from "./StunRpcs.ts"

/**
 * Most messages that may wait. When the inbox is full, callers and the data plane's datagrams wait.
 */
const INBOX_CAPACITY = 256
/**
 * Most STUN requests in progress, including the actor's own. Further ones are refused, because each
 * costs packets.
 */
const MAX_PENDING = 64
/**
 * Shortest time between two refreshes while sessions are up. Many NATs drop a mapping after 30 s,
 * so this and {@link REFRESH_MAX_MS} are shorter.
 */
const REFRESH_MIN_MS = 20_000
/** Longest time between two refreshes while sessions are up. */
const REFRESH_MAX_MS = 26_000
/**
 * How long handing a request to the data plane may take. A later one counts as lost, and the retry
 * schedule sends another.
 */
const SEND_DEADLINE = Duration.millis(400)
const REFRESH_TIMER = "refresh"
/** How often the configured UDP port is tried again while another program uses it. */
const PORT_RETRY = Duration.seconds(30)
const PORT_TIMER = "port"
/**
 * How many network changes a slow subscriber may fall behind. Then it loses the oldest, which is
 * harmless because each change means only "look again".
 */
const CHANGES_CAPACITY = 16

type Reply = Inbox.Reply<Mapped, StunTimeout | StunUnavailable>
/** A STUN request. */
type Pending = {
  readonly server: SocketAddr
  readonly txId: Uint8Array
  readonly startedAtMs: number
  /** The caller's reply. `null` for a request of the actor's own gathering. */
  readonly reply: Reply | null
  /**
   * The server that has named this other port or address of its own. `null` for a request to a
   * server of the list.
   */
  readonly of: SocketAddr | null
}
type Asked = Pending & { readonly retry: StunRetry.State; readonly sentAtMs: number }
type Message =
  | { readonly _tag: "Discover"; readonly server: SocketAddr; readonly reply: Reply }
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
  /** Sends in progress: at most one for each send of a pending request. */
  const sends = yield* FiberSet.make<void>()
  const published = yield* SubscriptionRef.make<LocalCandidates | null>(null)
  const gathering = new CandidateGathering.CandidateGathering(outside)
  const pending = new Map<string, Asked>()
  const changes = yield* PubSub.sliding<NetworkChange>(CHANGES_CAPACITY)
  const search = yield* LifetimeSearch.make(yield* LifetimeProbe.LifetimeProbe)
  let lifetime: Lifetime | null = null
  let active = 0
  /** Whether the UDP port is to be mapped at the gateway. */
  let isMapped = mapPort
  /** Port of the IPv4 socket. `null` if there is none, or it is not known yet. */
  let port: number | null = null
  let state: NetworkWatch.NetworkState | null = null
  let towards: ReadonlyArray<string> = []
  /** Source addresses of the sockets' packets, per IP version, when the sockets were opened. */
  let bound: NetworkWatch.Outward = { v4: null, v6: null }

  const publish = Effect.suspend(() => {
    const next: LocalCandidates = { ...gathering.local(), ...(lifetime === null ? {} : { lifetime }) }
    return Effect.flatMap(
      SubscriptionRef.get(published),
      (before) =>
        !gathering.isReady || (before !== null && isSame(before, next))
          ? Effect.void
          : Effect.zipRight(
            Effect.logDebug("candidates changed").pipe(
              Effect.annotateLogs({ count: next.candidates.length, udp: next.udp })
            ),
            SubscriptionRef.set(published, next)
          )
    )
  })
  // Sends without waiting, because a data plane that is being restarted must not block the loop.
  const send = ({ server, txId }: Pending) =>
    mux.ask((it) =>
      it.SendControl({
        family: familyOf(server.host),
        to: server,
        bytes: StunMessage.encodeRequest({ txId })
      }), { deadline: SEND_DEADLINE }).pipe(
        Effect.catchTag("ActorUnavailable", (error) => Effect.logDebug("a STUN request was not sent", error)),
        FiberSet.run(sends)
      )
  const answers = new Metrics.Counts<"answered" | "timed_out" | "not_asked">()
  const self = yield* Self.Self
  yield* self.exposeMetrics(() => [
    Metrics.counter(
      { name: "sallyport_stun_questions", help: "Questions to STUN servers, by what became of them." },
      answers.points("result")
    )
  ])
  const answer = (asked: Pending, result: Either.Either<Mapped, StunTimeout | StunUnavailable>) => {
    answers.add(Either.isRight(result) ? "answered" : result.left._tag === "StunTimeout" ? "timed_out" : "not_asked")
    if (asked.reply !== null) return Effect.asVoid(Deferred.complete(asked.reply, result))
    if (asked.of !== null) {
      if (Either.isRight(result)) gathering.onMappedElsewhere(asked.of, result.right.mapped)
    } else if (Either.isRight(result)) gathering.onMapped(asked.server, result.right.mapped)
    else gathering.onSilent(asked.server)
    return publish
  }
  const apply = Effect.fnUntraced(function*(asked: Pending, sentAtMs: number, step: StunRetry.Step) {
    const id = StunMessage.toHex(asked.txId)
    if (step._tag === "TimedOut") {
      pending.delete(id)
      return yield* answer(asked, Either.left(new StunTimeout({ server: asked.server, sends: step.sends })))
    }
    const now = yield* nowMs
    pending.set(id, { ...asked, retry: step.state, sentAtMs: step._tag === "Send" ? now : sentAtMs })
    if (step._tag === "Send") yield* send(asked)
    return yield* inbox.setTimer(id, Math.max(0, Math.ceil(step.state.deadline - now)), { _tag: "Retry", id })
  })
  const ask = Effect.fnUntraced(function*(server: SocketAddr, reply: Reply | null, of: SocketAddr | null = null) {
    const asked = { server, txId: yield* randomBytes(StunMessage.TX_ID_BYTES), startedAtMs: yield* nowMs, reply, of }
    if (pending.size >= MAX_PENDING) {
      return yield* answer(
        asked,
        Either.left(unavailable(server, "too many STUN questions are under way; ask again later"))
      )
    }
    return yield* apply(asked, asked.startedAtMs, StunRetry.start(asked.startedAtMs, StunRetry.FAST))
  })
  const lookTowards = Effect.suspend(() => network.towards([...new Set(gathering.askable.map(({ host }) => host))]))
    .pipe(
      Effect.flatMap((hosts) => inbox.post({ _tag: "Towards", hosts })),
      Effect.asVoid
    )
  /**
   * Asks every server again. Requests in progress are dropped, because their answers would only
   * describe the network before.
   */
  const gather = Effect.gen(function*() {
    for (const [id, { reply }] of pending) {
      if (reply !== null) continue
      pending.delete(id)
      yield* inbox.clearTimer(id)
    }
    yield* Effect.forEach(gathering.askable, (server) => ask(server, null), { discard: true })
    yield* publish
    yield* search.onServers(gathering.askable)
    yield* FiberSet.run(sends, lookTowards)
    if (active === 0) return yield* inbox.clearTimer(REFRESH_TIMER)
    const wait = yield* Random.nextIntBetween(REFRESH_MIN_MS, REFRESH_MAX_MS)
    return yield* inbox.setTimer(REFRESH_TIMER, wait, { _tag: "Refresh" })
  })
  const readPorts = mux.ask((it) => it.LocalPorts()).pipe(
    Effect.flatMap(({ missed = [], ...ports }) => inbox.post({ _tag: "PortsRead", ports, missed: missed.length > 0 })),
    Effect.catchTag("ActorUnavailable", (error) => Effect.logDebug("the ports of the data plane are not known", error)),
    Effect.asVoid
  )

  const tellChange = Effect.fnUntraced(function*(reason: NetworkChange["reason"], lost: NetworkChange["lost"]) {
    const hosts = state?.addresses.map(({ host }) => host) ?? []
    yield* PubSub.publish(changes, { reason, hosts, lost })
    yield* Effect.logInfo("network changed").pipe(Effect.annotateLogs({ reason, lost, hosts }))
  })
  /**
   * Handles a change of this host's network. The sockets come first, then the actors that send by
   * them, then the mapped addresses.
   */
  const onNetwork = Effect.fnUntraced(function*(now: NetworkWatch.NetworkState) {
    const before = state
    state = now
    const hosts = NetworkWatch.hostsOf(now, rules, towards)
    if (before !== null && NetworkWatch.isInner(before, now, rules, towards)) {
      gathering.onInnerHosts(hosts)
      return yield* publish
    }
    gathering.onHosts(hosts)
    if (before === null) {
      bound = now.outward
      yield* gather
      yield* FiberSet.run(sends, readPorts)
      return
    }
    const stale = NetworkWatch.replaced(bound, now)
    bound = NetworkWatch.firstOf(bound, now.outward, stale)
    if (stale.length > 0) {
      yield* mux.ask((it) => it.RebindSockets({ families: stale }), { deadline: SEND_DEADLINE }).pipe(
        Effect.catchTag("ActorUnavailable", (error) => Effect.logDebug("the UDP sockets were not replaced", error))
      )
    }
    yield* tellChange(NetworkWatch.reasonOf(before, now), NetworkWatch.lost(before, now))
    yield* mapper.look
    yield* search.onNetworkChange
    yield* gather
    if (stale.length > 0) yield* FiberSet.run(sends, readPorts)
  })

  const handle: (message: Message) => Effect.Effect<void> = Match.type<Message>().pipe(Match.tagsExhaustive({
    Discover: ({ reply, server }) => {
      const host = Candidate.canonical(server.host)
      if (host !== null && gathering.hasPortFor(host)) return ask({ host, port: server.port }, reply)
      const why = host === null
        ? "it is no literal address; resolve it first"
        : "no UDP socket of its IP version is open"
      return Effect.asVoid(Deferred.fail(reply, unavailable(server, why)))
    },
    SetServers: ({ relayHost, servers }) => {
      gathering.onServers(servers, relayHost)
      return gather
    },
    Servers: ({ reply }) => Effect.asVoid(Deferred.succeed(reply, gathering.askable)),
    SetActive: ({ count, flowing }) => {
      const woke = active === 0 && count > 0
      active = count
      const refresh = woke ? gather : count === 0 ? inbox.clearTimer(REFRESH_TIMER) : Effect.void
      return Effect.zipRight(search.onIdle(flowing === 0), refresh)
    },
    Network: ({ now }) => onNetwork(now),
    Towards: ({ hosts }) => {
      if (state === null || hosts.join() === towards.join()) return Effect.void
      towards = hosts
      gathering.onInnerHosts(NetworkWatch.hostsOf(state, rules, towards))
      return publish
    },
    MappingChanged: () =>
      Effect.all([tellChange("mapping", []), mapper.look, search.onMappingChange, gather], { discard: true }),
    MuxStarted: () => {
      bound = state?.outward ?? bound
      return Effect.asVoid(FiberSet.run(sends, readPorts))
    },
    PortsRead: ({ missed, ports }) => {
      port = ports.v4 ?? null
      return Effect.all([
        mapper.follow(isMapped ? port : null),
        gathering.onPorts(ports) ? gather : Effect.void,
        missed ? inbox.setTimer(PORT_TIMER, PORT_RETRY, { _tag: "RetryPort" }) : Effect.void
      ], { discard: true })
    },
    MapPort: ({ wanted }) => {
      isMapped = wanted
      return mapper.follow(isMapped ? port : null)
    },
    RetryPort: () =>
      mux.ask((it) => it.TakeConfiguredPort()).pipe(
        Effect.catchTag("ActorUnavailable", () => Effect.succeed(false)),
        Effect.flatMap((taken) => (taken ? inbox.post({ _tag: "PortTaken" }) : readPorts)),
        Effect.asVoid,
        FiberSet.run(sends),
        Effect.asVoid
      ),
    // Peers and the relay know only the port before, as after a change of the route.
    PortTaken: () => Effect.zipRight(tellChange("route", []), Effect.asVoid(FiberSet.run(sends, readPorts))),
    Received: Effect.fnUntraced(function*({ datagram }) {
      const decoded = StunMessage.decode(datagram.bytes)
      if (Either.isLeft(decoded) || decoded.right._tag !== "Success") {
        return yield* Effect.logTrace("ignored", datagram.from)
      }
      const id = StunMessage.toHex(decoded.right.txId)
      const asked = pending.get(id)
      const from = Candidate.canonical(datagram.from.host)
      if (asked === undefined || asked.server.host !== from || asked.server.port !== datagram.from.port) {
        return yield* Effect.logTrace("a stray STUN answer", datagram.from)
      }
      pending.delete(id)
      yield* inbox.clearTimer(id)
      yield* answer(
        asked,
        Either.right({ mapped: decoded.right.mapped, rttMs: (yield* nowMs) - asked.sentAtMs })
      )
      if (asked.reply !== null || asked.of !== null) return
      const places = gathering.elsewhere(asked.server, decoded.right)
      yield* Effect.forEach(places, (place) => ask(place, null, asked.server), { discard: true })
    }),
    Retry: Effect.fnUntraced(function*({ id }) {
      const asked = pending.get(id)
      if (asked !== undefined) yield* apply(asked, asked.sentAtMs, StunRetry.onTick(asked.retry, yield* nowMs))
    }),
    Refresh: () => gather,
    LifetimeFound: (message) => {
      lifetime = message.lifetime
      return publish
    },
    PortMapped: ({ external }) => {
      gathering.onPortMapped(external)
      return publish
    }
  }))
  const inbox = yield* Inbox.make<Message>({ name: "stun", capacity: INBOX_CAPACITY, handle })

  yield* Self.fork(Stream.runForEach(network.changes, (now) => inbox.post({ _tag: "Network", now })))
  yield* Self.fork(
    Stream.runForEach(search.found.changes, (lifetime) => inbox.post({ _tag: "LifetimeFound", lifetime }))
  )
  yield* Self.fork(Stream.runForEach(mux.incarnations, () => inbox.post({ _tag: "MuxStarted" })))
  yield* Self.fork(
    Stream.runForEach(
      Stream.concat(mapper.changes, Stream.never),
      (it) => inbox.post({ _tag: "PortMapped", external: it?.external ?? null })
    )
  )
  yield* Self.fork(
    mux.subscribe((it) => it.ControlDatagrams({ kind: "stun" })).pipe(
      Stream.runForEach((datagram) => inbox.post({ _tag: "Received", datagram }))
    )
  )
  // One check at a time, because two would take ports between each other's.
  const turn = yield* Effect.makeSemaphore(1)

  const askable = inbox.ask<ReadonlyArray<SocketAddr>>((reply) => ({ _tag: "Servers", reply }))
  return StunRpcs.of({
    Candidates: () => Stream.changesWith(Stream.filter(published.changes, Predicate.isNotNull), isSame),
    Discover: ({ server }) =>
      inbox.ask<Mapped, StunTimeout | StunUnavailable>((reply) => ({ _tag: "Discover", server, reply })),
    SetServers: (payload) => Effect.asVoid(inbox.post({ _tag: "SetServers", ...payload })),
    Servers: () => askable,
    Local: () => SubscriptionRef.get(published),
    NetCheck: Effect.fnUntraced(function*() {
      const servers = yield* askable
      const [first] = servers
      if (first === undefined) return yield* noRelay
      const report = yield* Effect.mapError(
        turn.withPermits(1)(NetCheck.run(renderHostPort(first), servers, mapper.probe)),
        ({ message }) => new NetCheckFailed({ message })
      )
      return { ...report, lifetime: yield* SubscriptionRef.get(search.found) }
    }),
    SetActiveSessions: (payload) => Effect.asVoid(inbox.post({ _tag: "SetActive", ...payload })),
    NetworkChanges: () => Stream.fromPubSub(changes),
    MappingChanged: () => Effect.asVoid(inbox.post({ _tag: "MappingChanged" })),
    MapPort: ({ wanted }) => Effect.asVoid(inbox.post({ _tag: "MapPort", wanted }))
  })
})

const isSame = (a: LocalCandidates, b: LocalCandidates): boolean =>
  CandidateGathering.isSame(a, b) && a.lifetime === b.lifetime

const unavailable = (server: SocketAddr, why: string) =>
  new StunUnavailable({ server, message: `STUN server ${server.host}:${server.port} was not asked: ${why}` })

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
