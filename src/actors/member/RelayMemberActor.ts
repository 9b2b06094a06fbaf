/**
 * Runs on a relay that has joined another one. It keeps a link to the directory, registers there
 * where this relay is, and passes on which nodes are removed. Forwarding needs none of this:
 * without the link, the relay serves every node that has documents of the authority.
 */
import { RpcClient } from "@effect/rpc"
import { Deferred, Duration, Effect, Schema, Stream } from "effect"
import { lookup } from "node:dns/promises"
import { MAX_ADDRESSES } from "../../protocol/relay/RelayPoint.ts"
import { Name } from "../../protocol/trust/Documents.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import { HostClock } from "../../services/host/HostClock.ts"
import * as NodeState from "../../services/identity/NodeState.ts"
import * as RpcOverLink from "../../session/RpcOverLink.ts"
import * as LinkClient from "../../transport/link/LinkClient.ts"
import { RelayForwarder } from "../forwarder/RelayForwarderRpcs.ts"
import * as Actor from "../runtime/actor/Actor.ts"
import { Peers } from "../runtime/actor/Peers.ts"
import * as Self from "../runtime/actor/Self.ts"
import * as Reconnect from "../signaling/Reconnect.ts"
import { RelaySignalingRpcs } from "../signaling/RelaySignalingRpcs.ts"
import * as TimeKeeper from "../signaling/TimeKeeper.ts"
import { type MemberState, RelayMember, RelayMemberRpcs } from "./RelayMemberRpcs.ts"

/** Settings of the RelayMemberActor, from the relay's configuration. */
export const Config = Schema.Struct({
  stateDir: Schema.String,
  name: Name,
  /** Name or literal address by which nodes reach this relay. */
  host: Schema.NonEmptyString,
  /** UDP port as nodes see it. 0 stands for the port that was bound. */
  port: Schema.Int,
  /**
   * Proxy by which the directory is reached: a URL, `none`, or `null` if the environment decides.
   */
  proxy: Schema.optionalWith(Schema.NullOr(Schema.String), { default: () => null }),
  /** PEM file of authorities beside the public ones. `null` if there is none. */
  ca: Schema.optionalWith(Schema.NullOr(Schema.String), { default: () => null })
})
export type Config = typeof Config.Type

/** Longest delay before a new link after a good one ended. It doubles with each failure. */
const FIRST_DELAY_MS = 200
/**
 * How often DNS is asked for this relay's own name, so that nodes learn about a changed address.
 */
const PLACE_AGAIN = Duration.minutes(1)
/**
 * Most removed nodes that are remembered for a restarted forwarder. One more makes it forget the
 * oldest, whose credential has expired by then.
 */
const MAX_REVOKED = 4096

class NotFound extends Schema.TaggedError<NotFound>()("NotFound", { message: Schema.String }) {}

const SENT_AWAY: Reconnect.Ended = { why: "the directory asked this relay to connect again", delayMs: null }
const RESTARTED: Reconnect.Ended = {
  why: "this relay's forwarder was restarted, so the relay registers again",
  delayMs: null
}

const make = Effect.fnUntraced(function*(config: Config) {
  const node = yield* NodeState.load(config.stateDir)
  const forwarder = yield* Peers.ref(RelayForwarder)
  const { authorityKey: _, host, httpsPort, tls: trust } = node.relay
  const revoked = new Set<NodeKey>()
  const hostMs = (yield* HostClock).now
  const opener = yield* LinkClient.LinkOpener
  // Documents are judged by the directory's time here, too, and never by this machine's clock.
  const setTime = ({ offsetMs }: TimeKeeper.TimeLearned) =>
    Effect.ignore(forwarder.ask((client) => client.SetTime({ offsetMs })))
  const time = yield* TimeKeeper.make({ hostMs, onLearned: setTime })
  let state: Omit<MemberState, "clockAheadMs"> = {
    up: false,
    relay: `${host}:${httpsPort}`,
    problem: "first connection under way"
  }

  /**
   * Whether the directory was ever reached. Before that, this relay does not know which nodes were
   * removed.
   */
  let wasUp = false
  const setReach = Effect.suspend(() =>
    wasUp ? Effect.ignore(forwarder.ask((client) => client.SetReach({ reached: state.up }))) : Effect.void
  )

  const revoke = (nodeKey: NodeKey) =>
    Effect.suspend(() => {
      const [oldest] = revoked
      if (revoked.size >= MAX_REVOKED && oldest !== undefined) revoked.delete(oldest)
      revoked.add(nodeKey)
      return Effect.ignore(forwarder.ask((client) => client.Revoke({ nodeKey })))
    })

  /** Finds where this relay is: the addresses of its name, and its UDP port. */
  const place = Effect.gen(function*() {
    const found = yield* Effect.tryPromise({
      try: () => lookup(config.host, { all: true, order: "ipv4first" }),
      catch: () => new NotFound({ message: `this relay's own name ${config.host} cannot be resolved; check DNS` })
    })
    const [first, ...rest] = found.map(({ address }) => address).slice(0, MAX_ADDRESSES)
    if (first === undefined) return yield* new NotFound({ message: `${config.host} has no address; check DNS` })
    const { udp } = yield* forwarder.ask((client) => client.AwaitListening(), { deadline: "10 seconds" })
    return { name: config.name, addresses: [first, ...rest] as const, port: config.port || udp }
  })

  /** Runs one link, from connecting to its end. */
  const live = Effect.fnUntraced(function*(onUp: Effect.Effect<void>) {
    const point = yield* place
    const { link } = yield* opener.connect({
      host,
      port: httpsPort,
      trust,
      carrier: "auto",
      proxy: config.proxy,
      ca: config.ca,
      purpose: "signal",
      identity: node.identity
    })
    const protocol = yield* RpcOverLink.makeClient(link, { checks: Stream.never })
    const client = yield* RpcClient.make(RelaySignalingRpcs).pipe(Effect.provideService(RpcClient.Protocol, protocol))
    yield* Effect.forkScoped(time.keep(client.Time(), Stream.never))
    yield* client.PlaceRelay(point)
    state = { ...state, up: true, problem: "" }
    wasUp = true
    yield* setReach
    yield* onUp
    yield* Effect.logInfo("listed at the directory").pipe(Effect.annotateLogs({ relay: state.relay, ...point }))
    let listed = point
    const follow = Effect.gen(function*() {
      const next = yield* place
      if (next.addresses.join() === listed.addresses.join() && next.port === listed.port) return
      yield* client.PlaceRelay(next)
      listed = next
      yield* Effect.logInfo("listed at other addresses").pipe(Effect.annotateLogs({ ...next }))
    })
    yield* Effect.forkScoped(
      Effect.forever(Effect.zipRight(Effect.sleep(PLACE_AGAIN), Effect.ignore(follow)))
    )
    const sentAway = yield* Deferred.make<Reconnect.Ended>()
    const sentAt = hostMs()
    const watch = Stream.runForEach(client.Watch(), (event) => {
      if (event._tag === "Snapshot") {
        return Effect.suspend(() => time.learn({ directoryMs: event.serverTime, sentAt, receivedAt: hostMs() }))
      }
      if (event._tag === "GoAway") return Deferred.succeed(sentAway, SENT_AWAY)
      return event._tag === "Revoked" && event.node !== node.identity.key ? revoke(event.node) : Effect.void
    })
    // A restarted forwarder has lost its bindings. Registering at the directory again makes every
    // node bind to this relay again.
    const restarted = Stream.runHead(Stream.drop(forwarder.incarnations, 1))
    return yield* Effect.raceFirst(
      Effect.as(watch, Reconnect.BY_RELAY),
      Effect.raceFirst(Deferred.await(sentAway), Effect.as(restarted, RESTARTED))
    )
  }, Effect.scoped)

  const onDown = ({ known, problem }: Reconnect.Down<unknown>) =>
    Effect.suspend(() => {
      state = { ...state, up: false, problem }
      const tell = known
        ? Effect.void
        : Effect.logWarning(`no link to the directory, forwarding goes on: ${problem}`)
      return Effect.zipRight(setReach, tell)
    })
  yield* Self.fork(Reconnect.keep({ firstDelayMs: FIRST_DELAY_MS, run: live, onDown }))
  yield* Self.fork(
    Stream.runForEach(
      forwarder.incarnations,
      () =>
        Effect.suspend(() => time.learned === null ? Effect.void : setTime(time.learned)).pipe(
          Effect.zipRight(Effect.forEach([...revoked], revoke, { discard: true })),
          Effect.zipRight(setReach)
        )
    )
  )

  return RelayMemberRpcs.of({
    State: () => Effect.map(time.clockAheadMs, (clockAheadMs) => ({ ...state, clockAheadMs }))
  })
})

/** The RelayMemberActor, for the runtime that starts it. */
export const actor = Actor.make({
  address: RelayMember,
  config: Config,
  uses: [RelayForwarder],
  layer: (config) => RelayMemberRpcs.toLayer(make(config))
})
