/**
 * The legs at the home relay: the binding over UDP, and a link where UDP does not work. The node
 * returns to UDP as soon as UDP answers. This part holds the rules between `UdpLeg`, `LinkLeg`,
 * `LegChoice` and the relay's addresses. Work that takes long runs in fibers of its
 * own and comes back as an `Event`, which the RelayActor's loop gives to `on`.
 */
import { type Duration, Effect, Match } from "effect"
import type { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import type { BlockedReason, LostReason } from "../../protocol/relay/RelayBinding.ts"
import type * as RelayWire from "../../protocol/relay/RelayWire.ts"
import * as Metrics from "../../services/telemetry/Metrics.ts"
import type { LegChoice as Leg } from "../mux/StreamMuxRpcs.ts"
import { Self } from "../runtime/actor/Self.ts"
import type { NetworkChange } from "../stun/StunRpcs.ts"
import * as BindingLoop from "./BindingLoop.ts"
import type * as HomeAddresses from "./HomeAddresses.ts"
import * as Http3Return from "./Http3Return.ts"
import * as LegChoice from "./LegChoice.ts"
import * as LinkLeg from "./LinkLeg.ts"
import type { LegKind } from "./RelayRpcs.ts"
import * as UdpLeg from "./UdpLeg.ts"

/** Work that is due, or that has ended in another fiber. */
export type Event =
  | { readonly _tag: "OpenLink" | "TryHttp3" | "Forbidden" }
  | { readonly _tag: "LinkOpened"; readonly of: BindingLoop.BindingLoop; readonly kind: LegKind }
  | { readonly _tag: "LinkEnded"; readonly of: BindingLoop.BindingLoop }

/** The data plane's part of a leg. */
export interface DataPlane {
  readonly useLeg: (leg: Leg | null) => Effect.Effect<void>
  readonly openLink: (options: { readonly http3: boolean }) => Effect.Effect<LegKind, { readonly message: string }>
  /** Opens a link over HTTP/3 for the next `openLink` to use, then ends the link in use. */
  readonly replaceByHttp3: Effect.Effect<void, { readonly message: string }>
  readonly linkEnded: Effect.Effect<void, { readonly message: string }>
  readonly closeLink: Effect.Effect<void>
}

/** The other actors that hear of the legs. */
export interface Listeners {
  /** The relay answers. If signaling waits for its next try, it need not wait any longer. */
  readonly relayAnswers: Effect.Effect<void>
  /** The node's address changed although this host did not move. */
  readonly mappingChanged: Effect.Effect<void>
}

/** Options of {@link make}. */
export interface Options {
  readonly node: BindingLoop.Node
  readonly dataPlane: DataPlane
  readonly listeners: Listeners
  readonly home: HomeAddresses.HomeAddresses
  /**
   * Has `event` handled by `on`, now or after a delay. A later one replaces a delayed one of its
   * tag.
   */
  readonly post: (event: Event) => Effect.Effect<unknown>
  readonly postAfter: (delay: Duration.Duration, event: Event) => Effect.Effect<void>
  /** Runs an effect in a fiber of its own, which ends with the actor. */
  readonly fork: (effect: Effect.Effect<unknown>) => Effect.Effect<void>
}

/** Makes the legs, none of which is bound. They send nothing until `onMuxStarted` is called. */
export const make = Effect.fnUntraced(function*(options: Options) {
  const { dataPlane, fork, home, listeners, node, post, postAfter } = options
  const counts = yield* makeCounts
  const newBinding = (carrier: BindingLoop.Carrier, ways: BindingLoop.WaysOut): BindingLoop.BindingLoop =>
    BindingLoop.make({
      node,
      carrier,
      relay: null,
      place: { hosts: [], port: 0 },
      ways,
      onBound: (mapped) => onBound(carrier, mapped),
      onLost: (reason) => onLost(carrier, reason),
      onBlocked: (reason, host, again) => onBlocked(reason, host, again),
      onForbidden: Effect.suspend(() => post({ _tag: "Forbidden" })),
      onMoved: Effect.void
    })
  const udpLeg = UdpLeg.make(newBinding("udp", BindingLoop.NO_WAYS_OUT))
  const { binding: udp } = udpLeg
  const link = LinkLeg.make({
    connection: {
      open: Effect.suspend(() => dataPlane.openLink({ http3: home.relay?.http3 === true })),
      ended: dataPlane.linkEnded,
      close: dataPlane.closeLink
    },
    newBinding: (ways) => newBinding("link", ways),
    fork,
    onOpened: (of, kind) => Effect.asVoid(post({ _tag: "LinkOpened", of, kind })),
    onEnded: (of) => Effect.asVoid(post({ _tag: "LinkEnded", of }))
  })
  const leg = yield* LegChoice.make({
    carriers: { udp, link },
    useLeg: dataPlane.useLeg,
    relayAnswers: fork(listeners.relayAnswers)
  })
  const settleWithoutUdp = Effect.suspend(() => leg.settle(home.whyNotUdp()))
  const openLink = Effect.suspend(() => post({ _tag: "OpenLink" }))
  const reopenLink = Effect.zipRight(link.close, openLink)
  const http3 = Http3Return.make({
    link,
    hasHttp3: () => home.relay?.http3 === true,
    replace: dataPlane.replaceByHttp3,
    fork,
    wake: (delay) => postAfter(delay, { _tag: "TryHttp3" })
  })

  const onBound = Effect.fnUntraced(function*(carrier: BindingLoop.Carrier, mapped: SocketAddr | null) {
    counts.binds.add(carrier)
    if (carrier === "link") return yield* leg.settle(home.whyNotUdp(), true)
    home.onUdpBound()
    yield* leg.settle(LegChoice.WORKS, true)
    if (link.binding !== null) yield* link.close
    if (udpLeg.isRemapped(mapped)) yield* listeners.mappingChanged
  })
  const onLost = Effect.fnUntraced(function*(carrier: BindingLoop.Carrier, why: LostReason) {
    counts.losses.add(carrier)
    yield* leg.settle({ cause: "lost", reason: `the ${carrier === "udp" ? "UDP" : "link"} leg was lost: ${why}` })
    if (carrier === "link") yield* reopenLink
  })
  const onBlocked = Effect.fnUntraced(function*(reason: BlockedReason, host: string, again: boolean) {
    home.onBlocked(reason, host)
    yield* settleWithoutUdp
    if (again) return
    yield* openLink
    // The relay may have moved, and its name may have new addresses.
    yield* home.resolve
  })
  const onLinkEnded = Effect.fnUntraced(function*(of: BindingLoop.BindingLoop, now: number) {
    if (!link.isEnded(of, now)) return
    yield* leg.settle({ cause: "lost", reason: "the link to the relay ended" })
    if (udp.phase === "bound") return
    const delay = yield* link.retryDelay({ hasSessions: node.tickets.size > 0, lostAt: leg.lostAt }, now)
    yield* postAfter(delay, { _tag: "OpenLink" })
  })

  return {
    udp,
    state: leg.state,
    awaitBound: leg.awaitBound,
    /** Says again why UDP does not work, after the reason has changed. */
    settleWithoutUdp,
    openLink,
    /** Bindings at the home relay that exist now. */
    get bindings(): ReadonlyArray<BindingLoop.BindingLoop> {
      return link.binding === null ? [udp] : [udp, link.binding]
    },
    on: (event: Event, now: number): Effect.Effect<void> =>
      Match.value(event).pipe(Match.tagsExhaustive({
        OpenLink: () => (udp.phase === "bound" ? Effect.void : link.open(now)),
        LinkOpened: ({ kind, of }) =>
          link.isOpened(of, kind, now) ? Effect.zipRight(settleWithoutUdp, http3.onOpened(kind)) : Effect.void,
        TryHttp3: () => http3.onDue,
        LinkEnded: ({ of }) => onLinkEnded(of, now),
        Forbidden: () => udpLeg.onForbidden(now)
      })),
    /**
     * Binds again after signaling has connected again: the relay, or a NAT on the way, may have
     * restarted and lost the binding. The relay takes links again, so the next try of one need not
     * wait.
     */
    onConnected: Effect.fnUntraced(function*(now: number) {
      const wasBlocked = udp.phase === "udp_blocked"
      yield* udp.onNetworkChanged(now)
      if (wasBlocked && link.binding === null) yield* openLink
    }),
    /** Takes a control message that came over the link. It is dropped if there is none. */
    onLinkMessage: (message: RelayWire.Message, now: number) => link.binding?.onMessage(message, now) ?? Effect.void,
    onWaysOut: (ways: BindingLoop.WaysOut, now: number) => {
      link.onWaysOut(ways)
      return udp.onWaysOut(ways, now)
    },
    /**
     * Proves the legs again. A link that used a lost address would not fail by itself, so it is
     * replaced.
     */
    onNetworkChanged: Effect.fnUntraced(function*(lost: NetworkChange["lost"], now: number) {
      yield* udpLeg.onNetworkChanged(now)
      yield* http3.onNetworkChanged
      if (link.binding === null) return
      yield* lost.length > 0 ? reopenLink : link.binding.onNetworkChanged(now)
    }),
    /**
     * Starts over with a new data plane. Its sockets are new, so the relay must bind a new 5-tuple.
     */
    onMuxStarted: Effect.fnUntraced(function*(now: number) {
      link.forget()
      yield* leg.onMuxStarted
      yield* udpLeg.onMuxStarted(now)
    })
  } as const
})

/** The legs at the home relay, as {@link make} returns them. */
export type HomeLegs = Effect.Effect.Success<ReturnType<typeof make>>

/** Counts for the metrics of this process. */
const makeCounts = Effect.gen(function*() {
  const binds = new Metrics.Counts<BindingLoop.Carrier>()
  const losses = new Metrics.Counts<BindingLoop.Carrier>()
  const self = yield* Self
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
  return { binds, losses }
})
