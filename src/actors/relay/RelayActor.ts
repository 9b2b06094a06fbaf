/**
 * Keeps a node bound at its home relay, so that packets can be relayed from the first moment. It
 * uses UDP where that works. Otherwise it uses a link (TCP or HTTP/3), and returns to UDP as soon
 * as UDP answers. `RelayBinding` decides what to send and when. This actor sends it through the
 * data plane's own socket, because the relay binds the 5-tuple from which packets come.
 */
import { Duration, Effect, Either, Random, Schema, Stream, SubscriptionRef } from "effect"
import { isIP } from "node:net"
import { tagFromHex } from "../../protocol/bytes/Frame.ts"
import type { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import * as Candidate from "../../protocol/candidate/Candidate.ts"
import * as MappingLifetime from "../../protocol/nat/MappingLifetime.ts"
import { type BlockedReason, HURRY_MS, KEEPALIVE_MS, type LostReason } from "../../protocol/relay/RelayBinding.ts"
import * as RelayWire from "../../protocol/relay/RelayWire.ts"
import * as Documents from "../../protocol/trust/Documents.ts"
import type { Signed } from "../../protocol/trust/Signed.ts"
import * as NodeState from "../../services/identity/NodeState.ts"
import * as RelayAddresses from "../../services/network/RelayAddresses.ts"
import * as Metrics from "../../services/telemetry/Metrics.ts"
import { nowMs } from "../../session/MonotonicClock.ts"
import { LINK_ADDRESS, StreamMux } from "../mux/StreamMuxRpcs.ts"
import * as Actor from "../runtime/actor/Actor.ts"
import * as Inbox from "../runtime/actor/Inbox.ts"
import { Peers } from "../runtime/actor/Peers.ts"
import * as Self from "../runtime/actor/Self.ts"
import type { RelayInfo, SessionId } from "../signaling/RelaySignalingRpcs.ts"
import { type NodeEvent, Signaling } from "../signaling/SignalingRpcs.ts"
import { type ControlDatagram, type NetworkChange, Stun } from "../stun/StunRpcs.ts"
import * as BindingLoop from "./BindingLoop.ts"
import { type LegKind, type LegState, Relay, RelayRpcs } from "./RelayRpcs.ts"
import * as SpareRelays from "./SpareRelays.ts"

/** Settings of the RelayActor. */
export const Config = Schema.Struct({ stateDir: Schema.String })
export type Config = typeof Config.Type

/** Most messages that may wait. When the inbox is full, callers and the readers of events wait. */
const INBOX_CAPACITY = 512
/** Delay before a link is tried again that failed or ended early. */
const RETRY_LINK = Duration.seconds(3)
/**
 * Longest such delay in the first {@link HURRY_MS} after the node lost its last leg, if sessions
 * are open. The delay is random, from half of this on, which spreads the nodes of a relay that
 * restarts.
 */
const HURRY_LINK_MS = 600
/**
 * Least time between two new bindings after refused datagrams. It is longer than an unanswered one
 * takes.
 */
const FORBIDDEN_GAP_MS = 5000
/**
 * How often DNS is asked for the relay's name while UDP gets no answer, or while no address of the
 * name is known.
 */
const RESOLVE_GAP = Duration.seconds(30)
/**
 * How long a bound link must have been open so that it is replaced at once when it ends. It worked,
 * so the other end has probably been stopped.
 */
const SERVED_MS = 500
const WAKE = "wake"
const RESOLVE = "resolve"

type Message =
  | { readonly _tag: "Signal"; readonly event: NodeEvent }
  | { readonly _tag: "Control"; readonly datagram: ControlDatagram }
  | { readonly _tag: "Open"; readonly session: SessionId; readonly ticket: Signed }
  | { readonly _tag: "Close"; readonly session: SessionId }
  | { readonly _tag: "MuxStarted" | "StunStarted" | "OpenLink" | "Resolve" | "Forbidden" }
  /** The answer of DNS for the relay's name. `hosts` is `null` if there was none. */
  | { readonly _tag: "Resolved"; readonly host: string; readonly hosts: ReadonlyArray<string> | null }
  | { readonly _tag: "NetworkChanged"; readonly change: NetworkChange }
  | { readonly _tag: "WaysOut"; readonly ways: BindingLoop.WaysOut }
  | { readonly _tag: "LinkEnded"; readonly of: BindingLoop.BindingLoop }
  | { readonly _tag: "LinkOpened"; readonly of: BindingLoop.BindingLoop; readonly kind: LegKind }
  | { readonly _tag: "Wake" }

/** The home relay and the addresses known for it. */
interface Known {
  readonly info: RelayInfo
  /** Addresses of the relay's name, IPv4 first. Empty if none is known. */
  readonly hosts: ReadonlyArray<string>
  /**
   * The same addresses with the relay's UDP port. Empty if the relay takes packets over links only.
   */
  readonly addresses: ReadonlyArray<SocketAddr>
}

const make = Effect.fnUntraced(function*(config: Config) {
  const node = yield* NodeState.load(config.stateDir)
  const mux = yield* Peers.ref(StreamMux)
  const signaling = yield* Peers.ref(Signaling)
  const stun = yield* Peers.ref(Stun)
  const state = yield* SubscriptionRef.make<LegState>({
    kind: null,
    relay: null,
    mapped: null,
    cause: "waiting",
    reason: "waiting for signaling"
  })

  const binds = new Metrics.Counts<BindingLoop.Carrier>()
  const losses = new Metrics.Counts<BindingLoop.Carrier>()
  const self = yield* Self.Self
  yield* self.exposeMetrics(() => [
    Metrics.counter(
      { name: "sallyport_relay_leg_binds", help: "Times that the relay took this node's packets, by carrier." },
      binds.points("carrier")
    ),
    Metrics.counter(
      { name: "sallyport_relay_leg_losses", help: "Times that the relay fell silent or refused, by carrier." },
      losses.points("carrier")
    )
  ])

  const tickets = new Map<SessionId, BindingLoop.Ticket>()
  let credential: Signed | null = null
  let ways = BindingLoop.NO_WAYS_OUT
  const bindings: BindingLoop.Node = { mux, identity: node.identity, tickets, credential: () => credential }
  const spares = SpareRelays.make(bindings)

  const newBinding = (carrier: BindingLoop.Carrier): BindingLoop.BindingLoop =>
    BindingLoop.make({
      node: bindings,
      carrier,
      relay: null,
      place: NOWHERE,
      ways,
      onBound: (mapped) => onBound(carrier, mapped),
      onLost: (reason) => onLost(carrier, reason),
      onBlocked: (reason, host, again) => onBlocked(reason, host, again),
      onForbidden: Effect.suspend(() => inbox.post({ _tag: "Forbidden" })),
      onMoved: Effect.void
    })
  const udp = newBinding("udp")
  /** Binding over the link while it is open or being opened, otherwise `null`. */
  let link: BindingLoop.BindingLoop | null = null
  let linkKind: LegKind | null = null
  /** When the link was opened, in ms (monotonic). */
  let linkOpenedAt = Infinity
  /** When the last leg was lost, in ms (monotonic). `-Infinity` if none was yet. */
  let lostAt = -Infinity
  /** Why the last try to open a link failed. `null` if it did not. */
  let linkProblem: string | null = null
  let relay: Known | null = null
  /** Addresses of the relay that answered only small packets. */
  const tooSmall = new Set<string>()
  /**
   * Whether DNS is being asked. There is one query at a time, because a dead name server holds each
   * for many seconds.
   */
  let resolving = false
  /** Whether DNS had no answer last time. */
  let unresolved = false
  let hasMux = false
  /**
   * This node's address as the relay last saw it. `null` if it has not yet, or not since this
   * host's own network changed; the next address is then taken as it is.
   */
  let lastMapped: SocketAddr | null = null

  /** When the binding was last started again because of a refused datagram. */
  let forbiddenAt = -Infinity
  /**
   * Binds again, because the firewall of this machine has just refused a datagram: without an
   * answer the leg moves to a link at once, and not only when a keepalive fails.
   */
  const onForbidden = Effect.fnUntraced(function*(now: number) {
    if (udp.phase !== "bound" || now - forbiddenAt < FORBIDDEN_GAP_MS) return
    forbiddenAt = now
    yield* udp.onNetworkChanged(now)
  })

  /** Says why relayed packets do not travel by UDP. Only for when UDP is not bound. */
  const whyNotUdp = (): Why => {
    if (relay === null) return { cause: "waiting", reason: "waiting for signaling" }
    const { addresses, hosts, info } = relay
    if (info.udpPort === 0) return { cause: "no_udp", reason: "the relay takes packets over links only" }
    if (hosts.length === 0) return { cause: "name", reason: `DNS gives no address for the relay's name ${info.host}` }
    if (unresolved && addresses.length > 0) {
      const reason = `UDP to the relay gets no answer at its last address, and DNS gives none for ${info.host}`
      return { cause: "name", reason }
    }
    if (tooSmall.size > 0) {
      const reason =
        `UDP to the relay carries small packets only: those of ${RelayWire.PROOF_BYTES} bytes get no answer`
      return { cause: "udp_too_small", reason }
    }
    return { cause: "udp_unanswered", reason: "UDP to the relay gets no answer" }
  }

  /**
   * Chooses the leg: UDP if it is bound, otherwise the link, otherwise nothing. The data plane is
   * notified when that changes, or when the leg was bound again.
   */
  const settle = Effect.fnUntraced(function*({ cause, reason }: Why, anew = false) {
    const bound: LegKind | null = udp.phase === "bound" ? "relay-udp" : link?.phase === "bound" ? linkKind : null
    const relayNow = udp.address
    const before = yield* SubscriptionRef.get(state)
    yield* SubscriptionRef.set(state, { kind: bound, relay: relayNow, mapped: udp.mapped, cause, reason })
    const changed = before.kind !== bound || !isSamePlace(before.relay, relayNow)
    if (before.kind !== null && bound === null) lostAt = yield* nowMs
    if (bound !== null && (anew || before.kind === null)) yield* Effect.forkIn(tellSignaling, scope)
    if (!changed && !anew) return
    const leg = bound === null
      ? null
      : bound === "relay-udp" && relayNow !== null
      ? { kind: bound, relay: relayNow }
      : { kind: "link" as const }
    yield* Effect.ignore(mux.ask((client) => client.UseLeg({ leg })))
    if (!changed) return
    yield* Effect.logInfo("relay leg").pipe(Effect.annotateLogs({ kind: bound ?? "none", reason }))
  })

  /** The relay answers. If signaling waits for its next try, it need not wait any longer. */
  const tellSignaling = Effect.ignore(signaling.ask((client) => client.RelayAnswers()))

  const onBound = (carrier: BindingLoop.Carrier, mapped: SocketAddr | null): Effect.Effect<void> =>
    Effect.suspend(() => {
      binds.add(carrier)
      if (carrier === "link") return settle(whyNotUdp(), true)
      tooSmall.clear()
      return settle(WORKS, true).pipe(
        Effect.zipRight(link === null ? Effect.void : closeLink),
        Effect.zipRight(onMapped(mapped))
      )
    })

  const onLost = (carrier: BindingLoop.Carrier, why: LostReason): Effect.Effect<void> =>
    Effect.suspend(() => {
      losses.add(carrier)
      const reason = `the ${carrier === "udp" ? "UDP" : "link"} leg was lost: ${why}`
      return Effect.zipRight(settle({ cause: "lost", reason }), carrier === "link" ? reopenLink : Effect.void)
    })

  const onBlocked = (reason: BlockedReason, host: string, again: boolean): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (reason === "too_small") tooSmall.add(host)
      else tooSmall.delete(host)
      if (again) return settle(whyNotUdp())
      return settle(whyNotUdp()).pipe(
        Effect.zipRight(inbox.post({ _tag: "OpenLink" })),
        // The relay may have moved, and its name may have new addresses.
        Effect.zipRight(resolve)
      )
    })

  const closeLink = Effect.suspend(() => {
    link = null
    linkKind = null
    return Effect.ignore(mux.ask((client) => client.CloseLink()))
  })

  const reopenLink = Effect.suspend(() => Effect.zipRight(closeLink, inbox.post({ _tag: "OpenLink" })))

  /**
   * Opens a link and waits for its end. It runs in a fiber of its own: opening takes up to ten
   * seconds, and this actor has other work.
   */
  const openLink = (of: BindingLoop.BindingLoop) =>
    Effect.gen(function*() {
      const http3 = relay?.info.http3 === true
      const kind = yield* mux.ask((client) => client.OpenLink({ http3 }), { deadline: "12 seconds" })
      linkProblem = null
      yield* inbox.post({ _tag: "LinkOpened", of, kind })
      yield* mux.ask((client) => client.LinkEnded(), { deadline: "1 day" })
    }).pipe(
      Effect.catchAll(({ message }) => {
        const isKnown = linkProblem === message
        linkProblem = message
        const text = `no packet link to the relay: ${message}`
        return isKnown ? Effect.logDebug(text) : Effect.logWarning(text)
      }),
      Effect.zipRight(Effect.suspend(() => inbox.post({ _tag: "LinkEnded", of })))
    )

  /**
   * Compares the mapped address with the one before. If it changed although this host did not move,
   * a NAT dropped the old mapping. Peers see the new address, too.
   */
  const onMapped = (mapped: SocketAddr | null) =>
    Effect.suspend(() => {
      const before = lastMapped
      lastMapped = mapped
      return before === null || mapped === null || (before.host === mapped.host && before.port === mapped.port)
        ? Effect.void
        : Effect.ignore(stun.ask((client) => client.MappingChanged()))
    })

  /** Gives the StunActor the relay's addresses, at which it can ask for mapped addresses. */
  const tellStun = Effect.suspend(() => {
    if (relay === null) return Effect.void
    const { addresses, hosts } = relay
    const servers = addresses.slice(0, MAX_SERVERS)
    return Effect.ignore(stun.ask((client) => client.SetServers({ servers, relayHost: hosts[0] ?? null })))
  })

  const onSnapshot = Effect.fnUntraced(function*(info: RelayInfo, now: number) {
    // Signaling has connected again. The relay or a NAT on the way may have restarted and lost this
    // binding.
    const wasBlocked = udp.phase === "udp_blocked"
    if (relay !== null) yield* udp.onNetworkChanged(now)
    // The relay takes links again, so the next try of this one need not wait.
    if (wasBlocked && link === null) yield* inbox.post({ _tag: "OpenLink" })
    const isSame = relay !== null && relay.info.host === info.host && relay.info.udpPort === info.udpPort
    const hosts = isSame && relay !== null ? relay.hosts : yield* RelayAddresses.known(config.stateDir, info.host)
    relay = knownAt(info, hosts)
    if (!isSame) {
      udp.setPlace(placeOf(relay))
      yield* tellStun
    }
    if (relay.addresses.length === 0) {
      yield* settle(whyNotUdp())
      yield* inbox.post({ _tag: "OpenLink" })
    }
    yield* resolve
  })

  /**
   * Asks DNS for the relay's name. It runs in a fiber of its own, because a dead name server takes
   * seconds.
   */
  const resolve = Effect.suspend(() => {
    if (relay === null || resolving || isIP(relay.info.host) !== 0) return Effect.void
    resolving = true
    const { host } = relay.info
    return RelayAddresses.ask(config.stateDir, host).pipe(
      Effect.flatMap((hosts) => inbox.post({ _tag: "Resolved", host, hosts })),
      Effect.forkIn(scope)
    )
  })

  /**
   * Handles the answer of DNS. The address in use is kept while it answers, whatever DNS says. An
   * address that is gone is left at once. DNS is asked again later while UDP does not work, because
   * DNS caches return a moved relay's old address for some time.
   */
  const onResolved = Effect.fnUntraced(function*(host: string, found: ReadonlyArray<string> | null, now: number) {
    resolving = false
    if (relay === null) return
    if (relay.info.host !== host) return yield* resolve
    if (found === null && !unresolved) {
      const what = relay.hosts.length > 0 ? "its last addresses are used" : "relayed packets go over TLS"
      yield* Effect.logWarning(`DNS gives no address for the relay's name; ${what}; check this machine's DNS`).pipe(
        Effect.annotateLogs({ host })
      )
    }
    unresolved = found === null
    const before = udp.address
    const inUse = udp.phase === "bound" && before !== null ? [before.host] : []
    const hosts = found === null ? relay.hosts : [...new Set([...inUse, ...found])]
    if (hosts.join() !== relay.hosts.join()) {
      relay = knownAt(relay.info, hosts)
      udp.setPlace(placeOf(relay))
      tooSmall.clear()
      yield* tellStun
      yield* Effect.logInfo("the relay's name has new addresses").pipe(Effect.annotateLogs({ host, hosts }))
      if (!isSamePlace(before, udp.address)) yield* udp.onNetworkChanged(now)
    }
    if (udp.phase === "bound") return
    if (relay.addresses.length === 0 || udp.phase === "udp_blocked") yield* settle(whyNotUdp())
    yield* inbox.setTimer(RESOLVE, RESOLVE_GAP, { _tag: "Resolve" })
  })

  const onCredential = Effect.fnUntraced(function*(signed: Signed, now: number) {
    credential = signed
    yield* udp.onCredential(now)
    yield* spares.onCredential(now)
  })

  const handle = Effect.fnUntraced(function*(message: Message) {
    const now = yield* nowMs
    switch (message._tag) {
      case "Signal": {
        const { event } = message
        if (event._tag === "Snapshot") yield* onSnapshot(event.relay, now)
        if (event._tag === "BindingsLost") yield* udp.onNetworkChanged(now)
        if (event._tag === "Snapshot" || event._tag === "RelaysChanged") yield* spares.onList(event.relays, now)
        if (event._tag === "Snapshot" || event._tag === "CredentialRenewed") yield* onCredential(event.credential, now)
        break
      }
      case "Control": {
        const { bytes, from } = message.datagram
        const decoded = RelayWire.decode(bytes)
        if (Either.isLeft(decoded)) break
        const viaLink = from.host === LINK_ADDRESS.host
        if (viaLink) yield* link?.onMessage(decoded.right, now) ?? Effect.void
        else if (relay?.addresses.some(({ host, port }) => host === from.host && port === from.port)) {
          yield* udp.onMessage(decoded.right, now)
        } else yield* spares.onMessage(from, decoded.right, now)
        break
      }
      case "Open": {
        // The data plane has verified the ticket, and the relay itself judges whether it is in
        // force.
        const decoded = Documents.decode("ticket", message.ticket.payload)
        if (Either.isLeft(decoded)) {
          yield* Effect.logWarning(`a session cannot be opened at the relay: ${decoded.left.message}`)
          break
        }
        const { clientKey, clientTag, connectorTag } = decoded.right
        const tag = tagFromHex(clientKey === node.identity.key ? clientTag : connectorTag)
        const ticket = { tag, ticket: message.ticket }
        tickets.set(message.session, ticket)
        for (const binding of [udp, link, spares]) yield* binding?.onTicket(message.session, ticket, now) ?? Effect.void
        break
      }
      case "Close":
        tickets.delete(message.session)
        for (const binding of [udp, link, spares]) yield* binding?.onTicketRemoved(message.session) ?? Effect.void
        break
      case "MuxStarted":
        yield* onMuxStarted(now)
        break
      case "StunStarted":
        yield* tellStun
        break
      case "NetworkChanged":
        yield* onNetworkChanged(message.change, now)
        break
      case "WaysOut":
        ways = message.ways
        yield* udp.onWaysOut(ways, now)
        yield* spares.onWaysOut(ways, now)
        break
      case "Resolve":
        if (udp.phase !== "bound") yield* resolve
        break
      case "Resolved":
        yield* onResolved(message.host, message.hosts, now)
        break
      case "OpenLink":
        if (link !== null || udp.phase === "bound") break
        link = newBinding("link")
        yield* link.start(now)
        yield* Effect.forkIn(openLink(link), scope)
        break
      case "LinkOpened":
        if (message.of !== link) break
        linkKind = message.kind
        linkOpenedAt = now
        yield* settle(whyNotUdp())
        break
      case "LinkEnded":
        if (message.of !== link) break
        yield* onLinkEnded(link, now)
        break
      case "Forbidden":
        yield* onForbidden(now)
        break
      case "Wake":
        for (const binding of [udp, link, spares]) yield* binding?.onTick(now) ?? Effect.void
    }
    const at = Math.min(udp.wakeAt, link?.wakeAt ?? Infinity, spares.wakeAt)
    if (at < Infinity) yield* inbox.setTimer(WAKE, Math.max(1, at - (yield* nowMs)), { _tag: "Wake" })
  })

  const onLinkEnded = Effect.fnUntraced(function*(ended: BindingLoop.BindingLoop, now: number) {
    const hasServed = ended.phase === "bound" && now - linkOpenedAt >= SERVED_MS
    ended.onLinkClosed()
    link = null
    yield* settle({ cause: "lost", reason: "the link to the relay ended" })
    if (udp.phase === "bound") return
    const isHurried = tickets.size > 0 && now - lostAt < HURRY_MS
    const hurried = Effect.map(Random.nextIntBetween(HURRY_LINK_MS / 2, HURRY_LINK_MS), Duration.millis)
    const delay = hasServed ? Duration.zero : isHurried ? yield* hurried : RETRY_LINK
    yield* inbox.setTimer("link", delay, { _tag: "OpenLink" })
  })

  /**
   * Proves the legs again. A link that used a lost address would not fail by itself, so it is
   * replaced. The mapped address is asked for again at once.
   */
  const onNetworkChanged = Effect.fnUntraced(function*({ lost, reason }: NetworkChange, now: number) {
    // This actor itself reported that change, after it was bound again.
    if (reason === "mapping") return
    lastMapped = null
    yield* udp.onNetworkChanged(now)
    // Another network's DNS may give other addresses for the same name.
    yield* resolve
    yield* spares.onNetworkChanged(now)
    if (link === null) return
    if (lost.length > 0) yield* reopenLink
    else yield* link.onNetworkChanged(now)
  })

  /**
   * Starts over with a new data plane. Its sockets are new, so the relay must bind a new 5-tuple,
   * and the sessions of the data plane before are gone. The first data plane that this actor sees
   * replaces none, and may have opened sessions here already, so these are kept.
   */
  const onMuxStarted = Effect.fnUntraced(function*(now: number) {
    if (hasMux) {
      for (const session of tickets.keys()) yield* udp.onTicketRemoved(session)
      tickets.clear()
    }
    hasMux = true
    link = null
    linkKind = null
    lastMapped = null
    yield* SubscriptionRef.set(state, {
      kind: null,
      relay: null,
      mapped: null,
      cause: "waiting",
      reason: "the data plane has just started"
    })
    yield* udp.start(now)
    yield* spares.onMuxStarted(now)
  })

  const scope = yield* Effect.scope
  const inbox: Inbox.Inbox<Message> = yield* Inbox.make<Message>({ name: "relay", capacity: INBOX_CAPACITY, handle })
  yield* Self.fork(Stream.runForEach(mux.incarnations, () => inbox.post({ _tag: "MuxStarted" })))
  yield* Self.fork(Stream.runForEach(stun.incarnations, () => inbox.post({ _tag: "StunStarted" })))
  yield* Self.fork(
    Stream.runForEach(
      stun.subscribe((client) => client.NetworkChanges()),
      (change) => inbox.post({ _tag: "NetworkChanged", change })
    )
  )
  const waysOut = stun.subscribe((client) => client.Candidates()).pipe(
    Stream.map(({ candidates, lifetime }): BindingLoop.WaysOut => ({
      keepaliveMs: MappingLifetime.keepaliveMs(lifetime ?? null, KEEPALIVE_MS),
      families: Candidate.familiesOf(candidates)
    })),
    Stream.changesWith((a, b) => a.keepaliveMs === b.keepaliveMs && a.families.join() === b.families.join())
  )
  yield* Self.fork(Stream.runForEach(waysOut, (next) => inbox.post({ _tag: "WaysOut", ways: next })))
  yield* Self.fork(
    Stream.runForEach(
      mux.subscribe((client) => client.ControlDatagrams({ kind: "relay" })),
      (datagram) => inbox.post({ _tag: "Control", datagram })
    )
  )
  yield* Self.fork(
    Stream.runForEach(
      signaling.subscribe((client) => client.Events()),
      (event) => inbox.post({ _tag: "Signal", event })
    )
  )

  return RelayRpcs.of({
    OpenSession: ({ session, ticket }) => Effect.asVoid(inbox.post({ _tag: "Open", session, ticket })),
    CloseSession: ({ session }) => Effect.asVoid(inbox.post({ _tag: "Close", session })),
    State: () => SubscriptionRef.get(state),
    AwaitBound: () => Effect.asVoid(Stream.runHead(Stream.filter(state.changes, ({ kind }) => kind !== null)))
  })
})

/** Most addresses of the relay that the StunActor is given. */
const MAX_SERVERS = 8

type Why = Pick<LegState, "cause" | "reason">
const WORKS: Why = { cause: "works", reason: "UDP to the relay works" }

const knownAt = (info: RelayInfo, hosts: ReadonlyArray<string>): Known => ({
  info,
  hosts,
  addresses: info.udpPort === 0 ? [] : hosts.map((host) => ({ host, port: info.udpPort }))
})

/** Addresses at which UDP reaches the relay. */
const placeOf = ({ addresses, info }: Known): BindingLoop.Place => ({
  hosts: addresses.map(({ host }) => host),
  port: info.udpPort
})
const NOWHERE: BindingLoop.Place = { hosts: [], port: 0 }

const isSamePlace = (a: SocketAddr | null, b: SocketAddr | null): boolean => a?.host === b?.host && a?.port === b?.port

/** Layer of the actor. It needs the data plane, signaling and the StunActor as its peers. */
export const layer = (config: Config) => RelayRpcs.toLayer(make(config))

/** The RelayActor, for the runtime that starts it. */
export const actor = Actor.make({
  address: Relay,
  config: Config,
  uses: [Signaling, StreamMux, Stun],
  layer
})
