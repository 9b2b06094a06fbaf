/** The relay role: keys and directory, the hub that nodes sign in at, the forwarder of their packets. */
import { Effect, Stream } from "effect"
import { RelayForwarder } from "../actors/RelayForwarderRpcs.ts"
import { SignalingHub } from "../actors/SignalingHubRpcs.ts"
import { RELAY_ACTORS, RELAY_PLACEMENT } from "../actors/Wiring.ts"
import type { RelayConfig } from "../services/config/Config.ts"
import * as HostPort from "../services/config/HostPort.ts"
import * as RelayKeys from "../services/RelayKeys.ts"
import type { Settings } from "../services/Telemetry.ts"
import type { Running } from "./Running.ts"
import * as Threads from "./Threads.ts"

export const start = Effect.fnUntraced(function*(config: RelayConfig, telemetry: Settings) {
  const keys = yield* RelayKeys.ensure(config.stateDir)
  const { advertise, listen, tls } = config
  const supervisor = yield* Threads.start({
    config,
    telemetry,
    actors: RELAY_ACTORS,
    placement: RELAY_PLACEMENT,
    configs: {
      [RelayForwarder.name]: {
        authorityKey: keys.authorityKey,
        name: "",
        udp: listen.udp,
        stunAlternate: listen.stunAlternate ?? null,
        turn: turnOf(config)
      },
      [SignalingHub.name]: {
        stateDir: config.stateDir,
        https: listen.https,
        advertise: { host: advertise.host, httpsPort: advertise.https, udpPort: advertise.udp },
        tls,
        turn: config.turn !== undefined,
        app: config.app && tls !== null,
        policy: policyOf(config)
      }
    }
  })
  const hub = supervisor.ref(SignalingHub)
  const forwarder = supervisor.ref(RelayForwarder)
  const { https } = yield* hub.ask((client) => client.AwaitListening(), { deadline: "20 seconds" })
  const { udp } = yield* forwarder.ask((client) => client.AwaitListening(), { deadline: "20 seconds" })
  return {
    supervisor,
    listen: {
      https: HostPort.render({ ...listen.https, port: https }),
      udp: HostPort.render({ ...listen.udp, port: udp })
    },
    status: Effect.gen(function*() {
      const nodes = yield* hub.ask((client) => client.Nodes())
      const forwarded = yield* forwarder.ask((client) => client.Stats())
      return { peers: [], nodes, forwarded }
    }),
    unready: Effect.as(Effect.zip(hub.ask((c) => c.Nodes(), BRIEF), forwarder.ask((c) => c.Stats(), BRIEF)), []),
    decisions: Stream.empty,
    netcheck: null,
    ping: null,
    network: {
      overview: (wanted) => hub.ask((client) => client.Network(wanted)),
      // Longer than the hub gives the node: its own words are the better ones.
      examine: (name) => hub.ask((client) => client.Examine({ name }), { deadline: "7 seconds" })
    },
    reload: (next) => next.role === "relay" ? hub.ask((client) => client.SetPolicy(policyOf(next))) : Effect.void
  } satisfies Running
})

const BRIEF = { deadline: "1 second" } as const

const turnOf = ({ stateDir, turn }: RelayConfig) => {
  if (turn === undefined) return null
  const { quotas: { mbitPerUser, ...quotas }, tcp = null, udp = null, ...rest } = turn
  return { ...rest, stateDir, udp, tcp, quotas: { ...quotas, bytesPerSecond: mbitPerUser * 125_000 } }
}

const policyOf = ({ access, resources }: RelayConfig) => ({ access, resources })
