/** The client and connector roles: enrolled, signed in, bound at the relay, doors open. */
import { Effect } from "effect"
import { join } from "node:path"
import { PathProber, type SessionPath } from "../actors/PathProberRpcs.ts"
import { Relay } from "../actors/RelayRpcs.ts"
import { Signaling } from "../actors/SignalingRpcs.ts"
import { type SessionStatus, StreamMux } from "../actors/StreamMuxRpcs.ts"
import { type LocalCandidates, Stun } from "../actors/StunRpcs.ts"
import { type BrowserPeer, WebRtc } from "../actors/WebRtcRpcs.ts"
import { NODE_ACTORS, NODE_PLACEMENT, WEBRTC_PLACEMENT } from "../actors/Wiring.ts"
import * as CandidateView from "../protocol/CandidateView.ts"
import * as PathKind from "../protocol/PathKind.ts"
import { isWebRtc, type PathRef } from "../protocol/PathRef.ts"
import type { ClientConfig, NodeConfig } from "../services/config/Config.ts"
import * as ListenCheck from "../services/ListenCheck.ts"
import type { Settings } from "../services/Telemetry.ts"
import { DEFAULT_FLOWS_PER_CLIENT } from "../transport/plane/ConnectorFlows.ts"
import * as Enrol from "./Enrol.ts"
import * as Reporting from "./Reporting.ts"
import type { Peer, Running } from "./Running.ts"
import * as Threads from "./Threads.ts"

/** A SOCKS5 door for the embedding program, in the state directory. */
export const LOCAL_DOOR_FILE = "flows.sock"

export interface Options {
  /** Whether the program that embeds this node wants to open flows itself. */
  readonly localDoor: boolean
}

export const start = Effect.fnUntraced(function*(config: NodeConfig, telemetry: Settings, options: Options) {
  const { carrier, role, stateDir } = config
  if (config.role === "client") yield* ListenCheck.check(doorsOf(config)) // before the token is used
  yield* Enrol.ensure(config)
  const webRtc = config.webrtc === "auto" && config.path === "auto"
  const supervisor = yield* Threads.start({
    config,
    telemetry,
    actors: webRtc ? [...NODE_ACTORS, WebRtc] : NODE_ACTORS,
    placement: webRtc ? { ...NODE_PLACEMENT, ...WEBRTC_PLACEMENT } : NODE_PLACEMENT,
    configs: {
      [WebRtc.name]: { stateDir, role, iceServers: config.iceServers },
      [Signaling.name]: { stateDir, carrier },
      [Relay.name]: { stateDir },
      [Stun.name]: { portMapping: config.path === "auto" ? config.portMapping : "off", ...config.udp },
      [StreamMux.name]: {
        stateDir,
        role,
        carrier,
        direct: config.path === "auto",
        webRtc,
        udpPort: config.udp.port,
        socks5: role === "client" ? config.socks5 : null,
        local: options.localDoor ? { path: join(stateDir, LOCAL_DOOR_FILE) } : null,
        forwards: role === "client" ? forwardsOf(config) : [],
        limits: { flowsPerClient: DEFAULT_FLOWS_PER_CLIENT, ...config.limits }
      }
    }
  })
  const mux = supervisor.ref(StreamMux)
  const prober = supervisor.ref(PathProber)
  // Waits for as long as it takes: a node may well start before its network or its relay.
  yield* supervisor.ref(Signaling).ask((client) => client.AwaitUp(), { deadline: "365 days" })
  yield* supervisor.ref(Relay).ask((client) => client.AwaitBound(), { deadline: "365 days" })
  const { forwards, socks5 } = yield* mux.ask((client) => client.Listeners())
  const running = {
    supervisor,
    listen: {
      ...(socks5 === null ? {} : { socks5 }),
      ...Object.fromEntries(forwards.map((address, index) => [`forward${index + 1}`, address]))
    },
    status: Effect.gen(function*() {
      // Peers are worth telling also while another actor is being restarted.
      const { browsers, leg, local, paths, refusals, sessions, signaling } = yield* Effect.all({
        sessions: mux.ask((client) => client.Status()),
        refusals: orNull(mux.ask((client) => client.Refusals(), BRIEF)),
        paths: orNull(prober.ask((client) => client.Paths(), BRIEF)),
        signaling: orNull(supervisor.ref(Signaling).ask((client) => client.State(), BRIEF)),
        leg: orNull(supervisor.ref(Relay).ask((client) => client.State(), BRIEF)),
        local: orNull(supervisor.ref(Stun).ask((client) => client.Local(), BRIEF)),
        browsers: webRtc
          ? orNull(supervisor.ref(WebRtc).ask((client) => client.Browsers(), BRIEF))
          : Effect.succeed(null)
      }, { concurrency: "unbounded" })
      const legReason = leg?.reason ?? "the relay actor is being restarted"
      const peers = [
        ...sessions.filter(({ up }) => up).map((session) =>
          peerOf(session, paths ?? [], legReason, config.path === "relay")
        ),
        ...(browsers ?? []).map(browserOf)
      ]
      return { peers, signaling, leg, refusals: refusals ?? [], ...candidatesOf(config.path === "auto" ? local : null) }
    }),
    unready: Effect.gen(function*() {
      const signaling = yield* supervisor.ref(Signaling).ask((client) => client.State(), BRIEF)
      const leg = yield* supervisor.ref(Relay).ask((client) => client.State(), BRIEF)
      const paths = yield* prober.ask((client) => client.Paths(), BRIEF)
      const silent = paths.filter(({ reason }) => reason === "nothing_answers").length
      yield* mux.ask((client) => client.Listeners(), BRIEF) // the data plane's thread answers
      return [
        ...(signaling.state === "up" ? [] : [`not connected to the relay ${signaling.relay}: ${signaling.problem}`]),
        ...(leg.kind === null ? [`no relay carries packets: ${leg.reason}`] : []),
        ...(silent === 0 ? [] : [`of ${paths.length} sessions ${silent} get no answer by any path`])
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
        reason: config.path === "relay" ? "relay_only" : reason
      }
    }),
    netcheck: supervisor.ref(Stun).ask((client) => client.NetCheck(), { deadline: "15 seconds" }),
    network: null,
    reload: (next) =>
      next.role === "client" ? mux.ask((client) => client.SetForwards({ forwards: forwardsOf(next) })) : Effect.void
  } satisfies Running
  if (config.telemetry.report) yield* Reporting.start(running)
  return running
})

/** The addresses that peers are offered, and those of this host that they are not; `null` while they are not known. */
const candidatesOf = (local: LocalCandidates | null) => ({
  candidates: local?.candidates.map(CandidateView.of) ?? null,
  leftOut: local?.leftOut.map(CandidateView.of) ?? null
})

const BRIEF = { deadline: "1 second" } as const
const orNull = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A | null> => Effect.orElseSucceed(effect, () => null)

const doorsOf = (config: ClientConfig): ReadonlyArray<ListenCheck.Wanted> => [
  { key: "socks5", protocol: "tcp", at: config.socks5 },
  ...config.forwards.map(({ listen }, index) => (
    { key: `forwards[${index}].listen`, protocol: "tcp" as const, at: listen }
  ))
]

const forwardsOf = (config: ClientConfig) =>
  config.forwards.map(({ listen, port, resource }) => ({ listen, port, resource }))

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
    reason: path === "relay-tcp" || path === "relay-h3" ? `${reason} (${legReason})` : reason,
    flows: session.flows,
    bytesIn: session.bytesIn,
    bytesOut: session.bytesOut
  }
}
