/**
 * The authenticated link to the relay, from connecting to its end. `Reconnect` makes the next one.
 * The relay may set the delay before it (GOAWAY). When this host has moved away from the
 * link's address, the next link follows at once.
 */
import { RpcClient } from "@effect/rpc"
import type { RpcClientError } from "@effect/rpc/RpcClientError"
import { Deferred, Duration, Effect, PubSub, Random, Stream } from "effect"
import type * as NodeState from "../../services/identity/NodeState.ts"
import * as RpcOverLink from "../../session/RpcOverLink.ts"
import * as LinkClient from "../../transport/link/LinkClient.ts"
import type { NetworkChange } from "../stun/StunRpcs.ts"
import type { EventFeed } from "./EventFeed.ts"
import type { Client, LinkCalls } from "./LinkCalls.ts"
import type { LinkCondition } from "./LinkCondition.ts"
import * as Reconnect from "./Reconnect.ts"
import { RelaySignalingRpcs, type SignalingEvent, UNKNOWN_NODE } from "./RelaySignalingRpcs.ts"
import type * as TimeKeeper from "./TimeKeeper.ts"

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
/**
 * Most network changes that may wait. The oldest is dropped when it is full, because each change
 * means only "look again".
 */
const CHANGES_CAPACITY = 4

/** How the node reaches its relay. */
export interface Way {
  readonly carrier: LinkClient.Options["carrier"]
  readonly proxy: string | null
  readonly ca: string | null
}

/** Options of {@link make}. */
export interface Options {
  readonly node: Pick<NodeState.NodeState, "relay" | "identity">
  readonly condition: LinkCondition
  readonly way: Way
  /** Time of `HostClock`, in ms. */
  readonly hostMs: () => number
  /** Returns the stored addresses of the relay's name. */
  readonly lastAddresses: Effect.Effect<ReadonlyArray<string>>
  readonly time: Pick<Effect.Effect.Success<ReturnType<typeof TimeKeeper.make>>, "learn" | "keep">
  readonly feed: Pick<EventFeed, "onEvent" | "onReach" | "publish">
  readonly calls: Pick<LinkCalls, "use" | "drop">
}

/** Makes the link. There is none until `keep` runs. */
export const make = Effect.fnUntraced(function*(options: Options) {
  const { calls, condition, feed, hostMs, lastAddresses, node, time, way } = options
  const opener = yield* LinkClient.LinkOpener
  const networkChanges = yield* PubSub.sliding<NetworkChange>(CHANGES_CAPACITY)
  /** Says that packets reach the relay again. One notice is enough. */
  const answers = yield* PubSub.sliding<void>(1)

  const connect = Effect.fnUntraced(function*() {
    const { host, httpsPort: port, tls: trust } = node.relay
    const known = condition.waitForDns ? [] : yield* lastAddresses
    return yield* opener.connect({
      ...way,
      host,
      lastAddresses: known,
      port,
      trust,
      purpose: "signal",
      identity: node.identity
    })
  })
  /** Passes the relay's events on until the relay ends them. `goAway` is done by its GOAWAY. */
  const watch = (client: Client, goAway: Deferred.Deferred<Reconnect.Ended>) => {
    const sentAt = hostMs()
    const onSnapshot = Effect.fnUntraced(function*(event: SignalingEvent & { readonly _tag: "Snapshot" }) {
      yield* time.learn({ directoryMs: event.serverTime, sentAt, receivedAt: hostMs() })
      yield* feed.onEvent(event)
      yield* calls.use(client)
      yield* feed.onReach(true)
    })
    return Stream.runForEach(client.Watch(), (event) =>
      event._tag === "GoAway"
        ? Deferred.succeed(goAway, sentAway(event.reconnectAfterMs))
        : event._tag === "Snapshot"
        ? onSnapshot(event)
        : feed.onEvent(event))
  }

  /** Runs one link, from connecting to its end. */
  const live = Effect.fnUntraced(
    function*(onUp: Effect.Effect<void>) {
      const goAway = yield* Deferred.make<Reconnect.Ended>()
      const changes = Stream.fromPubSub(networkChanges)
      // The connection may be waiting for answers to an address that is gone.
      const overtaken = Effect.as(Stream.runHead(changes), null)
      const connected = yield* Effect.raceFirst(connect(), overtaken)
      if (connected === null) {
        return movedAway("this host's network changed while the connection to the relay was being made")
      }
      const { carrier } = connected.link
      const protocol = yield* RpcOverLink.makeClient(connected.link, {
        checks: changes,
        pingEvery: Duration.millis(condition.gapMs),
        onCut: condition.onCut
      })
      const moved = changes.pipe(
        Stream.filter(({ hosts }) => !hosts.includes(connected.localHost)),
        Stream.runHead,
        // TCP itself would take minutes to notice.
        Effect.as(movedAway("this host no longer has the address of its connection to the relay"))
      )
      const client = yield* RpcClient.make(RelaySignalingRpcs).pipe(Effect.provideService(RpcClient.Protocol, protocol))
      const watching = Effect.as(watch(client, goAway), Reconnect.BY_RELAY)
      yield* Effect.forkScoped(time.keep(client.Time(), changes))
      condition.onUp(carrier)
      yield* onUp
      yield* Effect.logInfo("signaling is up").pipe(Effect.annotateLogs({ relay: condition.state.relay, carrier }))
      return yield* Effect.raceFirst(watching, Effect.raceFirst(moved, Deferred.await(goAway)))
    },
    Effect.scoped,
    Effect.ensuring(Effect.zipRight(calls.drop, feed.onReach(false)))
  )

  /**
   * Handles a link that ended or failed. A relay that no longer knows this node has removed it, so
   * everything that the node still does ends now.
   */
  const onDown = Effect.fnUntraced(
    function*({ error, known, problem }: Reconnect.Down<LinkClient.LinkError | RpcClientError>) {
      condition.onDown(problem, error)
      if (condition.state.state === "refused" && error?._tag === "LinkError" && error.code === UNKNOWN_NODE) {
        yield* feed.publish({ _tag: "Revoked", node: node.identity.key })
      }
      yield* known
        ? Effect.logDebug("signaling is still down", problem)
        : Effect.logWarning(`signaling is down: ${problem}`)
    }
  )

  return {
    /** Keeps a link open for as long as the caller's fiber runs. */
    keep: Reconnect.keep({
      firstDelayMs: FIRST_DELAY_MS,
      run: live,
      onDown,
      cues: [
        // The network may have been the problem.
        { notices: Stream.fromPubSub(networkChanges), delayMs: Effect.succeed(MOVED_DELAY_MS), forgives: false },
        // The relay takes packets a moment before it takes links.
        { notices: Stream.fromPubSub(answers), delayMs: Random.nextRange(0, ANSWERS_DELAY_MS), forgives: true }
      ]
    }),
    onNetworkChange: (change: NetworkChange) =>
      Effect.suspend(() => {
        condition.onNetworkChange()
        return Effect.asVoid(PubSub.publish(networkChanges, change))
      }),
    /** The relay answers packets again, so a new link may succeed now. */
    onRelayAnswers: Effect.asVoid(PubSub.publish(answers, undefined))
  } as const
})

const movedAway = (why: string): Reconnect.Ended => ({ why, delayMs: MOVED_DELAY_MS })
const sentAway = (delayMs: number): Reconnect.Ended => ({
  why: "the relay asked this node to connect again, as when it stops",
  delayMs
})
