/**
 * Makes WebRTC connections to the peers of sessions that find no direct path of their own, and
 * offers each connection as one more path. To the data plane it is another relay, at a port of this
 * host's loopback address (`LocalLeg`), and the path prober compares it like any other. The client
 * begins. At a connector, the actor also takes the sessions of browsers (`Browsers`). It runs in a
 * child process (decision 19); if that ends, these paths are lost, but no session between nodes.
 */
import { Deferred, Duration, Effect, FiberSet, Match, Option, Redacted, Schema, Stream } from "effect"
import type { IceServer } from "node-datachannel"
import { renderHostPort, type SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import type { IceSignal } from "../../protocol/candidate/IceSignal.ts"
import { type Reason, Role, WEBRTC_NAME } from "../../protocol/path/PathRef.ts"
import { HostClock } from "../../services/host/HostClock.ts"
import * as NodeState from "../../services/identity/NodeState.ts"
import * as Metrics from "../../services/telemetry/Metrics.ts"
import { IceLink } from "../../transport/webrtc/IceLink.ts"
import { LocalLeg, type Session } from "../../transport/webrtc/LocalLeg.ts"
import * as TurnProxy from "../../transport/webrtc/TurnProxy.ts"
import * as FlowTrace from "../mux/FlowTrace.ts"
import { type Draining, type IceEvent, StreamMux } from "../mux/StreamMuxRpcs.ts"
import { PathProber, type SessionPath } from "../path/PathProberRpcs.ts"
import * as Actor from "../runtime/actor/Actor.ts"
import * as Inbox from "../runtime/actor/Inbox.ts"
import { Peers } from "../runtime/actor/Peers.ts"
import * as Self from "../runtime/actor/Self.ts"
import type { SessionId, TurnServers } from "../signaling/RelaySignalingRpcs.ts"
import { type NodeEvent, Signaling } from "../signaling/SignalingRpcs.ts"
import { Stun } from "../stun/StunRpcs.ts"
import * as Browsers from "./Browsers.ts"
import { type BrowserPeer, WebRtc, type WebRtcLink, WebRtcRpcs } from "./WebRtcRpcs.ts"

/** Settings of the WebRtcActor. */
export const Config = Schema.Struct({
  stateDir: Schema.String,
  role: Role,
  /** ICE servers besides the relay's own, as `stun:HOST:PORT` or `turn:USER:PASSWORD@HOST:PORT`. */
  iceServers: Schema.Array(Schema.String),
  /** Whether it drains from the start; see `SetDraining`. */
  draining: Schema.optionalWith(Schema.Boolean, { default: () => false })
})
export type Config = typeof Config.Type

/**
 * Most messages that may wait. When the inbox is full, events of connections are dropped and
 * callers wait.
 */
const INBOX_CAPACITY = 1024
/** Most connections of one node. A session beyond these stays with the paths that it has. */
const MAX_LINKS = 256
/** How long a try may take to open the channel before it has failed. */
const CONNECT = Duration.seconds(20)
/** Delay before a session's next try. It doubles after each failure. */
const RETRY_MS = 30_000
/** Longest delay before a session's next try. */
const MAX_RETRY_MS = 600_000
/** How long a connection must go unused by the session's flows before it is closed. */
const UNWANTED_MS = 60_000
/** How often sessions are checked, in addition to each decision about their paths. */
const LOOK = Duration.seconds(5)
const BRIEF = { deadline: "2 seconds" } as const

/**
 * Reasons for a relayed path that make a session try WebRTC. While probes are in progress, it does
 * not yet.
 */
const HOPELESS: ReadonlySet<Reason> = new Set<Reason>([
  "udp_blocked",
  "symmetric_both",
  "guess_exhausted",
  "guess_unavailable",
  "probes_unanswered",
  "no_candidates",
  "no_common_family"
])

/** A connection, open or being made. */
interface Held {
  readonly link: IceLink
  readonly session: Session
  unwantedSince: number | null
}
/** Failed tries of a session. */
interface Failures {
  readonly count: number
  readonly notBefore: number
}
type Message =
  | { readonly _tag: "Look" }
  | { readonly _tag: "Ice"; readonly event: IceEvent }
  | { readonly _tag: "Opened"; readonly session: SessionId; readonly attempt: number }
  | { readonly _tag: "Closed"; readonly session: SessionId; readonly attempt: number; readonly why: string }
  /** A new incarnation of the data plane is up. It has none of the previous one's sessions. */
  | { readonly _tag: "Reset" }
  | { readonly _tag: "Links"; readonly reply: Inbox.Reply<ReadonlyArray<WebRtcLink>> }
  | { readonly _tag: "Signaled"; readonly event: NodeEvent }
  | { readonly _tag: "Tick" }
  | { readonly _tag: "Browsers"; readonly reply: Inbox.Reply<ReadonlyArray<BrowserPeer>> }
  | { readonly _tag: "SetDraining"; readonly wanted: boolean; readonly reply: Inbox.Reply<Draining> }
  | Browsers.Outcome

const make = Effect.fnUntraced(function*(config: Config) {
  const mux = yield* Peers.ref(StreamMux)
  const prober = yield* Peers.ref(PathProber)
  const signaling = yield* Peers.ref(Signaling)
  const stun = yield* Peers.ref(Stun)
  const fork = yield* FiberSet.makeRuntime()
  const leg = yield* Effect.acquireRelease(Effect.sync(() => new LocalLeg()), (it) => Effect.sync(() => it.close()))
  const at = yield* Effect.promise(() => leg.bind())
  const links = new Map<SessionId, Held>()
  const failures = new Map<SessionId, Failures>()
  const hostMs = (yield* HostClock).now
  /**
   * Number of the last attempt. It starts from the host's uptime, so a later incarnation has higher
   * numbers.
   */
  let attempts = Math.floor(hostMs())
  let isOffered = false
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      for (const { link } of links.values()) link.close()
    })
  )

  const passwords = new TurnProxy.AgentPasswords()
  /** Proxies for TURN, by the server's URL. There is one relay, so there are at most two. */
  const proxies = new Map<string, Promise<TurnProxy.TurnProxy>>()
  yield* Effect.addFinalizer(() =>
    Effect.promise(async () => {
      for (const proxy of proxies.values()) (await proxy).close()
    })
  )
  const proxied = ({ server, url }: Turn) =>
    Effect.promise(async () => {
      const proxy = proxies.get(url) ?? TurnProxy.TurnProxy.open(server, passwords)
      proxies.set(url, proxy)
      return (await proxy).at
    })

  /**
   * Chooses the TURN server of a connection. A node uses TURN over UDP alone, because two nodes
   * have their relay's links besides. For a browser, TURN over TCP takes its place where no UDP
   * gets out. A browser may itself use TURN over TCP if the relay has it. Its checks then pass only
   * by a proxy.
   */
  const turnFor = Effect.fnUntraced(function*(peer: "browser" | "node", turns: ReadonlyArray<Turn>) {
    const udp = turns.find(({ server }) => server.transport === "udp")
    const tcp = turns.find(({ server }) => server.transport === "tcp")
    if (peer === "node" || tcp === undefined) return udp?.server ?? null
    const local = yield* Effect.orElseSucceed(stun.ask((it) => it.Local(), BRIEF), () => null)
    return yield* proxied(udp === undefined || local?.udp === "blocked" ? tcp : udp)
  })

  const serversFor = Effect.fnUntraced(function*(peer: "browser" | "node") {
    const own = yield* Effect.orElseSucceed(stun.ask((it) => it.Servers(), BRIEF), () => [])
    const turn = Option.getOrNull(yield* Effect.option(signaling.ask((it) => it.TurnCredentials(), BRIEF)))
    const at = turn === null ? null : yield* turnFor(peer, turn.urls.flatMap(turnOf))
    return [
      ...own.slice(0, 1).map((server) => `stun:${renderHostPort(server)}`),
      ...(turn === null || at === null ? [] : [iceServer(turn, at)]),
      ...config.iceServers
    ]
  })
  const tell = (session: SessionId, signal: IceSignal) =>
    void fork(Effect.ignore(mux.ask((it) => it.SendIce({ session, signal }), BRIEF)))

  /**
   * Notifies the data plane whether it may send frames here. This is repeated for each new
   * connection, because the repetition makes sessions ask for paths.
   */
  const offer = (isAnew: boolean) => {
    const isOpen = [...links.values()].some(({ link }) => link.isOpen)
    if (isOpen === isOffered && !isAnew) return Effect.void
    isOffered = isOpen
    return mux.ask((it) => it.UseRelay({ name: WEBRTC_NAME, at: isOpen ? at : null, bound: isOpen }), BRIEF).pipe(
      Effect.catchAll((error) => Effect.logWarning("the data plane could not be notified of WebRTC", error.message))
    )
  }
  const browsers = Browsers.make({
    hostMs,
    node: yield* NodeState.load(config.stateDir),
    signaling,
    servers: serversFor("browser"),
    passwords,
    traces: yield* FlowTrace.make,
    draining: config.draining,
    post: (outcome) => void inbox.unsafePost(outcome),
    fork: (effect) => void fork(effect)
  })
  const self = yield* Self.Self
  const tries = new Metrics.Counts<"open" | "failed">()
  yield* self.exposeMetrics(() => [
    ...browsers.metrics(),
    Metrics.gauge(
      { name: "sallyport_webrtc_links", help: "WebRTC connections with nodes, open or being made." },
      [{ labels: {}, value: links.size }]
    ),
    Metrics.counter(
      { name: "sallyport_webrtc_tries", help: "WebRTC connections that opened, or came to nothing." },
      tries.points("result")
    )
  ])
  yield* Effect.addFinalizer(() => browsers.closeAll)

  const begin = Effect.fnUntraced(function*(session: SessionId, attempt: number) {
    const tags = yield* mux.ask((it) => it.TagsOf({ session }), BRIEF)
    if (tags === null || links.size >= MAX_LINKS) return null
    const link = new IceLink({
      role: config.role,
      attempt,
      servers: yield* serversFor("node"),
      onSignal: (signal) => tell(session, signal),
      onFrame: (frame) => leg.deliver(frames, frame),
      onOpen: () => void inbox.unsafePost({ _tag: "Opened", session, attempt }),
      onClosed: (why) => void inbox.unsafePost({ _tag: "Closed", session, attempt, why })
    })
    const frames: Session = { sendTag: tags.send, receiveTag: tags.receive, send: (frame) => link.send(frame) }
    const held: Held = { link, session: frames, unwantedSince: null }
    links.set(session, held)
    leg.add(frames)
    yield* inbox.setTimer(session, CONNECT, { _tag: "Closed", session, attempt, why: "not connected in time" })
    return held
  }, Effect.orElseSucceed(() => null))

  const end = Effect.fnUntraced(function*(session: SessionId) {
    const held = links.get(session)
    if (held === undefined) return
    links.delete(session)
    leg.remove(held.session)
    held.link.close()
    yield* inbox.clearTimer(session)
    yield* offer(false)
  })

  const onFailed = Effect.fnUntraced(function*(session: SessionId, why: string) {
    tries.add("failed")
    const count = (failures.get(session)?.count ?? 0) + 1
    const wait = Math.min(RETRY_MS * 2 ** (count - 1), MAX_RETRY_MS)
    failures.set(session, { count, notBefore: hostMs() + wait })
    yield* Effect.logInfo("no WebRTC connection").pipe(Effect.annotateLogs({ session, why, triedAgainInMs: wait }))
  })

  /**
   * Starts the connections that sessions need, and ends those that they no longer need. Client
   * only.
   */
  const look = Effect.gen(function*() {
    const paths = yield* prober.ask((it) => it.Paths(), BRIEF)
    const now = hostMs()
    for (const path of paths) {
      const held = links.get(path.session)
      if (held === undefined) {
        if (isWanted(path) && now >= (failures.get(path.session)?.notBefore ?? 0)) {
          yield* begin(path.session, ++attempts)
        }
        continue
      }
      const isNeeded = path.active && path.path.kind === "relay"
      held.unwantedSince = isNeeded ? null : held.unwantedSince ?? now
      if (held.unwantedSince === null || now - held.unwantedSince < UNWANTED_MS) continue
      tell(path.session, { kind: "end", attempt: held.link.attempt })
      yield* end(path.session)
    }
    for (const session of [...links.keys(), ...failures.keys()]) {
      if (paths.some((path) => path.session === session)) continue
      failures.delete(session)
      yield* end(session)
    }
  }).pipe(
    Effect.catchTag(
      "ActorUnavailable",
      (error) => Effect.logDebug("WebRTC could not be notified of the paths", error.message)
    )
  )

  const onSignal = Effect.fnUntraced(function*(session: SessionId, signal: IceSignal) {
    let held = links.get(session)
    if (signal.kind === "offer" && config.role === "connector") {
      if (held !== undefined && held.link.attempt >= signal.attempt) return
      yield* end(session)
      held = (yield* begin(session, signal.attempt)) ?? undefined
    }
    if (held?.link.attempt === signal.attempt) held.link.onSignal(signal)
  })

  const handle: (message: Message) => Effect.Effect<void> = Match.type<Message>().pipe(Match.tagsExhaustive({
    Look: () => config.role === "client" ? look : Effect.void,
    Ice: ({ event: { session, signal } }) => {
      if (signal !== null) return onSignal(session, signal)
      failures.delete(session)
      return end(session)
    },
    Opened: ({ attempt, session }) => {
      const held = links.get(session)
      if (held?.link.attempt !== attempt) return Effect.void
      failures.delete(session)
      tries.add("open")
      const { local = "?", remote = "?" } = held.link.pair ?? {}
      return Effect.all([
        inbox.clearTimer(session),
        offer(true),
        Effect.logInfo("WebRTC connection open").pipe(Effect.annotateLogs({ session, local, remote }))
      ], { discard: true })
    },
    Closed: ({ attempt, session, why }) => {
      const held = links.get(session)
      if (held?.link.attempt !== attempt) return Effect.void
      if (why === "not connected in time") tell(session, { kind: "end", attempt })
      return Effect.zipRight(end(session), onFailed(session, why))
    },
    Reset: () =>
      Effect.suspend(() => {
        isOffered = false
        failures.clear()
        return Effect.forEach([...links.keys()], end, { discard: true })
      }),
    Links: ({ reply }) =>
      Effect.asVoid(Deferred.succeed(
        reply,
        Array.from(links, ([session, { link }]) => ({
          session,
          open: link.isOpen,
          local: link.pair?.local ?? null,
          remote: link.pair?.remote ?? null,
          dropped: link.dropped
        }))
      )),
    Signaled: ({ event }) => browsers.onEvent(event),
    BrowserSignal: browsers.onOutcome,
    BrowserDown: browsers.onOutcome,
    Tick: () => browsers.tick,
    Browsers: ({ reply }) => Effect.asVoid(Deferred.succeed(reply, browsers.peers())),
    SetDraining: ({ reply, wanted }) =>
      Effect.asVoid(Effect.suspend(() => Deferred.succeed(reply, browsers.setDraining(wanted))))
  }))
  const inbox = yield* Inbox.make<Message>({ name: "webRtc", capacity: INBOX_CAPACITY, handle })

  const reset: Message = { _tag: "Reset" }
  yield* Self.fork(
    mux.subscribe((it) =>
      Stream.concat(Stream.succeed(reset), Stream.map(it.IceEvents(), (event): Message => ({ _tag: "Ice", event })))
    ).pipe(Stream.runForEach(inbox.post))
  )
  if (config.role === "client") {
    const decided = Stream.map(prober.subscribe((it) => it.Decided()), () => null)
    const sometimes = Stream.map(Stream.tick(LOOK), () => null)
    yield* Self.fork(Stream.runForEach(Stream.merge(decided, sometimes), () => inbox.post({ _tag: "Look" })))
  }
  if (config.role === "connector") {
    // This comes before the first invitation. The sessions with browsers of an earlier incarnation
    // are gone.
    const lost = Effect.ignore(signaling.ask((it) => it.BrowsersLost(), { deadline: "10 seconds" }))
    const events = Stream.runForEach(
      signaling.subscribe((it) => it.Events()),
      (event) => inbox.post({ _tag: "Signaled", event })
    )
    yield* Self.fork(Effect.zipRight(lost, events))
    yield* Self.fork(Stream.runForEach(Stream.tick(LOOK), () => inbox.post({ _tag: "Tick" })))
  }
  return WebRtcRpcs.of({
    Links: () => inbox.ask<ReadonlyArray<WebRtcLink>>((reply) => ({ _tag: "Links", reply })),
    Browsers: () => inbox.ask<ReadonlyArray<BrowserPeer>>((reply) => ({ _tag: "Browsers", reply })),
    SetDraining: ({ wanted }) => inbox.ask<Draining>((reply) => ({ _tag: "SetDraining", wanted, reply }))
  })
})

const isWanted = ({ path, reason, role, seeking }: SessionPath): boolean =>
  role === "client" && seeking && path.kind === "relay" && HOPELESS.has(reason)

/** One of the relay's TURN servers. */
interface Turn {
  readonly url: string
  readonly server: TurnProxy.Server
}

/** Takes a TURN URL of the relay apart. Empty if it is not understood. */
const turnOf = (url: string): ReadonlyArray<Turn> => {
  const [, literal, port, transport] = /^turn:(.+):(\d+)\?transport=(udp|tcp)$/.exec(url) ?? []
  if (literal === undefined) return []
  const server = { host: literal.replace(/^\[|\]$/g, ""), port: Number(port) }
  return [{ url, server: { ...server, transport: transport === "tcp" ? "tcp" : "udp" } }]
}

const iceServer = ({ password, username }: TurnServers, { host, port }: SocketAddr): IceServer => ({
  hostname: host,
  port,
  username,
  password: Redacted.value(password),
  relayType: "TurnUdp"
})

/** The WebRtcActor, for the runtime that starts it. */
export const actor = Actor.make({
  address: WebRtc,
  config: Config,
  uses: [StreamMux, PathProber, Signaling, Stun],
  layer: (config) => WebRtcRpcs.toLayer(make(config))
})
