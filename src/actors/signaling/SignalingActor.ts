/**
 * Keeps one authenticated link to the relay, makes calls on it for the other actors, and passes the
 * relay's events to them. Its parts are `SignalingLink`, `LinkCondition`, `LinkCalls`, `EventFeed`
 * and `TimeKeeper`.
 */
import { Effect, Schema, Stream } from "effect"
import * as ProxyUrl from "../../protocol/relay/ProxyUrl.ts"
import { HostClock } from "../../services/host/HostClock.ts"
import * as NodeState from "../../services/identity/NodeState.ts"
import * as RelayAddresses from "../../services/network/RelayAddresses.ts"
import * as LinkClient from "../../transport/link/LinkClient.ts"
import * as Actor from "../runtime/actor/Actor.ts"
import { Peers } from "../runtime/actor/Peers.ts"
import * as Self from "../runtime/actor/Self.ts"
import { Stun } from "../stun/StunRpcs.ts"
import * as EventFeed from "./EventFeed.ts"
import * as LinkCalls from "./LinkCalls.ts"
import * as LinkCondition from "./LinkCondition.ts"
import * as SignalingLink from "./SignalingLink.ts"
import { Signaling, SignalingRpcs } from "./SignalingRpcs.ts"
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

const make = Effect.fnUntraced(function*(config: Config) {
  const node = yield* NodeState.load(config.stateDir)
  const stun = yield* Peers.ref(Stun)
  const self = yield* Self.Self
  const hostMs = (yield* HostClock).now
  const time = yield* TimeKeeper.make({ hostMs, onLearned: (event) => feed.publish(event) })
  const feed: EventFeed.EventFeed = yield* EventFeed.make({ hostMs, learned: () => time.learned })
  const condition = LinkCondition.make({
    relay: `${node.relay.host}:${node.relay.httpsPort}`,
    proxy: proxyOf(node.relay, config.proxy)
  })
  const calls = yield* LinkCalls.make(() => condition.state.problem)
  const link = yield* SignalingLink.make({
    node,
    way: { carrier: config.carrier, proxy: config.proxy, ca: config.ca },
    condition,
    hostMs,
    lastAddresses: RelayAddresses.known(config.stateDir, node.relay.host),
    time,
    feed,
    calls
  })
  yield* self.exposeMetrics(condition.metrics)
  yield* Self.fork(link.keep)
  yield* Self.fork(Stream.runForEach(stun.subscribe((client) => client.NetworkChanges()), link.onNetworkChange))

  const { call } = calls
  return SignalingRpcs.of({
    Dial: (payload) => call((client) => client.Dial(payload)),
    Ready: (payload) => Effect.zipRight(feed.onAnswered(payload.session), call((client) => client.Ready(payload))),
    Decline: (payload) => Effect.zipRight(feed.onAnswered(payload.session), call((client) => client.Decline(payload))),
    BrowsersLost: () => call((client) => client.BrowsersLost()),
    SessionsLost: (payload) => call((client) => client.SessionsLost(payload)),
    Presence: (payload) => call((client) => client.Presence(payload)),
    Renew: (payload) => call((client) => client.Renew(payload)),
    Resources: () =>
      call((client) =>
        Effect.map(Stream.runCollect(Stream.take(client.Resources(), MAX_RESOURCES)), (all) => [...all])
      ),
    TurnCredentials: () => call((client) => client.TurnCredentials()),
    Forward: (payload) => call((client) => client.Forward(payload)),
    Events: () => feed.events,
    Wanted: () => feed.wanted,
    Report: (payload) => call((client) => client.Report(payload)),
    Findings: (payload) => call((client) => client.Findings(payload)),
    RelayAnswers: () => link.onRelayAnswers,
    State: () => Effect.map(time.clockAheadMs, (clockAheadMs) => ({ ...condition.state, clockAheadMs })),
    AwaitUp: () => calls.awaitUp
  })
})

/**
 * Most resources that one answer to an operator lists. The relay is not trusted to keep to a limit.
 */
const MAX_RESOURCES = 1000

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
