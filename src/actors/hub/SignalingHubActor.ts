/**
 * The relay's side of signaling. It lets nodes in over the relay link, answers their calls,
 * arranges sessions between them, and notifies them of changes. The `Board` holds which nodes are
 * connected. The directory holds which node may do what, and is asked every time.
 */
import { RpcServer } from "@effect/rpc"
import { Effect, Layer, Random, Schedule, Schema, Stream } from "effect"
import { proxiedName } from "../../protocol/relay/LinkHandshake.ts"
import type { Resource } from "../../protocol/trust/Documents.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import * as AppPage from "../../services/admin/AppPage.ts"
import * as Directory from "../../services/directory/Directory.ts"
import * as DirectoryHealth from "../../services/directory/DirectoryHealth.ts"
import * as Crypto from "../../services/host/Crypto.ts"
import * as Authority from "../../services/identity/Authority.ts"
import * as DirectoryClock from "../../services/identity/DirectoryClock.ts"
import * as RelayTls from "../../services/identity/RelayTls.ts"
import * as RpcOverLink from "../../session/RpcOverLink.ts"
import * as LinkServer from "../../transport/link/LinkServer.ts"
import { RelayForwarder } from "../forwarder/RelayForwarderRpcs.ts"
import * as Actor from "../runtime/actor/Actor.ts"
import { Peers } from "../runtime/actor/Peers.ts"
import * as Self from "../runtime/actor/Self.ts"
import { RelayInfo, RelaySignalingRpcs } from "../signaling/RelaySignalingRpcs.ts"
import * as Board from "./Board.ts"
import * as DialDesk from "./desks/DialDesk.ts"
import * as NetworkDesk from "./desks/NetworkDesk.ts"
import * as SessionDesk from "./desks/SessionDesk.ts"
import * as TurnDesk from "./desks/TurnDesk.ts"
import * as DirectoryChanges from "./DirectoryChanges.ts"
import { HubMetrics } from "./HubMetrics.ts"
import * as NodeLinks from "./NodeLinks.ts"
import { NodeRates } from "./NodeRates.ts"
import { bridge } from "./PacketBridge.ts"
import * as RemovedNodes from "./RemovedNodes.ts"
import { HubError, Policy, SignalingHub, SignalingHubRpcs } from "./SignalingHubRpcs.ts"
import * as SignedDocuments from "./SignedDocuments.ts"

/** Settings of the SignalingHubActor, from the relay's configuration. */
export const Config = Schema.Struct({
  stateDir: Schema.String,
  https: Schema.Struct({ host: Schema.String, port: Schema.Int }),
  /**
   * Path of the unix socket by which another process hands over HTTP/3 links. `null` if none does.
   */
  gate: Schema.NullOr(Schema.String),
  /**
   * Addresses of the relay, as nodes receive them. A port of 0 stands for the one that was bound.
   */
  advertise: RelayInfo,
  tls: Schema.NullOr(Schema.Struct({ cert: Schema.String, key: Schema.String })),
  /** Addresses and CIDRs of balancers that speak the PROXY protocol. */
  proxyProtocol: Schema.optionalWith(Schema.Array(Schema.String), { default: () => [] }),
  /** Addresses and CIDRs of reverse proxies that end TLS. `null` if there are none. */
  behindProxy: Schema.optionalWith(Schema.NullOr(Schema.Array(Schema.String)), { default: () => null }),
  /** Whether the forwarder is configured to offer TURN. */
  turn: Schema.Boolean,
  /** Whether the page for people is served at `/app`. */
  app: Schema.Boolean,
  policy: Policy
})
export type Config = typeof Config.Type

/** How often the directory is checked for changes by another process, such as the command line. */
const DIRECTORY_POLL = "200 millis"
/**
 * How often the directory stores its time. A relay that is killed and starts with a clock set back
 * repeats at most this much time.
 */
const KEEP_TIME = "20 seconds"
/**
 * Longest delay that nodes get before they reconnect, when the relay stops. The delays are spread
 * evenly.
 */
const GO_AWAY_SPREAD_MS = 2_000

/** Makes the actor. The directory's time is found first, because everything in the hub uses it. */
const make = Effect.fnUntraced(function*(config: Config) {
  const directory = yield* Directory.Directory
  const time = yield* DirectoryClock.start(yield* directory.latestTime)
  return yield* Effect.provideService(makeBy(config, time), DirectoryClock.DirectoryClock, time)
})

const makeBy = Effect.fnUntraced(function*(config: Config, time: DirectoryClock.Running) {
  const directory = yield* Directory.Directory
  const authority = yield* Authority.Authority
  const tls = yield* RelayTls.RelayTls
  const forwarder = yield* Peers.ref(RelayForwarder)
  const scope = yield* Effect.scope
  const self = yield* Self.Self
  const board = Board.make()
  const metrics = new HubMetrics()
  yield* self.exposeMetrics(() => metrics.read(board.links.values()))
  const rates = new NodeRates()
  const network = yield* NetworkDesk.make({ board, directory })
  const removed = RemovedNodes.make({
    board,
    directory,
    forwarder,
    forget: (node) => {
      network.onRemoved(node)
      rates.onRemoved(node)
    },
    fork: (effect) => Effect.asVoid(Effect.forkIn(effect, scope))
  })
  const signed = SignedDocuments.make({ authority, board, directory })
  const udp = yield* forwarder.ask((client) => client.AwaitListening(), { deadline: "10 seconds" })
  yield* directory.replacePolicy(config.policy)
  const relay = { ...config.advertise, udpPort: config.advertise.udpPort || udp.udp }
  const rpc = yield* RpcOverLink.makeServer()
  const links = NodeLinks.make({
    board,
    directory,
    authority,
    removed,
    relay,
    browsers: tls.trust._tag !== "Pin" || config.behindProxy !== null,
    bridge: (link, node) => bridge(link, node, forwarder),
    serve: rpc.serve,
    onConnected: network.onLink
  })
  const changes = yield* DirectoryChanges.make({ board, directory, removed, signed })
  const health = DirectoryHealth.make(Effect.flatMap(time.nowMs, directory.keepTime))
  const turn = { stateDir: config.stateDir, directory, host: relay.host, ports: config.turn ? udp.turn : null }
  const calls = callsOf({
    network,
    links,
    changes,
    dials: DialDesk.make({ board, directory, signed, rates, metrics }),
    sessions: yield* SessionDesk.make({ board, directory, authorityKey: authority.key, signed, rates, metrics }),
    turnCredentials: yield* TurnDesk.make(turn),
    resourcesFor: (node) => Effect.orDie(directory.allResourcesFor(node, null)),
    time: time.nowMs
  })

  const tellTime = Effect.ignore(forwarder.ask((client) => client.SetTime({ offsetMs: time.offsetMs })))
  /** Makes nodes bind again now, and not only at their next keepalive. */
  const onForwarderRestart = Effect.gen(function*() {
    yield* tellTime
    yield* removed.tellForwarder
    for (const node of board.links.keys()) board.send(node, { _tag: "BindingsLost" })
  })
  yield* removed.tellForwarder
  yield* Self.fork(Layer.launch(Layer.provide(calls, Layer.succeed(RpcServer.Protocol, rpc.protocol))))
  const server = yield* serve(config, tls, links)
  yield* Self.fork(Stream.runForEach(Stream.drop(forwarder.incarnations, 1), () => onForwarderRestart))
  relay.httpsPort = config.advertise.httpsPort || server.port
  yield* tellTime
  yield* Self.fork(Effect.repeat(health.write, Schedule.spaced(KEEP_TIME)))
  yield* Effect.addFinalizer(() => health.write)
  yield* Self.fork(Effect.repeat(changes.poll, Schedule.spaced(DIRECTORY_POLL)))
  yield* Self.fork(signed.keepCredentialsFresh)
  yield* Effect.addFinalizer(() => Effect.zipRight(sendAway(board), server.stop({ goAwayMs: 300 })))

  return SignalingHubRpcs.of({
    AwaitListening: () => Effect.succeed({ https: server.port }),
    SetPolicy: (policy) =>
      directory.replacePolicy(policy).pipe(
        Effect.asVoid,
        Effect.mapError(({ message }) => new HubError({ message }))
      ),
    Nodes: () => Effect.sync(() => [...board.links.values()].map(nodeOfLink)),
    Condition: () =>
      Effect.map(time.clockAheadMs, (clockAheadMs) => {
        const { problem: directoryProblem, slowWriteMs } = health.now
        return { clockAheadMs, directoryProblem, slowWriteMs }
      }),
    Network: network.overview,
    Examine: ({ name }) => network.examine(name)
  })
})

/** The desks that answer the calls of nodes. */
interface Desks {
  readonly links: ReturnType<typeof NodeLinks.make>
  readonly dials: ReturnType<typeof DialDesk.make>
  readonly sessions: Effect.Effect.Success<ReturnType<typeof SessionDesk.make>>
  readonly changes: Effect.Effect.Success<ReturnType<typeof DirectoryChanges.make>>
  readonly network: Effect.Effect.Success<ReturnType<typeof NetworkDesk.make>>
  readonly turnCredentials: Effect.Effect.Success<ReturnType<typeof TurnDesk.make>>
  readonly resourcesFor: (node: NodeKey) => Effect.Effect<ReadonlyArray<Resource>>
  readonly time: Effect.Effect<number>
}

/** Layer of the server that answers the calls of nodes: each call goes to its desk. */
const callsOf = ({ changes, dials, links, network, resourcesFor, sessions, time, turnCredentials }: Desks) =>
  Layer.provide(
    RpcServer.layer(RelaySignalingRpcs, {
      concurrency: "unbounded",
      disableFatalDefects: true,
      spanPrefix: "signaling"
    }),
    RelaySignalingRpcs.toLayer({
      Watch: (_, { headers }) => links.watch(nodeOf(headers)),
      Time: () => time,
      Dial: ({ exclude, target }, { headers }) => dials.dial(nodeOf(headers), target, exclude),
      Ready: ({ session }, { headers }) => dials.ready(session, nodeOf(headers)),
      Decline: ({ reason, session }, { headers }) => dials.decline(session, nodeOf(headers), reason),
      BrowsersLost: (_, { headers }) => sessions.browsersLost(nodeOf(headers)),
      SessionsLost: ({ held }, { headers }) => sessions.sessionsLost(nodeOf(headers), held),
      Presence: ({ ticket }, { headers }) => sessions.presence(nodeOf(headers), ticket),
      Renew: ({ ticket }, { headers }) => sessions.renew(nodeOf(headers), ticket),
      TurnCredentials: (_, { headers }) => turnCredentials(nodeOf(headers)),
      Report: ({ text }, { headers }) => network.report(nodeOf(headers), text),
      Findings: ({ question, text }, { headers }) => network.findings(nodeOf(headers), question, text),
      PlaceRelay: (point, { headers }) => changes.placeRelay(nodeOf(headers), point),
      Resources: (_, { headers }) => Stream.unwrap(Effect.map(resourcesFor(nodeOf(headers)), Stream.fromIterable)),
      Forward: ({ box, session }, { headers }) => sessions.forward(nodeOf(headers), session, box)
    })
  )

/** Accepts links at the relay's HTTPS port, and those that another process hands over. */
const serve = Effect.fnUntraced(function*(
  { advertise, app, behindProxy, gate, https, proxyProtocol }: Config,
  tls: typeof RelayTls.RelayTls.Service,
  { authenticate, onLink }: Pick<Desks["links"], "authenticate" | "onLink">
) {
  return yield* LinkServer.make({
    pages: app ? yield* AppPage.load({ http3: gate !== null }) : () => undefined,
    host: https.host,
    port: https.port,
    gate: gate ?? undefined,
    fronts: { proxyProtocol, reverseProxies: behindProxy ?? [] },
    proxiedHash: behindProxy === null ? undefined : Crypto.sha256(proxiedName(advertise.host)),
    tls: yield* tls.current,
    tlsChanges: tls.changes,
    endorse: tls.endorse,
    authenticate,
    onLink
  })
})

/** Notifies all nodes that the relay stops, and when each of them should reconnect. */
const sendAway = Effect.fnUntraced(function*(board: ReturnType<typeof Board.make>) {
  for (const node of board.links.keys()) {
    const reconnectAfterMs = yield* Random.nextRange(200, GO_AWAY_SPREAD_MS)
    board.send(node, { _tag: "GoAway", reconnectAfterMs })
  }
})

const nodeOfLink = ({ member, since }: Board.Link) => ({
  name: member.shown,
  role: member.role,
  network: member.network,
  nodeKey: member.key,
  since
})

/** Returns the key of the calling node. The server takes it from the proof in the handshake. */
const nodeOf = (headers: { readonly [name: string]: string | undefined }) =>
  (headers[RpcOverLink.NODE_HEADER] ?? "") as NodeKey

/** The SignalingHubActor, for the runtime that starts it. */
export const actor = Actor.make({
  address: SignalingHub,
  config: Config,
  uses: [RelayForwarder],
  layer: (config) => {
    const { stateDir } = config
    return SignalingHubRpcs.toLayer(make(config)).pipe(Layer.provide([
      Directory.layer({ stateDir }),
      Authority.layer({ stateDir }),
      RelayTls.layer({ stateDir, host: config.advertise.host, tls: config.tls })
    ]))
  }
})
