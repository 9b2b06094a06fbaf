/**
 * The relay's side of signaling. It lets nodes in over the relay link, answers their calls,
 * arranges sessions between them, and notifies them of changes. The `Board` holds which nodes are
 * connected. The directory holds which node may do what, and is asked every time.
 */
import { RpcServer } from "@effect/rpc"
import {
  Clock,
  Deferred,
  Duration,
  Effect,
  Either,
  Exit,
  Layer,
  Mailbox,
  Option,
  Random,
  Redacted,
  Schedule,
  Schema,
  Stream
} from "effect"
import { proxiedName } from "../../protocol/relay/LinkHandshake.ts"
import type { RelayPoint } from "../../protocol/relay/RelayPoint.ts"
import { LIFETIMES } from "../../protocol/trust/Lifetimes.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import * as Signed from "../../protocol/trust/Signed.ts"
import * as AppPage from "../../services/admin/AppPage.ts"
import * as Directory from "../../services/directory/Directory.ts"
import * as Crypto from "../../services/host/Crypto.ts"
import * as Authority from "../../services/identity/Authority.ts"
import * as DirectoryClock from "../../services/identity/DirectoryClock.ts"
import * as RelayTls from "../../services/identity/RelayTls.ts"
import * as Tracing from "../../services/telemetry/Tracing.ts"
import type { Link } from "../../session/Link.ts"
import { nowMs } from "../../session/MonotonicClock.ts"
import * as RpcOverLink from "../../session/RpcOverLink.ts"
import * as LinkServer from "../../transport/link/LinkServer.ts"
import { RelayForwarder } from "../forwarder/RelayForwarderRpcs.ts"
import * as Actor from "../runtime/actor/Actor.ts"
import { Peers } from "../runtime/actor/Peers.ts"
import * as Self from "../runtime/actor/Self.ts"
import {
  type Dialed,
  DialRefused,
  NO_BROWSER,
  NoRelay,
  RelayInfo,
  RelaySignalingRpcs,
  type SessionId,
  type SignalingEvent,
  type Target,
  UNKNOWN_NODE,
  UnknownSession
} from "../signaling/RelaySignalingRpcs.ts"
import * as Board from "./Board.ts"
import { HubMetrics } from "./HubMetrics.ts"
import * as Invites from "./Invites.ts"
import * as NetworkDesk from "./NetworkDesk.ts"
import { NodeRates } from "./NodeRates.ts"
import { bridge } from "./PacketBridge.ts"
import * as RemovedNodes from "./RemovedNodes.ts"
import { HubError, Policy, SignalingHub, SignalingHubRpcs } from "./SignalingHubRpcs.ts"
import * as SignedDocuments from "./SignedDocuments.ts"
import * as TurnDesk from "./TurnDesk.ts"

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
/** A write of a few pages that takes longer is the disk's fault. Each new session waits for one. */
const SLOW_WRITE_MS = 2000
/** Delay before a removed node's link is cut. */
const REVOKED_GRACE = "300 millis"
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
  const board = Board.make()
  const metrics = new HubMetrics()
  const network = yield* NetworkDesk.make({ board, directory })
  const self = yield* Self.Self
  yield* self.exposeMetrics(() => metrics.read(board.links.values()))
  const rates = new NodeRates()
  const removed = RemovedNodes.make({ directory, forwarder })
  const signed = SignedDocuments.make({ authority, board, directory })
  const udp = yield* forwarder.ask((client) => client.AwaitListening(), { deadline: "10 seconds" })
  yield* directory.replacePolicy(config.policy)
  const relayInfo = { ...config.advertise, udpPort: config.advertise.udpPort || udp.udp }

  // ----------------------------------------------------------------------------- who is let in

  const authenticate = Effect.fn("SignalingHub.authenticate")(
    function*(peer: LinkServer.Peer) {
      const key = peer.nodeKey
      const { enrol } = peer
      if (peer.purpose === "browser" && tls.trust._tag === "Pin" && config.behindProxy === null) {
        return yield* noBrowser(NEEDS_CA)
      }
      if (enrol !== undefined) {
        const { secret, tokenId } = enrol
        const onlyAs = peer.purpose === "browser" ? "client" : enrol.role ?? null
        const onlyNamed = enrol.name ?? null
        yield* directory.enrol({ tokenId, secret: Redacted.make(secret), nodeKey: key, onlyAs, onlyNamed })
      }
      const found = yield* directory.findNode(key)
      if (Option.isNone(found)) {
        return yield* new LinkServer.LinkRefused({
          code: UNKNOWN_NODE,
          message: "this node is not enrolled here, or was removed; enrol it with a new token"
        })
      }
      const { name, network, role, shown } = found.value
      if (peer.purpose === "browser" && role !== "client") return yield* noBrowser(`${shown} is a ${role}`)
      const membership = yield* authority.membership({ nodeKey: key, name, role, network })
      return Signed.toBytes(membership)
    },
    Effect.catchAll((error) =>
      error._tag === "LinkRefused"
        ? Effect.fail(error)
        : Effect.fail(new LinkServer.LinkRefused({ code: error._tag, message: error.message }))
    )
  )

  const onLink = Effect.fnUntraced(function*(link: Link, peer: LinkServer.Peer) {
    const key = peer.nodeKey
    const found = yield* Effect.option(Effect.flatten(directory.findNode(key)))
    if (Option.isNone(found)) return
    if (peer.purpose === "relay") return yield* bridge(link, key, forwarder)
    const events = yield* Mailbox.make<SignalingEvent>({ capacity: Board.EVENTS_CAPACITY, strategy: "dropping" })
    const entry: Board.Link = {
      member: found.value,
      isBrowser: peer.purpose === "browser",
      since: yield* Clock.currentTimeMillis,
      events,
      cut: (why) => link.close(why)
    }
    const { role, shown: name } = found.value
    board.join(entry)
    yield* network.onLink(key)
    yield* Effect.logInfo("node connected").pipe(Effect.annotateLogs({ name, role, carrier: link.carrier }))
    yield* rpc.serve(link, key).pipe(Effect.ensuring(Effect.suspend(() => {
      board.leave(entry)
      return Effect.zipRight(
        events.shutdown,
        Effect.logInfo("node disconnected").pipe(Effect.annotateLogs({ name, role }))
      )
    })))
  }, Effect.scoped)

  // ----------------------------------------------------------------------- what nodes may ask

  const watch = (node: NodeKey) =>
    Stream.unwrap(Effect.gen(function*() {
      const link = board.links.get(node)
      if (link === undefined) return Stream.empty
      const snapshot: SignalingEvent = {
        _tag: "Snapshot",
        version: yield* Effect.orDie(directory.latestAuditId),
        serverTime: yield* DirectoryClock.nowMs,
        relay: relayInfo,
        relays: yield* Effect.orDie(directory.relays),
        credential: yield* authority.credential(node),
        reports: true
      }
      const revoked = yield* Effect.orDie(removed.events)
      return Stream.concat(Stream.fromIterable([snapshot, ...revoked]), Mailbox.toStream(link.events))
    }))

  const invite = Effect.fnUntraced(
    function*(client: NodeKey, connector: Board.Member, network: string, resource: string) {
      const names = yield* Authority.newSession
      const session = { ...names, clientKey: client, connectorKey: connector.key }
      const { grant, ticket } = yield* signed.forSession(session, network, resource)
      const answer = yield* Deferred.make<void, string>()
      const expiresAt = (yield* nowSeconds) + SESSION_MEMORY_SECONDS
      board.addSession({ id: names.session, client, connector: connector.key, network, ...names, expiresAt, answer })
      const asking = board.links.get(client)
      board.send(connector.key, {
        _tag: "Invite",
        session: names.session,
        grant,
        ticket,
        ...(asking === undefined ? {} : { clientName: asking.member.shown }),
        ...(asking?.isBrowser === true ? { over: "webrtc" } : {}),
        ...yield* Tracing.header
      })
      yield* Deferred.await(answer)
      return {
        session: names.session,
        connectorKey: connector.key,
        connectorName: connector.shown,
        grant,
        ticket
      } satisfies Dialed
    },
    Effect.mapError((why) => typeof why === "string" ? why : "the directory has no such node any more")
  )

  const late = new Invites.LateConnectors()
  const onAnswer = (session: SessionId, node: NodeKey, answer: Exit.Exit<void, string>) => {
    const link = board.links.get(node)
    if (link !== undefined) late.onAnswer(link)
    return board.answer(session, node, answer)
  }

  const dial = Effect.fn("SignalingHub.dial")(
    function*(node: NodeKey, target: Target, exclude: ReadonlyArray<NodeKey>) {
      const { network, resource } = yield* directory.authorize({ clientKey: node, ...target })
      const online = [...board.links.values()].filter(({ member }) =>
        member.role === "connector" && member.network === network && !exclude.includes(member.key)
      )
      if (online.length === 0) {
        return yield* new DialRefused({
          code: "no_connector",
          message: `no connector of network ${network} is connected; start one`
        })
      }
      if (!rates.mayDial(node, yield* nowMs)) {
        return yield* new DialRefused({
          code: "overloaded",
          message: "this client asks for sessions too often; wait some seconds"
        })
      }
      return yield* Invites.first({
        links: [...yield* Random.shuffle(online)],
        late,
        invite: (connector) => invite(node, connector, network, resource.name)
      }).pipe(
        Effect.mapError((why) =>
          new DialRefused({ code: "connector_declined", message: `no connector accepted the session (${why})` })
        )
      )
    },
    Effect.catchTags({
      Denied: ({ message }) => Effect.fail(new DialRefused({ code: "denied", message })),
      UnknownResource: ({ message }) => Effect.fail(new DialRefused({ code: "name_not_found", message })),
      PortNotListed: ({ message }) => Effect.fail(new DialRefused({ code: "port_not_listed", message })),
      DirectoryError: ({ message }) => Effect.fail(new DialRefused({ code: "overloaded", message }))
    }),
    Effect.tapBoth({
      onFailure: ({ code }) => Effect.sync(() => metrics.onDial(code)),
      onSuccess: () => Effect.sync(() => metrics.onDial("accepted"))
    })
  )

  const refuse = (message: string) => new DialRefused({ code: "denied", message })

  /** Returns the ticket if this client holds it and it is valid. */
  const ticketOf = Effect.fnUntraced(function*(node: NodeKey, signed: Signed.Signed) {
    const ticket = yield* Either.mapLeft(
      Authority.verify("ticket", signed, authority.key, yield* nowSeconds),
      (rejected) => refuse(rejected.message)
    )
    return ticket.clientKey === node ? ticket : yield* refuse("this ticket is another client's")
  })

  const renew = Effect.fn("SignalingHub.renew")(function*(node: NodeKey, old: Signed.Signed) {
    const ticket = yield* ticketOf(node, old)
    const connector = yield* Effect.mapError(
      Effect.flatten(directory.findNode(ticket.connectorKey)),
      () => refuse("the connector was removed")
    )
    const network = connector.network ?? ""
    const { expiresAt: _, ...session } = ticket
    const fresh = yield* Effect.mapError(
      signed.forSession(session, network, null),
      () => refuse("the directory has no such node any more")
    )
    if (fresh.empty) return yield* refuse("nothing is permitted through this connector any more")
    const expiresAt = (yield* nowSeconds) + SESSION_MEMORY_SECONDS
    const known = board.sessions.get(ticket.session)
    if (known !== undefined) known.expiresAt = expiresAt
    else {
      const answer = yield* Deferred.make<void, string>()
      const { clientKey: client, clientTag, connectorKey, connectorTag } = ticket
      board.addSession({
        id: ticket.session,
        client,
        connector: connectorKey,
        network,
        clientTag,
        connectorTag,
        expiresAt,
        answer
      })
    }
    board.send(ticket.connectorKey, { _tag: "TicketRenewed", session: ticket.session, ticket: fresh.ticket })
    return { grant: fresh.grant, ticket: fresh.ticket }
  })

  const tellRelays = Effect.map(directory.relays, (relays) => {
    for (const node of board.links.keys()) board.send(node, { _tag: "RelaysChanged", relays })
  })

  const placeRelay = Effect.fn("SignalingHub.placeRelay")(function*(node: NodeKey, point: RelayPoint) {
    const member = board.links.get(node)?.member
    if (member?.role !== "relay" || member.name !== point.name) {
      return yield* new NoRelay({ message: `this node has not joined as the relay ${point.name}` })
    }
    yield* directory.placeRelay(node, point)
    // Even if nothing is new, because a restarted relay knows none of its nodes.
    yield* tellRelays
  }, Effect.catchTag("DirectoryError", ({ message }) => Effect.fail(new NoRelay({ message }))))

  /**
   * Notifies clients that a connector has lost its ends of their sessions: of those with browsers,
   * or of those with nodes.
   */
  const tellLost = (node: NodeKey, browsers: boolean, isLost: (session: Board.Session) => boolean) => {
    for (const session of board.sessions.values()) {
      const { client, connector, id } = session
      if (connector !== node || (board.links.get(client)?.isBrowser === true) !== browsers || !isLost(session)) continue
      board.send(client, { _tag: "SessionLost", session: id })
    }
  }

  const startedAtMs = yield* nowMs
  const presence = Effect.fn("SignalingHub.presence")(function*(node: NodeKey, signed: Signed.Signed) {
    const ticket = yield* ticketOf(node, signed)
    if (board.links.has(ticket.connectorKey)) return "connected" as const
    return (yield* nowMs) - startedAtMs < RETURN_MS ? "unknown" as const : "absent" as const
  })

  const turnCredentials = yield* TurnDesk.make({
    stateDir: config.stateDir,
    directory,
    host: relayInfo.host,
    ports: config.turn ? udp.turn : null
  })

  const handlers = RelaySignalingRpcs.toLayer({
    Watch: (_, { headers }) => watch(nodeOf(headers)),
    Time: () => time.nowMs,
    Dial: ({ exclude, target }, { headers }) => dial(nodeOf(headers), target, exclude),
    Ready: ({ session }, { headers }) => onAnswer(session, nodeOf(headers), Exit.void),
    Decline: ({ reason, session }, { headers }) => onAnswer(session, nodeOf(headers), Exit.fail(reason)),
    // A browser that is still being dialled does not know its session yet, and ignores this.
    BrowsersLost: (_, { headers }) => Effect.sync(() => tellLost(nodeOf(headers), true, () => true)),
    SessionsLost: ({ held }, { headers }) =>
      Effect.gen(function*() {
        const taken = new Set<string>()
        for (const { answer, id } of board.sessions.values()) if (yield* Deferred.isDone(answer)) taken.add(id)
        tellLost(nodeOf(headers), false, ({ id }) => taken.has(id) && !held.includes(id))
      }),
    Presence: ({ ticket }, { headers }) => presence(nodeOf(headers), ticket),
    Renew: ({ ticket }, { headers }) => renew(nodeOf(headers), ticket),
    TurnCredentials: (_, { headers }) => turnCredentials(nodeOf(headers)),
    Report: ({ text }, { headers }) => network.report(nodeOf(headers), text),
    Findings: ({ question, text }, { headers }) => network.findings(nodeOf(headers), question, text),
    PlaceRelay: (point, { headers }) => placeRelay(nodeOf(headers), point),
    Resources: (_, { headers }) =>
      Stream.unwrap(Effect.map(Effect.orDie(directory.allResourcesFor(nodeOf(headers), null)), Stream.fromIterable)),
    Forward: ({ box, session }, { headers }) =>
      Effect.gen(function*() {
        const node = nodeOf(headers)
        const known = board.sessionOf(session, node)
        if (known === undefined) return yield* new UnknownSession({ session })
        const passes = rates.mayForward(node, yield* nowMs)
        metrics.onMessage(passes)
        if (!passes) return
        board.send(known.client === node ? known.connector : known.client, { _tag: "Sealed", session, box })
      })
  })

  // ----------------------------------------------------------------------------- what changes

  const revoke = Effect.fnUntraced(function*(node: NodeKey) {
    network.onRemoved(node)
    rates.onRemoved(node)
    for (const key of board.links.keys()) board.send(key, { _tag: "Revoked", node })
    // The removed node is notified, too, and gets a moment to read that. Its peers' close notices
    // may no longer reach it through the relay.
    const link = board.links.get(node)
    yield* Effect.forkIn(Effect.delay(Effect.sync(() => link?.cut("this node was removed")), REVOKED_GRACE), scope)
    yield* Effect.ignore(forwarder.ask((client) => client.Revoke({ nodeKey: node })))
    yield* Effect.logInfo("node removed; its flows are cut").pipe(Effect.annotateLogs({ node }))
  })

  const tellTime = Effect.ignore(forwarder.ask((client) => client.SetTime({ offsetMs: time.offsetMs })))
  /** Keeps the time, which also shows every few seconds whether the directory can be written. */
  let directoryProblem: string | null = null
  let slowWriteMs: number | null = null
  const noteSlow = (tookMs: number) => {
    const isNew = slowWriteMs === null
    slowWriteMs = tookMs > SLOW_WRITE_MS ? tookMs : null
    return isNew && slowWriteMs !== null
      ? Effect.logWarning(`the directory's disk is slow: one write took ${(tookMs / 1000).toFixed(1)} s`)
      : Effect.void
  }
  const keepTime = Effect.flatMap(time.nowMs, directory.keepTime).pipe(
    Effect.timed,
    Effect.flatMap(([took]) => noteSlow(Duration.toMillis(took))),
    Effect.matchEffect({
      onFailure: ({ message }) => {
        if (message === directoryProblem) return Effect.void
        directoryProblem = message
        return Effect.logWarning(`the directory cannot be written: ${message}`)
      },
      onSuccess: () => {
        if (directoryProblem === null) return Effect.void
        directoryProblem = null
        return Effect.logInfo("the directory can be written again")
      }
    })
  )

  /** Makes nodes bind again now, and not only at their next keepalive. */
  const onForwarderRestart = Effect.gen(function*() {
    yield* tellTime
    yield* removed.tellForwarder
    for (const node of board.links.keys()) board.send(node, { _tag: "BindingsLost" })
  })

  let seen = yield* directory.latestAuditId
  let grantsAreStale = false
  yield* removed.tellForwarder
  const poll = Effect.gen(function*() {
    const now = yield* nowSeconds
    board.expire(now)
    if (grantsAreStale) {
      yield* signed.replaceGrants
      grantsAreStale = false
    }
    if ((yield* directory.latestAuditId) === seen) return
    const changes = yield* directory.changesSince(seen)
    seen = changes.at(-1)?.id ?? seen
    for (const { at, kind, nodeKey, nodeName } of changes) {
      if (kind !== "node_removed") continue
      if (nodeKey !== null) yield* revoke(nodeKey as NodeKey)
      if (nodeName !== null) {
        yield* Effect.ignore(forwarder.ask((client) => client.RevokeTurn({ name: nodeName, at: Math.min(at, now) })))
      }
    }
    if (changes.some(isOfRelays)) yield* tellRelays
    if (changes.some(({ kind }) => kind === "policy_replaced")) {
      // This stays set until the grants are replaced, even if the directory cannot be read now.
      grantsAreStale = true
      yield* signed.replaceGrants
      grantsAreStale = false
    }
  }).pipe(
    Effect.catchTag("DirectoryError", ({ message }) => Effect.logWarning(`the directory cannot be read: ${message}`))
  )

  // ----------------------------------------------------------------------------------- service

  const rpc = yield* RpcOverLink.makeServer()
  yield* Layer.launch(
    RpcServer.layer(RelaySignalingRpcs, {
      concurrency: "unbounded",
      disableFatalDefects: true,
      spanPrefix: "signaling"
    }).pipe(
      Layer.provide(handlers),
      Layer.provide(Layer.succeed(RpcServer.Protocol, rpc.protocol))
    )
  ).pipe(Self.fork)
  const server = yield* LinkServer.make({
    pages: config.app ? yield* AppPage.load({ http3: config.gate !== null }) : () => undefined,
    host: config.https.host,
    port: config.https.port,
    gate: config.gate ?? undefined,
    fronts: { proxyProtocol: config.proxyProtocol, reverseProxies: config.behindProxy ?? [] },
    proxiedHash: config.behindProxy === null ? undefined : Crypto.sha256(proxiedName(config.advertise.host)),
    tls: yield* tls.current,
    tlsChanges: tls.changes,
    endorse: tls.endorse,
    authenticate,
    onLink
  })
  yield* Self.fork(Stream.runForEach(Stream.drop(forwarder.incarnations, 1), () => onForwarderRestart))
  relayInfo.httpsPort = config.advertise.httpsPort || server.port
  yield* tellTime
  yield* Self.fork(Effect.repeat(keepTime, Schedule.spaced(KEEP_TIME)))
  yield* Effect.addFinalizer(() => keepTime)
  yield* Self.fork(Effect.repeat(poll, Schedule.spaced(DIRECTORY_POLL)))
  yield* Self.fork(signed.keepCredentialsFresh)
  yield* Effect.addFinalizer(() =>
    Effect.gen(function*() {
      for (const node of board.links.keys()) {
        const reconnectAfterMs = yield* Random.nextRange(200, GO_AWAY_SPREAD_MS)
        board.send(node, { _tag: "GoAway", reconnectAfterMs })
      }
      yield* server.stop({ goAwayMs: 300 })
    })
  )

  return SignalingHubRpcs.of({
    AwaitListening: () => Effect.succeed({ https: server.port }),
    SetPolicy: (policy) =>
      directory.replacePolicy(policy).pipe(
        Effect.asVoid,
        Effect.mapError(({ message }) => new HubError({ message }))
      ),
    Nodes: () =>
      Effect.sync(() =>
        [...board.links.values()].map(({ member, since }) => ({
          name: member.shown,
          role: member.role,
          network: member.network,
          nodeKey: member.key,
          since
        }))
      ),
    Condition: () => Effect.map(time.clockAheadMs, (clockAheadMs) => ({ clockAheadMs, directoryProblem, slowWriteMs })),
    Network: network.overview,
    Examine: ({ name }) => network.examine(name)
  })
})

/**
 * Refuses a browser. A page cannot prove which certificate it saw. So it is let in only where
 * nodes, too, trust the public authorities, and only as a client.
 */
const noBrowser = (why: string) =>
  new LinkServer.LinkRefused({ code: NO_BROWSER, message: `this relay accepts no browsers: ${why}` })
const NEEDS_CA = "browsers trust only certificates of public authorities; set tls in the relay's configuration"

const isOfRelays = ({ detail, kind }: Directory.AuditEntry): boolean =>
  kind === "relay_placed" || (kind === "node_removed" && detail["role"] === "relay")

/** How long the relay remembers a session: the life of its ticket. A renewal starts it again. */
const SESSION_MEMORY_SECONDS = LIFETIMES.ticket
/**
 * Time after a relay's start by which every node is back: twice the longest delay between two of a
 * node's tries.
 */
const RETURN_MS = 30_000

const nowSeconds = DirectoryClock.nowSeconds

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
