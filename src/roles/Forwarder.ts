/**
 * The role of a relay that has joined another one: it forwards packets and answers STUN. The
 * authority's public key is all it needs to check tickets.
 */
import { Effect, Stream } from "effect"
import { RelayForwarder } from "../actors/forwarder/RelayForwarderRpcs.ts"
import { RelayMember } from "../actors/member/RelayMemberRpcs.ts"
import { FORWARDER_ACTORS, FORWARDER_PLACEMENT } from "../actors/Wiring.ts"
import * as HostName from "../protocol/bytes/HostName.ts"
import { renderHostPort } from "../protocol/bytes/SocketAddr.ts"
import type { ForwarderConfig } from "../services/config/Config.ts"
import * as ListenCheck from "../services/network/ListenCheck.ts"
import type { Settings } from "../services/telemetry/Telemetry.ts"
import * as Enrol from "./Enrol.ts"
import type { Options } from "./Node.ts"
import * as Threads from "./RoleThreads.ts"
import type { Running } from "./Running.ts"

/**
 * Enrols the relay if it has not enrolled yet, and starts its actors. It stops when the scope
 * closes.
 */
export const start = Effect.fnUntraced(function*(
  config: ForwarderConfig,
  telemetry: Settings,
  { onWaiting }: Pick<Options, "onWaiting">
) {
  const { advertise, listen, name, stateDir, token } = config
  yield* ListenCheck.check([
    { key: "listen.udp", protocol: "udp", at: listen.udp, mayCome: true },
    { key: "listen.stunAlternate", protocol: "udp", at: listen.stunAlternate }
  ])
  const { relay } = yield* Enrol.ensure({
    role: "relay",
    name,
    stateDir,
    token,
    carrier: "auto",
    proxy: config.proxy,
    ca: config.ca,
    onWaiting
  })
  const supervisor = yield* Threads.start({
    config,
    telemetry,
    actors: FORWARDER_ACTORS,
    placement: FORWARDER_PLACEMENT,
    configs: {
      [RelayForwarder.name]: {
        authorityKey: relay.authorityKey,
        name: HostName.normalize(name) ?? name,
        udp: listen.udp,
        stunAlternate: listen.stunAlternate ?? null,
        turn: null
      },
      [RelayMember.name]: {
        stateDir,
        name: HostName.normalize(name) ?? name,
        host: advertise.host,
        port: advertise.udp,
        proxy: Enrol.proxyText(config),
        ca: config.ca
      }
    }
  })
  const forwarder = supervisor.ref(RelayForwarder)
  const { udp } = yield* forwarder.ask((client) => client.AwaitListening(), { deadline: "20 seconds" })
  return {
    supervisor,
    listen: { udp: renderHostPort({ ...listen.udp, port: udp }) },
    self: {
      role: config.role,
      name,
      network: null,
      relay: renderHostPort({ host: relay.host, port: relay.httpsPort })
    },
    resources: null,
    status: Effect.gen(function*() {
      const forwarded = yield* forwarder.ask((client) => client.Stats())
      const directory = yield* Effect.orElseSucceed(
        supervisor.ref(RelayMember).ask((client) => client.State(), { deadline: "1 second" }),
        () => null
      )
      const addresses = yield* forwarder.ask((client) => client.Addresses())
      return { peers: [], forwarded, directory, addresses }
    }),
    unready: Effect.as(forwarder.ask((client) => client.Stats(), { deadline: "1 second" }), []),
    decisions: Stream.empty,
    netcheck: null,
    drain: null,
    ping: null,
    network: null,
    reload: () => Effect.void
  } satisfies Running
})
