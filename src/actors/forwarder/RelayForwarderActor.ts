/**
 * The relay's packet plane: its UDP sockets, and the links that other threads hand over.
 * `RelayServer` does the work in the sockets' callbacks. This actor gives it sockets and links, and
 * passes on revocations and the directory's time.
 */
import { Effect, FiberSet, Schedule, Schema } from "effect"
import { isIPv6 } from "node:net"
import type { MessagePort } from "node:worker_threads"
import type { LinkKind } from "../../protocol/path/PathKind.ts"
import { LARGEST_BYTES } from "../../protocol/path/PathMtu.ts"
import * as TurnAllocations from "../../protocol/relay/TurnAllocations.ts"
import { DirectoryTime } from "../../protocol/trust/DirectoryTime.ts"
import { NodeKey, toBytes } from "../../protocol/trust/NodeKey.ts"
import { isUnspecified } from "../../services/config/HostPort.ts"
import * as Crypto from "../../services/host/Crypto.ts"
import { HostClock } from "../../services/host/HostClock.ts"
import * as TurnCredentials from "../../services/identity/TurnCredentials.ts"
import * as LocalAddresses from "../../services/network/LocalAddresses.ts"
import { DirectoryOutage } from "../../transport/relay/DirectoryOutage.ts"
import * as RelayMetrics from "../../transport/relay/RelayMetrics.ts"
import { RelayServer } from "../../transport/relay/RelayServer.ts"
import * as RelaySockets from "../../transport/relay/RelaySockets.ts"
import * as TurnMetrics from "../../transport/turn/TurnMetrics.ts"
import * as TurnSockets from "../../transport/turn/TurnSockets.ts"
import * as Actor from "../runtime/actor/Actor.ts"
import * as Self from "../runtime/actor/Self.ts"
import { RelayForwarder, RelayForwarderRpcs } from "./RelayForwarderRpcs.ts"

const Place = Schema.Struct({ host: Schema.String, port: Schema.Int })

/** Settings of TURN; see `turn` in the configuration file. */
const TurnConfig = Schema.Struct({
  /** Directory that holds TURN's secret. */
  stateDir: Schema.String,
  udp: Schema.NullOr(Place),
  tcp: Schema.NullOr(Place),
  publicAddress: Schema.String,
  ports: Schema.Struct({ from: Schema.Int, to: Schema.Int }),
  allowPeers: Schema.Array(Schema.String),
  answerShort: Schema.Boolean,
  quotas: Schema.Struct({
    total: Schema.Int,
    perUser: Schema.Int,
    perAddress: Schema.Int,
    bytesPerSecond: Schema.Number
  })
})

/** Settings of the RelayForwarderActor, from the relay's configuration. */
export const Config = Schema.Struct({
  authorityKey: NodeKey,
  /** Name by which nodes know this relay. Empty for the relay that holds the directory. */
  name: Schema.String,
  /**
   * UDP address at which nodes bind. Port 0 stands for any free port, which works only with a
   * single address.
   */
  udp: Schema.Struct({ host: Schema.String, port: Schema.Int }),
  /**
   * Second address at which STUN is answered. An unspecified host lets the relay choose. `null`
   * stands for the next port, if it is free.
   */
  stunAlternate: Schema.NullOr(Schema.Struct({ host: Schema.String, port: Schema.Int })),
  /** `null` if TURN is off. */
  turn: Schema.NullOr(TurnConfig)
})
export type Config = typeof Config.Type

const make = Effect.fnUntraced(function*(config: Config) {
  const authority = toBytes(config.authorityKey)
  const fork = yield* FiberSet.makeRuntime()
  const clock = yield* Effect.clock
  const hostMs = (yield* HostClock).now
  const time = new DirectoryTime(hostMs)
  const epochSeconds = () => Math.floor((time.nowMs() ?? clock.unsafeCurrentTimeMillis()) / 1000)
  const outage = new DirectoryOutage(hostMs)
  const server = new RelayServer({
    verify: {
      authority: (message, signature) => Crypto.verify(authority, message, signature),
      node: (key, message, signature) => Crypto.verify(toBytes(key), message, signature)
    },
    name: config.name,
    now: hostMs,
    epochSeconds,
    outageSeconds: () => outage.seconds,
    onFull: (table) => void fork(Effect.logWarning(`the relay's table of ${table} is full; new entries are refused`))
  })
  const self = yield* Self.Self
  const onError = (cause: Error) => void fork(Effect.logError("a UDP socket of the relay failed", cause))
  const { stunAlternate: second } = config
  const sockets = yield* RelaySockets.make({
    server: {
      stun: server.stun,
      onUdp: (bytes, from, socket) => server.onUdp(bytes, from, socket),
      setPort: (number, socket) => server.setPort(number, socket),
      dropSocket: (number) => server.dropSocket(number)
    },
    ...config.udp,
    alternate: second === null ? null : { ...second, host: isUnspecified(second.host) ? null : second.host },
    segment: LARGEST_BYTES + 8,
    onError,
    now: () => performance.now()
  })
  const { source } = LocalAddresses.see()
  if (source !== "netlink" && isUnspecified(config.udp.host)) yield* tellUnseen(source)
  yield* Self.fork(Effect.repeat(Effect.sync(() => server.tick()), Schedule.spaced("1 second")))
  yield* Self.fork(Effect.repeat(sockets.look, Schedule.spaced("1 second")))

  const turn = config.turn === null ? null : yield* openTurn(config.turn, onError, epochSeconds)
  yield* self.exposeMetrics(() => [
    ...RelayMetrics.read(server),
    ...(turn === null ? [] : TurnMetrics.read(turn.server))
  ])
  if (turn !== null) yield* Self.fork(Effect.repeat(turn.tick, Schedule.spaced("1 second")))

  /**
   * Attaches a link. Batches go both ways as transferred buffers. The other side acknowledges the
   * bytes it has taken, so the rest counts as buffered.
   */
  const attach = (nodeKey: NodeKey, kind: LinkKind, link: MessagePort) => {
    let sent = 0
    let taken = 0
    const leg = server.attachLink(nodeKey, {
      kind,
      bufferedBytes: () => sent - taken,
      send: (frames) => {
        const own = Uint8Array.from(frames)
        sent += own.length
        link.postMessage(own, [own.buffer])
      }
    })
    if (leg === null) return link.close()
    link.on("message", (message: Uint8Array | number) => {
      if (typeof message === "number") taken += message
      else server.onLinkFrames(leg, message)
    })
    link.once("close", () => server.detachLink(leg))
  }

  return RelayForwarderRpcs.of({
    AwaitListening: () =>
      Effect.sync(() => ({
        udp: sockets.port(),
        turn: turn === null ? null : { udp: turn.udpPort, tcp: turn.tcpPort }
      })),
    AttachLink: ({ kind, nodeKey, port: link }) =>
      Effect.sync(() => attach(nodeKey, kind, link as unknown as MessagePort)),
    Revoke: ({ nodeKey }) => Effect.sync(() => server.revoke(nodeKey)),
    RevokeTurn: ({ at, name }) => Effect.sync(() => turn?.server.revoke(name, at)),
    SetTime: ({ offsetMs }) => Effect.sync(() => time.set(offsetMs)),
    SetReach: ({ reached }) => Effect.sync(() => outage.onReach(reached)),
    Addresses: () =>
      Effect.sync(() => ({
        all: isUnspecified(config.udp.host),
        serving: sockets.serving(),
        skipped: sockets.skipped(),
        unseen: sockets.blind
      })),
    Stats: () => Effect.sync(() => flat(turn === null ? server.stats : { ...server.stats, turn: turn.server.stats }))
  })
})

const tellUnseen = (source: "proc" | "unseen") =>
  source === "proc"
    ? Effect.logInfo("netlink is refused to this process; the machine's addresses are read from /proc/net")
    : Effect.logWarning(
      "this process cannot see the machine's addresses, so answers may leave from another address than the one that was " +
        "asked; allow AF_NETLINK (RestrictAddressFamilies of the systemd unit), or name the address in listen.udp"
    )

const openTurn = Effect.fnUntraced(function*(
  { quotas, stateDir, tcp, udp, ...rest }: typeof TurnConfig.Type,
  onError: (cause: Error) => void,
  epochSeconds: () => number
) {
  const listening = (udp ?? tcp)?.host ?? ""
  const isV6 = isIPv6(rest.publicAddress)
  // Relayed addresses have the family of the public address, whatever family clients use.
  const relayHost = isUnspecified(listening) || isIPv6(listening) !== isV6 ? (isV6 ? "::" : "0.0.0.0") : listening
  return yield* TurnSockets.open({
    ...rest,
    secret: yield* TurnCredentials.loadOrCreate(stateDir),
    udp,
    tcp,
    relayHost,
    limits: { ...TurnAllocations.DEFAULT_LIMITS, ...quotas },
    epochSeconds,
    onError
  })
})

/** Flattens counters to dotted names. */
const flat = (value: object, prefix = ""): Record<string, number> =>
  Object.fromEntries(
    Object.entries(value).flatMap(([key, inner]: [string, unknown]) =>
      typeof inner === "number"
        ? [[prefix + key, inner] as const]
        : typeof inner === "object" && inner !== null
        ? Object.entries(flat(inner, `${prefix}${key}.`))
        : []
    )
  )

/** The RelayForwarderActor, for the runtime that starts it. */
export const actor = Actor.make({
  address: RelayForwarder,
  config: Config,
  uses: [],
  layer: (config) => RelayForwarderRpcs.toLayer(make(config))
})
