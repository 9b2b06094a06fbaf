/**
 * Keeps one authenticated link to the relay, makes calls on it for the other actors, and passes the
 * relay's events to them. `Reconnect` makes a new link when one ends. The relay may set the delay
 * before it (GOAWAY). When this host has moved away from the link's address, the next link follows
 * at once. Calls on a dead link are not repeated, because the caller knows best whether to ask
 * again.
 */
import { RpcClient } from "@effect/rpc"
import { RpcClientError } from "@effect/rpc/RpcClientError"
import { Cause, Deferred, Duration, Effect, Option, PubSub, Random, Schema, Stream, SubscriptionRef } from "effect"
import { IdleCuts } from "../../protocol/relay/IdleCuts.ts"
import * as ProxyUrl from "../../protocol/relay/ProxyUrl.ts"
import { HostClock } from "../../services/host/HostClock.ts"
import * as NodeState from "../../services/identity/NodeState.ts"
import * as RelayAddresses from "../../services/network/RelayAddresses.ts"
import * as Metrics from "../../services/telemetry/Metrics.ts"
import * as RpcOverLink from "../../session/RpcOverLink.ts"
import * as LinkClient from "../../transport/link/LinkClient.ts"
import * as Actor from "../runtime/actor/Actor.ts"
import { Peers } from "../runtime/actor/Peers.ts"
import * as Self from "../runtime/actor/Self.ts"
import { type NetworkChange, Stun } from "../stun/StunRpcs.ts"
import { Invitations } from "./Invitations.ts"
import { LastSnapshot } from "./LastSnapshot.ts"
import * as Reconnect from "./Reconnect.ts"
import { RelaySignalingRpcs, type SessionId, type SignalingEvent, UNKNOWN_NODE } from "./RelaySignalingRpcs.ts"
import {
  type NodeEvent,
  Signaling,
  SignalingDown,
  SignalingRpcs,
  type SignalingState,
  type Wanted
} from "./SignalingRpcs.ts"
import * as TimeKeeper from "./TimeKeeper.ts"

/** Settings of the SignalingActor. */
export const Config = Schema.Struct({
  stateDir: Schema.String,
  carrier: Schema.Literal("auto", "webtransport", "websocket"),
  /** A proxy's URL, `none`, or `null` if the environment decides. */
  proxy: Schema.optionalWith(Schema.NullOr(Schema.String), { default: () => null }),
  /** PEM file of authorities beside the public ones. `null` if there is none. */
  ca: Schema.optionalWith(Schema.NullOr(Schema.String), { default: () => null })
})
export type Config = typeof Config.Type

/**
 * How many events one slow subscriber may fall behind. Then it loses the oldest, and learns the
 * state from the next snapshot.
 */
const EVENTS_CAPACITY = 1024
/** Longest delay before a new link after a good one ended. It doubles with each failure. */
const FIRST_DELAY_MS = 100
/**
 * Delay before a new link after this host moved. The flows of present sessions go first, because a
 * TLS handshake occupies this thread for tens of milliseconds.
 */
const MOVED_DELAY_MS = 100
/**
 * Longest delay before a new link when packets show that the relay answers again. The delay is
 * random, which spreads the nodes of a relay that restarts.
 */
const ANSWERS_DELAY_MS = 1000
/** How long a call waits for a link that is being made. */
const LINK_PATIENCE = Duration.seconds(4)

type Client = RpcClient.FromGroup<typeof RelaySignalingRpcs, RpcClientError>
type Link = { readonly client: Client }
/**
 * Most network changes that may wait. The oldest is dropped when it is full, because each change
 * means only "look again".
 */
const CHANGES_CAPACITY = 4

const make = Effect.fnUntraced(function*(config: Config) {
  const node = yield* NodeState.load(config.stateDir)
  const stun = yield* Peers.ref(Stun)
  const link = yield* SubscriptionRef.make(Option.none<Link>())
  const networkChanges = yield* PubSub.sliding<NetworkChange>(CHANGES_CAPACITY)
  /** Says that packets reach the relay again. One notice is enough. */
  const answers = yield* PubSub.sliding<void>(1)
  const events = yield* PubSub.sliding<NodeEvent>(EVENTS_CAPACITY)
  const hostMs = (yield* HostClock).now
  const opener = yield* LinkClient.LinkOpener
  const time = yield* TimeKeeper.make({ hostMs, onLearned: (event) => PubSub.publish(events, event) })
  const snapshot = new LastSnapshot()
  const invitations = new Invitations()
  const idleCuts = new IdleCuts()
  const connects = new Metrics.Counts<string>()
  const self = yield* Self.Self
  yield* self.exposeMetrics(() => [
    Metrics.counter(
      { name: "sallyport_signaling_connects", help: "Connections to the relay that were let in, by carrier." },
      connects.points("carrier")
    ),
    Metrics.gauge(
      { name: "sallyport_signaling_up", help: "1: there is a connection to the relay. 0: it is being sought." },
      [{ labels: {}, value: Number(state.state === "up") }]
    )
  ])
  let state: Omit<SignalingState, "clockAheadMs"> = {
    state: "connecting",
    carrier: null,
    relay: `${node.relay.host}:${node.relay.httpsPort}`,
    problem: "first connection under way",
    reason: null,
    proxy: proxyOf(node.relay, config.proxy),
    connects: 0,
    keepaliveMs: null
  }

  /**
   * Whether the next connection waits for DNS instead of falling back to the last known addresses
   * after a moment. Every second try does, because the relay may have moved while the first name
   * server is dead.
   */
  let waitForDns = false

  const onEvent = Effect.fnUntraced(function*(event: SignalingEvent) {
    snapshot.onEvent(event)
    if (event._tag === "Invite") invitations.add(event, hostMs())
    yield* PubSub.publish(events, event)
  })

  const answered = ({ session }: { readonly session: SessionId }) => Effect.sync(() => invitations.answered(session))

  /**
   * Handles a link that was cut after `idleMs` without traffic. If that shows an idle timeout on
   * the way, later links send keepalives more often.
   */
  const onCut = (idleMs: number) =>
    Effect.suspend(() => {
      const found = idleCuts.onCut(idleMs)
      if (found === null) return Effect.void
      state = { ...state, keepaliveMs: found.gapMs }
      return Effect.logWarning(
        `something between this node and the relay closes connections that are idle for ${
          seconds(found.idleMs)
        }, so this node ` +
          `now sends a keepalive every ${seconds(found.gapMs)}; a load balancer in front of the relay should allow 60 s`
      )
    })

  /** Runs one link, from connecting to its end. */
  const live = Effect.fnUntraced(
    function*(onUp: Effect.Effect<void>) {
      const goAway = yield* Deferred.make<Reconnect.Ended>()
      const changes = Stream.fromPubSub(networkChanges)
      const lastAddresses = waitForDns ? [] : yield* RelayAddresses.known(config.stateDir, node.relay.host)
      const connecting = opener.connect({
        host: node.relay.host,
        lastAddresses,
        port: node.relay.httpsPort,
        trust: node.relay.tls,
        carrier: config.carrier,
        proxy: config.proxy,
        ca: config.ca,
        purpose: "signal",
        identity: node.identity
      })
      // The connection may be waiting for answers to an address that is gone.
      const overtaken = Effect.as(Stream.runHead(changes), null)
      const connected = yield* Effect.raceFirst(connecting, overtaken)
      if (connected === null) {
        return movedAway("this host's network changed while the connection to the relay was being made")
      }
      const protocol = yield* RpcOverLink.makeClient(connected.link, {
        checks: changes,
        pingEvery: Duration.millis(idleCuts.gapMs),
        onCut
      })
      const moved = changes.pipe(
        Stream.filter(({ hosts }) => !hosts.includes(connected.localHost)),
        Stream.runHead,
        // TCP itself would take minutes to notice.
        Effect.as(movedAway("this host no longer has the address of its connection to the relay"))
      )
      const client = yield* RpcClient.make(RelaySignalingRpcs).pipe(Effect.provideService(RpcClient.Protocol, protocol))
      const sentAt = hostMs()
      const onSnapshot = Effect.fnUntraced(function*(event: SignalingEvent & { readonly _tag: "Snapshot" }) {
        yield* time.learn({ directoryMs: event.serverTime, sentAt, receivedAt: hostMs() })
        yield* onEvent(event)
        yield* SubscriptionRef.set(link, Option.some({ client }))
      })
      const watch = client.Watch().pipe(
        Stream.runForEach((event) =>
          event._tag === "GoAway"
            ? Deferred.succeed(goAway, sentAway(event.reconnectAfterMs))
            : event._tag === "Snapshot"
            ? onSnapshot(event)
            : onEvent(event)
        ),
        Effect.as(Reconnect.BY_RELAY)
      )
      yield* Effect.forkScoped(time.keep(client.Time(), changes))
      state = {
        ...state,
        state: "up",
        carrier: connected.link.carrier,
        problem: "",
        reason: null,
        connects: state.connects + 1
      }
      connects.add(connected.link.carrier)
      yield* onUp
      yield* Effect.logInfo("signaling is up").pipe(
        Effect.annotateLogs({ relay: state.relay, carrier: connected.link.carrier })
      )
      return yield* Effect.raceFirst(watch, Effect.raceFirst(moved, Deferred.await(goAway)))
    },
    Effect.scoped,
    Effect.ensuring(SubscriptionRef.set(link, Option.none()))
  )

  /**
   * Handles a link that ended or failed. A relay that no longer knows this node has removed it, so
   * everything that the node still does ends now.
   */
  const onDown = Effect.fnUntraced(
    function*({ error, known, problem }: Reconnect.Down<LinkClient.LinkError | RpcClientError>) {
      const failed = error?._tag === "LinkError" ? error : null
      const reason = failed?.reason ?? null
      const isRefused = reason === "handshake_refused"
      if (error !== null) waitForDns = (reason === "unreachable" || reason === "timed_out") && !waitForDns
      if (isRefused && failed?.code === UNKNOWN_NODE) {
        yield* PubSub.publish(events, { _tag: "Revoked", node: node.identity.key })
      }
      state = { ...state, state: isRefused ? "refused" : "connecting", problem, reason }
      yield* known
        ? Effect.logDebug("signaling is still down", problem)
        : Effect.logWarning(`signaling is down: ${problem}`)
    }
  )

  yield* Self.fork(Reconnect.keep({
    firstDelayMs: FIRST_DELAY_MS,
    run: live,
    onDown,
    cues: [
      // The network may have been the problem.
      { notices: Stream.fromPubSub(networkChanges), delayMs: Effect.succeed(MOVED_DELAY_MS), forgives: false },
      // The relay takes packets a moment before it takes links.
      { notices: Stream.fromPubSub(answers), delayMs: Random.nextRange(0, ANSWERS_DELAY_MS), forgives: true }
    ]
  }))
  yield* Self.fork(
    Stream.runForEach(
      stun.subscribe((client) => client.NetworkChanges()),
      (change) =>
        Effect.suspend(() => {
          idleCuts.onNetworkChange()
          state = { ...state, keepaliveMs: null }
          return PubSub.publish(networkChanges, change)
        })
    )
  )

  /**
   * Makes a failure of an interrupted call. A link that is replaced interrupts its calls in flight,
   * and their callers, which were not interrupted, must learn that.
   */
  const replaced = (cause: Cause.Cause<unknown>) =>
    Cause.isInterruptedOnly(cause)
      ? Option.some(Effect.fail(new SignalingDown({ message: "the link to the relay was replaced during the call" })))
      : Option.none()

  const withClient = <A, E>(call: (client: Client) => Effect.Effect<A, E | RpcClientError>) =>
    link.changes.pipe(
      Stream.filterMap((up) => up),
      Stream.runHead,
      Effect.flatten,
      Effect.timeout(LINK_PATIENCE),
      Effect.catchAll(() => Effect.suspend(() => Effect.fail(new SignalingDown({ message: state.problem })))),
      Effect.flatMap(({ client }) => Effect.catchSomeCause(call(client), replaced)),
      Effect.catchIf(isLinkError, (error) => Effect.fail(new SignalingDown({ message: error.message })))
    )

  const subscription = Effect.gen(function*() {
    const later = yield* PubSub.subscribe(events)
    const first: ReadonlyArray<NodeEvent> = [time.learned, snapshot.read()].filter((event) => event !== null)
    return { first, later }
  })

  return SignalingRpcs.of({
    Dial: (payload) => withClient((client) => client.Dial(payload)),
    Ready: (payload) => Effect.zipRight(answered(payload), withClient((client) => client.Ready(payload))),
    Decline: (payload) => Effect.zipRight(answered(payload), withClient((client) => client.Decline(payload))),
    BrowsersLost: () => withClient((client) => client.BrowsersLost()),
    SessionsLost: (payload) => withClient((client) => client.SessionsLost(payload)),
    Presence: (payload) => withClient((client) => client.Presence(payload)),
    Renew: (payload) => withClient((client) => client.Renew(payload)),
    Resources: () =>
      withClient((client) =>
        Effect.map(Stream.runCollect(Stream.take(client.Resources(), MAX_RESOURCES)), (all) => [...all])
      ),
    TurnCredentials: () => withClient((client) => client.TurnCredentials()),
    Forward: (payload) => withClient((client) => client.Forward(payload)),
    Events: () =>
      Stream.unwrapScoped(Effect.gen(function*() {
        const { first, later } = yield* subscription
        const before = [...first, ...invitations.waiting(hostMs())]
        return Stream.concat(Stream.fromIterable(before), Stream.fromQueue(later))
      })),
    Wanted: () =>
      Stream.unwrapScoped(
        Effect.map(
          subscription,
          ({ first, later }) => Stream.concat(Stream.fromIterable(first), Stream.fromQueue(later))
        )
      ).pipe(
        Stream.filterMap((event): Option.Option<Wanted> =>
          event._tag === "Examine"
            ? Option.some(event)
            : event._tag === "Snapshot" && event.reports === true
            ? Option.some({ _tag: "ReportWanted" })
            : Option.none()
        )
      ),
    Report: (payload) => withClient((client) => client.Report(payload)),
    Findings: (payload) => withClient((client) => client.Findings(payload)),
    RelayAnswers: () => Effect.asVoid(PubSub.publish(answers, undefined)),
    State: () => Effect.map(time.clockAheadMs, (clockAheadMs) => ({ ...state, clockAheadMs })),
    AwaitUp: () => Effect.asVoid(Stream.runHead(Stream.filter(link.changes, Option.isSome)))
  })
})

/**
 * Most resources that one answer to an operator lists. The relay is not trusted to keep to a limit.
 */
const MAX_RESOURCES = 1000

const movedAway = (why: string): Reconnect.Ended => ({ why, delayMs: MOVED_DELAY_MS })
const sentAway = (delayMs: number): Reconnect.Ended => ({
  why: "the relay asked this node to connect again, as when it stops",
  delayMs
})

const isLinkError = (error: unknown): error is RpcClientError => error instanceof RpcClientError

const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`

const proxyOf = ({ host, httpsPort }: NodeState.NodeState["relay"], proxy: string | null): string | null => {
  const choice = LinkClient.proxyOf({ host, port: httpsPort, proxy })
  return choice._tag === "Proxy" ? `${ProxyUrl.render(choice.proxy)} (${choice.from})` : null
}

/** The SignalingActor, for the runtime that starts it. */
export const actor = Actor.make({
  address: Signaling,
  config: Config,
  uses: [Stun],
  layer: (config) => SignalingRpcs.toLayer(make(config))
})
