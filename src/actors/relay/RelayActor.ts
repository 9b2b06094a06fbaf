/**
 * Keeps a node bound at its home relay, so that packets can be relayed from the first moment. It
 * uses UDP where that works. Otherwise it uses a link (TCP or HTTP/3), and returns to UDP as soon
 * as UDP answers. `RelayBinding` decides what to send and when. This actor sends it through the
 * data plane's own socket, because the relay binds the 5-tuple from which packets come. Its parts
 * are `HomeAddresses`, `HomeLegs`, `SpareRelays` and `OpenSessions`.
 */
import { Duration, Effect, Either, Match, Schema, Stream } from "effect"
import * as Candidate from "../../protocol/candidate/Candidate.ts"
import * as MappingLifetime from "../../protocol/nat/MappingLifetime.ts"
import { KEEPALIVE_MS } from "../../protocol/relay/RelayBinding.ts"
import * as RelayWire from "../../protocol/relay/RelayWire.ts"
import type { Signed } from "../../protocol/trust/Signed.ts"
import * as NodeState from "../../services/identity/NodeState.ts"
import * as RelayAddresses from "../../services/network/RelayAddresses.ts"
import { nowMs } from "../../session/MonotonicClock.ts"
import { LINK_ADDRESS, StreamMux } from "../mux/StreamMuxRpcs.ts"
import * as Actor from "../runtime/actor/Actor.ts"
import type { RpcsOf } from "../runtime/actor/ActorAddress.ts"
import type { ActorRef } from "../runtime/actor/ActorRef.ts"
import * as Inbox from "../runtime/actor/Inbox.ts"
import { Peers } from "../runtime/actor/Peers.ts"
import * as Self from "../runtime/actor/Self.ts"
import type { RelayInfo, SessionId } from "../signaling/RelaySignalingRpcs.ts"
import { type NodeEvent, Signaling } from "../signaling/SignalingRpcs.ts"
import { type ControlDatagram, type NetworkChange, Stun } from "../stun/StunRpcs.ts"
import type * as BindingLoop from "./BindingLoop.ts"
import * as HomeAddresses from "./HomeAddresses.ts"
import * as HomeLegs from "./HomeLegs.ts"
import * as LegChoice from "./LegChoice.ts"
import * as OpenSessions from "./OpenSessions.ts"
import { Relay, RelayRpcs } from "./RelayRpcs.ts"
import * as SpareRelays from "./SpareRelays.ts"

/** Settings of the RelayActor. */
export const Config = Schema.Struct({ stateDir: Schema.String })
export type Config = typeof Config.Type

/** Most messages that may wait. When the inbox is full, callers and the readers of events wait. */
const INBOX_CAPACITY = 512
/**
 * How often DNS is asked for the relay's name while UDP gets no answer, or while no address of the
 * name is known.
 */
const RESOLVE_GAP = Duration.seconds(30)
const WAKE = "wake"
const RESOLVE = "resolve"

type Message =
  | HomeLegs.Event
  | { readonly _tag: "Signal"; readonly event: NodeEvent }
  | { readonly _tag: "Control"; readonly datagram: ControlDatagram }
  | { readonly _tag: "Open"; readonly session: SessionId; readonly ticket: Signed }
  | { readonly _tag: "Close"; readonly session: SessionId }
  | { readonly _tag: "MuxStarted" | "StunStarted" | "Resolve" | "Wake" }
  /** The answer of DNS for the relay's name. `hosts` is `null` if there was none. */
  | { readonly _tag: "Resolved"; readonly host: string; readonly hosts: ReadonlyArray<string> | null }
  | { readonly _tag: "NetworkChanged"; readonly change: NetworkChange }
  | { readonly _tag: "WaysOut"; readonly ways: BindingLoop.WaysOut }

type Mux = ActorRef<RpcsOf<typeof StreamMux>>
type StunRef = ActorRef<RpcsOf<typeof Stun>>
type SignalingRef = ActorRef<RpcsOf<typeof Signaling>>

const make = Effect.fnUntraced(function*(config: Config) {
  const node = yield* NodeState.load(config.stateDir)
  const mux = yield* Peers.ref(StreamMux)
  const signaling = yield* Peers.ref(Signaling)
  const stun = yield* Peers.ref(Stun)
  const scope = yield* Effect.scope
  const fork = (effect: Effect.Effect<unknown>) => Effect.asVoid(Effect.forkIn(effect, scope))
  const sessions = OpenSessions.make(node.identity.key)
  let credential: Signed | null = null
  const bindings: BindingLoop.Node = {
    mux,
    identity: node.identity,
    tickets: sessions.tickets,
    credential: () => credential
  }
  const spares = SpareRelays.make(bindings)
  const home = HomeAddresses.make({
    remembered: (host) => RelayAddresses.known(config.stateDir, host),
    lookUp: (host) =>
      RelayAddresses.ask(config.stateDir, host).pipe(
        Effect.flatMap((hosts) => inbox.post({ _tag: "Resolved", host, hosts })),
        fork
      )
  })
  const legs = yield* HomeLegs.make({
    node: bindings,
    home,
    dataPlane: dataPlaneOf(mux),
    listeners: {
      relayAnswers: Effect.ignore(signaling.ask((client) => client.RelayAnswers())),
      mappingChanged: Effect.ignore(stun.ask((client) => client.MappingChanged()))
    },
    post: (event) => inbox.post(event),
    postAfter: (delay, event) => inbox.setTimer(event._tag, delay, event),
    fork
  })
  const presenters = () => [...legs.bindings, spares]

  const place = placeRules({
    home,
    legs,
    tellStun: (servers) => Effect.ignore(stun.ask((client) => client.SetServers(servers))),
    resolveLater: Effect.suspend(() => inbox.setTimer(RESOLVE, RESOLVE_GAP, { _tag: "Resolve" }))
  })
  const onSignal = Effect.fnUntraced(function*(event: NodeEvent, now: number) {
    if (event._tag === "Snapshot") yield* place.onSnapshot(event.relay, now)
    if (event._tag === "BindingsLost") yield* legs.udp.onNetworkChanged(now)
    if (event._tag === "Snapshot" || event._tag === "RelaysChanged") yield* spares.onList(event.relays, now)
    if (event._tag === "Snapshot" || event._tag === "CredentialRenewed") {
      ;({ credential } = event)
      yield* Effect.zipRight(legs.udp.onCredential(now), spares.onCredential(now))
    }
  })
  const onControl = Effect.fnUntraced(function*({ bytes, from }: ControlDatagram, now: number) {
    const decoded = RelayWire.decode(bytes)
    if (Either.isLeft(decoded)) return
    if (from.host === LINK_ADDRESS.host) yield* legs.onLinkMessage(decoded.right, now)
    else if (home.isFrom(from)) yield* legs.udp.onMessage(decoded.right, now)
    else yield* spares.onMessage(from, decoded.right, now)
  })
  const onNetworkChanged = Effect.fnUntraced(function*({ lost, reason }: NetworkChange, now: number) {
    // This actor itself reported that change, after it was bound again.
    if (reason === "mapping") return
    yield* legs.onNetworkChanged(lost, now)
    // Another network's DNS may give other addresses for the same name.
    yield* home.resolve
    yield* spares.onNetworkChanged(now)
  })
  const onLegs = (event: HomeLegs.Event) => (now: number) => legs.on(event, now)

  const on: (message: Message) => (now: number) => Effect.Effect<void> = Match.type<Message>().pipe(
    Match.tagsExhaustive({
      OpenLink: onLegs,
      TryHttp3: onLegs,
      LinkOpened: onLegs,
      LinkEnded: onLegs,
      Forbidden: onLegs,
      Signal: ({ event }) => (now: number) => onSignal(event, now),
      Control: ({ datagram }) => (now: number) => onControl(datagram, now),
      Open: ({ session, ticket }) => (now: number) => sessions.open(session, ticket, presenters(), now),
      Close: ({ session }) => () => sessions.close(session, presenters()),
      MuxStarted: () => (now: number) =>
        Effect.all(
          [sessions.onMuxStarted([legs.udp]), legs.onMuxStarted(now), spares.onMuxStarted(now)],
          { discard: true }
        ),
      StunStarted: () => () => place.tellStun,
      NetworkChanged: ({ change }) => (now: number) => onNetworkChanged(change, now),
      WaysOut: ({ ways }) => (now: number) => Effect.zipRight(legs.onWaysOut(ways, now), spares.onWaysOut(ways, now)),
      Resolve: () => () => (legs.udp.phase === "bound" ? Effect.void : home.resolve),
      Resolved: ({ host, hosts }) => (now: number) => place.onResolved(host, hosts, now),
      Wake: () => (now: number) => Effect.forEach(presenters(), (it) => it.onTick(now), { discard: true })
    })
  )
  const handle = Effect.fnUntraced(function*(message: Message) {
    yield* on(message)(yield* nowMs)
    const at = Math.min(...presenters().map(({ wakeAt }) => wakeAt))
    if (at < Infinity) yield* inbox.setTimer(WAKE, Math.max(1, at - (yield* nowMs)), { _tag: "Wake" })
  })
  const inbox: Inbox.Inbox<Message> = yield* Inbox.make<Message>({ name: "relay", capacity: INBOX_CAPACITY, handle })
  yield* follow({ mux, signaling, stun }, inbox.post)

  return RelayRpcs.of({
    OpenSession: ({ session, ticket }) => Effect.asVoid(inbox.post({ _tag: "Open", session, ticket })),
    CloseSession: ({ session }) => Effect.asVoid(inbox.post({ _tag: "Close", session })),
    State: () => legs.state,
    AwaitBound: () => legs.awaitBound
  })
})

interface PlaceOptions {
  readonly home: HomeAddresses.HomeAddresses
  readonly legs: HomeLegs.HomeLegs
  readonly tellStun: (servers: NonNullable<HomeAddresses.HomeAddresses["servers"]>) => Effect.Effect<void>
  /** Has DNS asked again after a time. */
  readonly resolveLater: Effect.Effect<void>
}

/** How the legs and the StunActor follow the home relay to its addresses. */
const placeRules = ({ home, legs, ...options }: PlaceOptions) => {
  /** Gives the StunActor the relay's addresses, at which it can ask for mapped addresses. */
  const tellStun = Effect.suspend(() => {
    const { servers } = home
    return servers === null ? Effect.void : options.tellStun(servers)
  })
  const onSnapshot = Effect.fnUntraced(function*(info: RelayInfo, now: number) {
    if (home.relay !== null) yield* legs.onConnected(now)
    if (yield* home.onInfo(info)) {
      legs.udp.setPlace(home.place)
      yield* tellStun
    }
    if (home.place.hosts.length === 0) yield* Effect.zipRight(legs.settleWithoutUdp, legs.openLink)
    yield* home.resolve
  })
  /** Follows the answer of DNS, and asks it again later while UDP does not work. */
  const onResolved = Effect.fnUntraced(function*(host: string, found: ReadonlyArray<string> | null, now: number) {
    const { udp } = legs
    const before = udp.address
    const result = yield* home.onResolved(host, found, udp.phase === "bound" && before !== null ? before.host : null)
    if (result === "stale") return
    if (result === "changed") {
      udp.setPlace(home.place)
      yield* tellStun
      if (!LegChoice.isSamePlace(before, udp.address)) yield* udp.onNetworkChanged(now)
    }
    if (udp.phase === "bound") return
    if (home.place.hosts.length === 0 || udp.phase === "udp_blocked") yield* legs.settleWithoutUdp
    yield* options.resolveLater
  })
  return { onSnapshot, onResolved, tellStun } as const
}

/** Posts what other actors say, until the scope ends. */
const follow = (
  { mux, signaling, stun }: { readonly mux: Mux; readonly signaling: SignalingRef; readonly stun: StunRef },
  post: (message: Message) => Effect.Effect<unknown>
) => {
  const waysOut = stun.subscribe((client) => client.Candidates()).pipe(
    Stream.map(({ candidates, lifetime }): BindingLoop.WaysOut => ({
      keepaliveMs: MappingLifetime.keepaliveMs(lifetime ?? null, KEEPALIVE_MS),
      families: Candidate.familiesOf(candidates)
    })),
    Stream.changesWith((a, b) => a.keepaliveMs === b.keepaliveMs && a.families.join() === b.families.join())
  )
  const datagrams = mux.subscribe((client) => client.ControlDatagrams({ kind: "relay" }))
  return Effect.all([
    each(mux.incarnations, () => post({ _tag: "MuxStarted" })),
    each(stun.incarnations, () => post({ _tag: "StunStarted" })),
    each(stun.subscribe((client) => client.NetworkChanges()), (change) => post({ _tag: "NetworkChanged", change })),
    each(waysOut, (ways) => post({ _tag: "WaysOut", ways })),
    each(datagrams, (datagram) => post({ _tag: "Control", datagram })),
    each(signaling.subscribe((client) => client.Events()), (event) => post({ _tag: "Signal", event }))
  ], { discard: true })
}

const each = <A, E>(stream: Stream.Stream<A, E>, use: (element: A) => Effect.Effect<unknown>) =>
  Self.fork(Stream.runForEach(stream, use))

const dataPlaneOf = (mux: Mux): HomeLegs.DataPlane => ({
  useLeg: (leg) => Effect.ignore(mux.ask((client) => client.UseLeg({ leg }))),
  openLink: ({ http3 }) => mux.ask((client) => client.OpenLink({ http3 }), { deadline: "12 seconds" }),
  replaceByHttp3: mux.ask((client) => client.ReplaceLinkByHttp3(), { deadline: "12 seconds" }),
  linkEnded: mux.ask((client) => client.LinkEnded(), { deadline: "1 day" }),
  closeLink: Effect.ignore(mux.ask((client) => client.CloseLink()))
})

/** Layer of the actor. It needs the data plane, signaling and the StunActor as its peers. */
export const layer = (config: Config) => RelayRpcs.toLayer(make(config))

/** The RelayActor, for the runtime that starts it. */
export const actor = Actor.make({
  address: Relay,
  config: Config,
  uses: [Signaling, StreamMux, Stun],
  layer
})
