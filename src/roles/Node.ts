/**
 * The client and connector roles: enrolls the node, signs it in, binds it at the relay and opens
 * its listeners.
 */
import { Effect, ExecutionStrategy, Exit, Scope } from "effect"
import { join } from "node:path"
import { DRAINING, type SessionStatus, StreamMux } from "../actors/mux/StreamMuxRpcs.ts"
import { PathProber, type SessionPath } from "../actors/path/PathProberRpcs.ts"
import { Relay } from "../actors/relay/RelayRpcs.ts"
import { Signaling } from "../actors/signaling/SignalingRpcs.ts"
import { type LocalCandidates, Stun } from "../actors/stun/StunRpcs.ts"
import { type BrowserPeer, WebRtc } from "../actors/webrtc/WebRtcRpcs.ts"
import { NODE_ACTORS, NODE_PLACEMENT, WEBRTC_PLACEMENT } from "../actors/Wiring.ts"
import * as HostName from "../protocol/bytes/HostName.ts"
import { renderHostPort } from "../protocol/bytes/SocketAddr.ts"
import * as CandidateView from "../protocol/candidate/CandidateView.ts"
import { listOf } from "../protocol/flow/LocalListener.ts"
import * as PathKind from "../protocol/path/PathKind.ts"
import { isWebRtc, type PathRef } from "../protocol/path/PathRef.ts"
import type { NodeConfig } from "../services/config/Config.ts"
import * as Reload from "../services/config/Reload.ts"
import * as ListenCheck from "../services/network/ListenCheck.ts"
import type { Settings } from "../services/telemetry/Telemetry.ts"
import { DEFAULT_FLOWS_PER_CLIENT } from "../transport/plane/ConnectorFlows.ts"
import * as Platform from "../transport/quic/engine/Platform.ts"
import * as Enrol from "./Enrol.ts"
import * as Reporting from "./Reporting.ts"
import * as Threads from "./RoleThreads.ts"
import { type Peer, RELOAD, type Running } from "./Running.ts"

/** Unix socket of the SOCKS5 listener for the embedding program, in the state directory. */
export const LOCAL_DOOR_FILE = "flows.sock"

/** Options of {@link start}. */
export interface Options {
  /** Whether the embedding program opens flows itself, by the listener of `LOCAL_DOOR_FILE`. */
  readonly localDoor: boolean
  /**
   * Called when all actors run, before the relay has been reached. `status` and `doctor` work from
   * then on.
   */
  readonly onStarted?: (running: Running) => Effect.Effect<void>
  /** Called after each failed attempt to enrol. */
  readonly onWaiting?: (waiting: Enrol.Waiting) => Effect.Effect<void>
}

/**
 * Enrols the node if it has not enrolled yet, starts its actors, and succeeds once the relay has
 * been reached. It stops when the scope closes.
 */
export const start = Effect.fnUntraced(function*(config: NodeConfig, telemetry: Settings, options: Options) {
  const { ca, carrier, name, role, stateDir } = config
  const listenersOf = (from: NodeConfig) =>
    listOf(from.role === "client" ? from : null, options.localDoor ? join(stateDir, LOCAL_DOOR_FILE) : null)
  yield* Platform.check()
  // The addresses are checked before the enrolment token is used.
  yield* ListenCheck.check(
    listenersOf(config).flatMap(({ at, key }) => key === null || "path" in at ? [] : [{ key, protocol: "tcp", at }])
  )
  const { membership, relay } = yield* Enrol.ensure({ ...config, onWaiting: options.onWaiting })
  const proxy = Enrol.proxyText(config)
  let direct = config.path === "auto"
  let offlineAccess = offlineAccessOf(config)
  const webRtc = config.webrtc === "auto" && direct
  let listeners = listenersOf(config)
  let isDraining = false
  const muxConfig = () => ({
    stateDir,
    role,
    carrier,
    proxy,
    ca,
    direct,
    webRtc,
    draining: isDraining,
    udpPort: config.udp.port,
    limits: { flowsPerClient: DEFAULT_FLOWS_PER_CLIENT, ...config.limits },
    offlineAccess,
    listeners
  })
  const stunConfig = () => ({ portMapping: config.portMapping, mapPort: direct, ...config.udp })
  const webRtcConfig = () => ({ stateDir, role, iceServers: config.iceServers, draining: isDraining })
  const configs: Record<string, unknown> = {
    [WebRtc.name]: webRtcConfig(),
    [Signaling.name]: { stateDir, carrier, proxy, ca },
    [Relay.name]: { stateDir },
    [Stun.name]: stunConfig(),
    [StreamMux.name]: muxConfig()
  }
  const supervisor = yield* Threads.start({
    config,
    telemetry,
    actors: webRtc ? [...NODE_ACTORS, WebRtc] : NODE_ACTORS,
    placement: webRtc ? { ...NODE_PLACEMENT, ...WEBRTC_PLACEMENT } : NODE_PLACEMENT,
    configs
  })
  const mux = supervisor.ref(StreamMux)
  const prober = supervisor.ref(PathProber)
  const open = yield* mux.ask((client) => client.Listeners())
  let consents = config.telemetry.report
  // One call at a time, so that the last one decides at both actors.
  const drainLock = yield* Effect.makeSemaphore(1)
  const setDraining = (wanted: () => boolean) =>
    Effect.gen(function*() {
      const draining = isDraining = wanted()
      // A restarted thread begins with these, so they are set before its actors are called.
      configs[StreamMux.name] = muxConfig()
      configs[WebRtc.name] = webRtcConfig()
      const nodes = yield* mux.ask((client) => client.SetDraining({ wanted: draining }), DRAIN)
      const browsers = webRtc
        ? yield* orNull(supervisor.ref(WebRtc).ask((client) => client.SetDraining({ wanted: draining }), DRAIN))
        : null
      return {
        draining,
        sessions: nodes.sessions + (browsers?.sessions ?? 0),
        flows: nodes.flows + (browsers?.flows ?? 0)
      }
    }).pipe(drainLock.withPermits(1))
  const running: Running = {
    supervisor,
    listen: Object.fromEntries(open.flatMap(({ address, name }) => name === null ? [] : [[name, address]])),
    self: {
      role,
      name,
      network: membership.network,
      relay: renderHostPort({ host: relay.host, port: relay.httpsPort })
    },
    status: Effect.gen(function*() {
      // Peers are shown even while another actor is being restarted.
      const { browsers, leg, local, outage, paths, ports, refusals, sessions, signaling } = yield* Effect.all({
        sessions: mux.ask((client) => client.Status()),
        refusals: orNull(mux.ask((client) => client.Refusals(), BRIEF)),
        outage: orNull(mux.ask((client) => client.Outage(), BRIEF)),
        paths: orNull(prober.ask((client) => client.Paths(), BRIEF)),
        signaling: orNull(supervisor.ref(Signaling).ask((client) => client.State(), BRIEF)),
        ports: orNull(mux.ask((client) => client.LocalPorts(), BRIEF)),
        leg: orNull(supervisor.ref(Relay).ask((client) => client.State(), BRIEF)),
        local: orNull(supervisor.ref(Stun).ask((client) => client.Local(), BRIEF)),
        browsers: webRtc
          ? orNull(supervisor.ref(WebRtc).ask((client) => client.Browsers(), BRIEF))
          : Effect.succeed(null)
      }, { concurrency: "unbounded" })
      const legReason = leg?.reason ?? "the relay actor is being restarted"
      const peers = [
        ...sessions.filter(({ up }) => up).map((session) => peerOf(session, paths ?? [], legReason, !direct)),
        ...(browsers ?? []).map(browserOf)
      ]
      const flows = peers.reduce((sum, peer) => sum + peer.flows, 0)
      return {
        peers,
        draining: isDraining ? { flows } : null,
        signaling,
        leg,
        outage,
        missedPorts: ports?.missed ?? [],
        udpForbidden: ports?.forbidden ?? null,
        refusals: refusals ?? [],
        ...candidatesOf(direct ? local : null)
      }
    }),
    unready: Effect.gen(function*() {
      const signaling = yield* supervisor.ref(Signaling).ask((client) => client.State(), BRIEF)
      const leg = yield* supervisor.ref(Relay).ask((client) => client.State(), BRIEF)
      const paths = yield* prober.ask((client) => client.Paths(), BRIEF)
      const silent = paths.filter(({ reason }) => reason === "nothing_answers").length
      // Fails if the data plane's thread does not answer.
      yield* mux.ask((client) => client.Listeners(), BRIEF)
      return [
        ...(isDraining ? [DRAINING] : []),
        ...(signaling.state === "up" ? [] : [`not connected to the relay ${signaling.relay}: ${signaling.problem}`]),
        ...(leg.kind === null ? [`no relay carries packets: ${leg.reason}`] : []),
        ...(silent === 0 ? [] : [`${silent} of ${paths.length} sessions get no answer on any path`])
      ]
    }),
    decisions: prober.subscribe((client) => client.Decided()),
    ping: Effect.fnUntraced(function*(peer) {
      const { path, reason, rttMs, session } = yield* prober.ask((client) => client.Ping({ peer }), {
        deadline: "4 seconds"
      })
      const legs = (yield* mux.ask((client) => client.Status())).find((it) => it.session === session)
      return {
        peer,
        rttMs,
        path: PathKind.of(path, legs?.leg ?? null, legs?.peerLeg ?? null),
        relay: relayOf(path),
        reason: direct ? reason : "relay_only"
      }
    }),
    netcheck: supervisor.ref(Stun).ask((client) => client.NetCheck(), { deadline: "15 seconds" }),
    network: null,
    resources: role === "client"
      ? Effect.map(
        supervisor.ref(Signaling).ask((client) => client.Resources(), { deadline: "5 seconds" }),
        (resources) => resources.map(({ shown, ...rest }) => ({ ...rest, name: HostName.shown(rest.name, shown) }))
      )
      : null,
    drain: role === "connector"
      ? { set: (wanted) => setDraining(() => wanted), state: setDraining(() => isDraining) }
      : null,
    reload: (next) =>
      Effect.gen(function*() {
        if (next.role !== role) return
        const wanted = listenersOf(next)
        yield* mux.ask((client) => client.SetListeners({ listeners: wanted }), RELOAD)
        listeners = wanted
        // A restarted thread begins with these, so they are set before its actors are called.
        direct = Reload.whenOf("path", config) === "live" ? next.path === "auto" : direct
        offlineAccess = offlineAccessOf(next)
        configs[StreamMux.name] = muxConfig()
        configs[Stun.name] = stunConfig()
        yield* mux.ask((client) => client.SetDirect({ allowed: direct }), RELOAD)
        yield* mux.ask((client) => client.SetOfflineAccess({ seconds: offlineAccess }), RELOAD)
        yield* supervisor.ref(Stun).ask((client) => client.MapPort({ wanted: direct }), RELOAD)
        consents = next.telemetry.report
        yield* report(consents)
      })
  }
  const report: (wanted: boolean) => Effect.Effect<void> = yield* reporting(running)
  yield* options.onStarted?.(running) ?? Effect.void
  // These calls wait as long as it takes, because a node may start before its network or its relay.
  yield* supervisor.ref(Signaling).ask((client) => client.AwaitUp(), { deadline: "365 days" })
  yield* supervisor.ref(Relay).ask((client) => client.AwaitBound(), { deadline: "365 days" })
  yield* report(consents)
  return running
})

/**
 * The addresses that are offered to peers, and those of this host that are not. Both are `null`
 * while they are not known.
 */
const candidatesOf = (local: LocalCandidates | null) => ({
  candidates: local?.candidates.map(CandidateView.of) ?? null,
  leftOut: local?.leftOut.map(CandidateView.of) ?? null
})

/**
 * How long grants count while the directory is not reached, in seconds. `null` for a client, whose
 * connectors decide.
 */
const offlineAccessOf = (config: NodeConfig): number | null =>
  config.role === "connector" ? Math.round(config.offlineAccess * 3600) : null

/** Deadline for the count of open flows. It is long, because flows that are not counted are cut. */
const DRAIN = { deadline: "10 seconds" } as const
/** Deadline for questions whose answer may be left out. */
const BRIEF = { deadline: "1 second" } as const
const orNull = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A | null> => Effect.orElseSucceed(effect, () => null)

/** Returns a function that starts or stops the reports to the relay, as the operator consents. */
const reporting = Effect.fnUntraced(function*(running: Running) {
  const parent = yield* Effect.scope
  let open: Scope.CloseableScope | null = null
  return (wanted: boolean) =>
    Effect.gen(function*() {
      if (wanted === (open !== null)) return
      if (open !== null) {
        yield* Scope.close(open, Exit.void)
        open = null
        return
      }
      open = yield* Scope.fork(parent, ExecutionStrategy.sequential)
      yield* Scope.extend(Reporting.start(running), open)
    })
})

const relayOf = (path: PathRef): string | null => (path.kind === "relay" && !isWebRtc(path) ? path.relay ?? null : null)

const browserOf = ({ bytesIn, bytesOut, flows, local, name, remote, rttMs }: BrowserPeer): Peer => ({
  name,
  path: "webrtc",
  relay: null,
  rttMs,
  reason: `browser (${local ?? "?"} to ${remote ?? "?"})`,
  flows,
  bytesIn,
  bytesOut
})

const peerOf = (
  session: SessionStatus,
  paths: ReadonlyArray<SessionPath>,
  legReason: string,
  relayOnly: boolean
): Peer => {
  const known = paths.find((path) => path.session === session.session)
  const path = PathKind.of(session.path, session.leg, session.peerLeg)
  const reason = relayOnly ? "relay_only" : known?.reason ?? "resumed"
  return {
    name: session.peer,
    path,
    relay: relayOf(session.path),
    rttMs: known?.rttMs ?? (session.rttMs > 0 ? session.rttMs : null),
    reason: PathKind.TABLE[path].remedy !== null ? `${reason} (${legReason})` : reason,
    flows: session.flows,
    bytesIn: session.bytesIn,
    bytesOut: session.bytesOut
  }
}
