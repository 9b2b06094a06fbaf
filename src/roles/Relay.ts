/**
 * The relay role: keys and directory, the hub at which nodes sign in, and the forwarder of their
 * packets.
 */
import { Effect, Stream } from "effect"
import { join } from "node:path"
import { RelayForwarder } from "../actors/forwarder/RelayForwarderRpcs.ts"
import { Http3 } from "../actors/http3/Http3Rpcs.ts"
import { SignalingHub } from "../actors/hub/SignalingHubRpcs.ts"
import { HTTP3_PLACEMENT, RELAY_ACTORS, RELAY_PLACEMENT } from "../actors/Wiring.ts"
import * as HostName from "../protocol/bytes/HostName.ts"
import { renderHostPort } from "../protocol/bytes/SocketAddr.ts"
import type { RelayConfig } from "../services/config/Config.ts"
import * as Directory from "../services/directory/Directory.ts"
import * as RelayKeys from "../services/directory/RelayKeys.ts"
import * as StateDir from "../services/host/StateDir.ts"
import * as DirectoryClock from "../services/identity/DirectoryClock.ts"
import * as TurnCredentials from "../services/identity/TurnCredentials.ts"
import * as ListenCheck from "../services/network/ListenCheck.ts"
import type { Settings } from "../services/telemetry/Telemetry.ts"
import * as Platform from "../transport/quic/engine/Platform.ts"
import * as Threads from "./RoleThreads.ts"
import { RELOAD, type Running } from "./Running.ts"

/** Unix socket in the state directory by which the HTTP/3 process hands links to the hub. */
const HTTP3_GATE_FILE = "http3.sock"

/** Options of {@link start}. */
export interface Options {
  /** Whether a relay is created if the state directory holds none. */
  readonly newIdentity?: boolean
}

/**
 * Reads the relay's state, or makes it if `newIdentity` says so, starts its actors, and succeeds
 * when it listens. It stops when the scope closes.
 */
export const start = Effect.fnUntraced(function*(config: RelayConfig, telemetry: Settings, options: Options) {
  const { advertise, http3, listen, stateDir, tls, turn } = config
  if (http3) yield* Platform.check()
  yield* ListenCheck.check([
    { key: "listen.https", protocol: "tcp", at: listen.https },
    { key: "listen.udp", protocol: "udp", at: listen.udp, mayCome: true },
    { key: "listen.stunAlternate", protocol: "udp", at: listen.stunAlternate },
    { key: "http3", protocol: "udp", at: http3 ? listen.https : null },
    { key: "turn.udp", protocol: "udp", at: turn?.udp },
    { key: "turn.tcp", protocol: "tcp", at: turn?.tcp }
  ])
  const keys = yield* StateDir.patiently(stateDir, RelayKeys.isOfFiles, prepare(config, options))
  const gate = join(stateDir, HTTP3_GATE_FILE)
  const configs: Record<string, unknown> = {
    [RelayForwarder.name]: {
      authorityKey: keys.authorityKey,
      name: "",
      udp: listen.udp,
      stunAlternate: listen.stunAlternate ?? null,
      turn: turnOf(config)
    },
    [Http3.name]: { stateDir, host: listen.https.host, gate, advertised: advertise.host, tls }
  }
  const hubConfig = (policy: ReturnType<typeof policyOf>) => ({
    stateDir,
    https: listen.https,
    gate: http3 ? gate : null,
    advertise: { host: advertise.host, httpsPort: advertise.https, udpPort: advertise.udp, http3 },
    tls,
    proxyProtocol: config.proxyProtocol,
    behindProxy: config.behindProxy?.from ?? null,
    turn: turn !== undefined,
    app: config.app && (tls !== null || config.behindProxy !== null),
    policy
  })
  configs[SignalingHub.name] = hubConfig(policyOf(config))
  const supervisor = yield* Threads.start({
    config,
    telemetry,
    actors: http3 ? [...RELAY_ACTORS, Http3] : RELAY_ACTORS,
    placement: http3 ? { ...RELAY_PLACEMENT, ...HTTP3_PLACEMENT } : RELAY_PLACEMENT,
    configs
  })
  const hub = supervisor.ref(SignalingHub)
  const forwarder = supervisor.ref(RelayForwarder)
  const { https } = yield* hub.ask((client) => client.AwaitListening(), { deadline: "20 seconds" })
  const { udp } = yield* forwarder.ask((client) => client.AwaitListening(), { deadline: "20 seconds" })
  const quic = http3 ? yield* supervisor.ref(Http3).ask((client) => client.AwaitListening(), BRIEF) : null
  return {
    supervisor,
    listen: {
      https: renderHostPort({ ...listen.https, port: https }),
      ...(quic === null ? {} : { http3: renderHostPort({ ...listen.https, port: quic.http3 }) }),
      udp: renderHostPort({ ...listen.udp, port: udp })
    },
    self: { role: config.role, name: config.name, network: null, relay: null },
    resources: null,
    status: Effect.gen(function*() {
      const nodes = yield* hub.ask((client) => client.Nodes())
      const forwarded = yield* forwarder.ask((client) => client.Stats())
      const addresses = yield* forwarder.ask((client) => client.Addresses())
      const condition = yield* hub.ask((client) => client.Condition())
      return { peers: [], nodes, forwarded, addresses, ...condition }
    }),
    unready: Effect.as(Effect.zip(hub.ask((c) => c.Nodes(), BRIEF), forwarder.ask((c) => c.Stats(), BRIEF)), []),
    decisions: Stream.empty,
    netcheck: null,
    drain: null,
    ping: null,
    network: {
      overview: (wanted) => hub.ask((client) => client.Network(wanted)),
      // This is longer than the hub waits for the node, so that the hub's more precise error is
      // shown.
      examine: (name) => hub.ask((client) => client.Examine({ name }), { deadline: "7 seconds" })
    },
    reload: (next) => {
      if (next.role !== "relay") return Effect.void
      const policy = policyOf(next)
      return Effect.tap(hub.ask((client) => client.SetPolicy(policy), RELOAD), () => {
        configs[SignalingHub.name] = hubConfig(policy)
      })
    }
  } satisfies Running
})

/**
 * Reads the state before any actor does, so that damage ends the start with one message and a disk
 * in trouble is waited for. The rules of the configuration are in force before a node can sign in.
 */
const prepare = Effect.fnUntraced(function*(config: RelayConfig, { newIdentity = false }: Options) {
  const { stateDir, turn } = config
  const keys = yield* RelayKeys.ensure(stateDir, newIdentity)
  if (turn !== undefined) yield* TurnCredentials.loadOrCreate(stateDir)
  const bringUpToDate = Effect.gen(function*() {
    const directory = yield* Directory.Directory
    yield* directory.check
    const time = yield* DirectoryClock.start(yield* directory.latestTime)
    yield* Effect.provideService(directory.replacePolicy(policyOf(config)), DirectoryClock.DirectoryClock, time)
  })
  yield* Effect.provide(bringUpToDate, Directory.layer({ stateDir }))
  return keys
})

const BRIEF = { deadline: "1 second" } as const

const turnOf = ({ stateDir, turn }: RelayConfig) => {
  if (turn === undefined) return null
  const { quotas: { mbitPerUser, ...quotas }, tcp = null, udp = null, ...rest } = turn
  return { ...rest, stateDir, udp, tcp, quotas: { ...quotas, bytesPerSecond: mbitPerUser * 125_000 } }
}

const policyOf = ({ access, resources }: RelayConfig) => ({
  access,
  resources: resources.map((resource) => {
    const name = HostName.normalize(resource.name) ?? resource.name
    return name === resource.name ? resource : { ...resource, name, shown: resource.name }
  })
})
