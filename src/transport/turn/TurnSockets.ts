/**
 * A TURN server with its sockets, which live as long as the scope: UDP at each local address, TCP,
 * and one socket per allocation.
 */
import { Effect, Schema } from "effect"
import * as IpBytes from "../../protocol/bytes/IpBytes.ts"
import { familyOf } from "../../protocol/bytes/SocketAddr.ts"
import { PrefixBuckets } from "../../protocol/bytes/TokenBucket.ts"
import type * as TurnAllocations from "../../protocol/relay/TurnAllocations.ts"
import * as TurnPeers from "../../protocol/relay/TurnPeers.ts"
import * as Crypto from "../../services/host/Crypto.ts"
import type { Secret } from "../../services/identity/TurnCredentials.ts"
import * as LocalAddresses from "../../services/network/LocalAddresses.ts"
import * as ListenSockets from "../udp/ListenSockets.ts"
import * as UdpPort from "../udp/UdpPort.ts"
import { TurnAuth } from "./TurnAuth.ts"
import { type Client, TurnServer } from "./TurnServer.ts"
import { TurnTcp } from "./TurnTcp.ts"

/**
 * Messages per second from one prefix (/24, /56) that are answered without an allocation. The burst
 * is two seconds' worth.
 */
const UNKNOWN_PER_PREFIX = 100
/** Connections without an allocation that are accepted in addition to those that may have one. */
const SPARE_CONNECTIONS = 64
const SEGMENT_BYTES = 1200 // no trains are sent here
/** How often this machine's own addresses are read again, in ticks. */
const OWN_TICKS = 10

type Place = { readonly host: string; readonly port: number }

/** Options of the server and its sockets. `null` for `udp` or `tcp` disables that transport. */
export interface Options {
  readonly secret: Secret
  /** Address to listen at for TURN over UDP. `null` for none. */
  readonly udp: Place | null
  readonly tcp: Place | null
  /** Public IP address of the relayed addresses, as peers see it. */
  readonly publicAddress: string
  /** Local host to which the relayed addresses' sockets are bound. */
  readonly relayHost: string
  /** Range of UDP ports of relayed addresses. */
  readonly ports: { readonly from: number; readonly to: number }
  readonly allowPeers: ReadonlyArray<string>
  readonly answerShort: boolean
  readonly limits: TurnAllocations.Limits
  readonly epochSeconds: () => number
  readonly onError: (cause: Error) => void
  /**
   * Returns the addresses for which an unspecified address in `udp` stands. Default: those of this
   * machine.
   */
  readonly see?: () => LocalAddresses.Seen
}

/** Error when a TURN port is not available. */
export class TurnListenError extends Schema.TaggedError<TurnListenError>()("TurnListenError", {
  message: Schema.String
}) {}

/** Opens the sockets and returns the server. `tick` must be run about once a second. */
export const open = Effect.fnUntraced(function*(options: Options) {
  const { allowPeers, answerShort, limits, onError, ports, publicAddress, relayHost } = options
  const now = () => performance.now()
  const mayRelay = () => {
    const { interfaces, source } = LocalAddresses.see()
    return TurnPeers.make({
      // A listed network might contain an address of this machine, which clients must not reach
      // through it.
      allowed: source === "unseen" ? allowPeers.filter(TurnPeers.isSingle) : allowPeers,
      own: [publicAddress, relayHost, ...addressesOf(interfaces)]
    })
  }
  let mayRelayTo = mayRelay()
  const sockets = new Map<number, UdpPort.UdpPort>()
  const server = yield* Effect.acquireRelease(
    Effect.sync(() =>
      new TurnServer({
        auth: new TurnAuth({ secret: options.secret, epochSeconds: options.epochSeconds }),
        limits,
        relayedHost: TurnPeers.canonical(publicAddress) ?? publicAddress,
        mayRelayTo: (host) => mayRelayTo(host),
        ports,
        open: (port, onMessage) => UdpPort.open({ ...unbatched(relayHost), port, onMessage, onError }),
        mayAnswer: answering(now()),
        now,
        answerShort
      })
    ),
    (server) => Effect.sync(() => server.stop())
  )
  const udp = options.udp === null ? null : yield* ListenSockets.make({
    ...options.udp,
    numbers: new ListenSockets.Numbers(),
    required: true,
    open: (at, number) =>
      UdpPort.openScoped({
        ...unbatched(at.host),
        port: at.port,
        onMessage: (bytes, from) => {
          const socket = sockets.get(number)
          if (socket !== undefined) server.onMessage(bytes, udpClient(socket, number, from))
        },
        onError
      }).pipe(Effect.tap((socket) => void sockets.set(number, socket))),
    onDropped: (number) => void sockets.delete(number),
    onChange: () => {},
    onSkipped: ({ code, host, message }) =>
      Effect.logWarning(`TURN cannot listen at one of this machine's addresses; it is tried again. ${message}`).pipe(
        Effect.annotateLogs({ host, code })
      ),
    now,
    ...(options.see === undefined ? {} : { see: options.see })
  })
  const tcp = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const perAddress = limits.perAddress + SPARE_CONNECTIONS
      return new TurnTcp({ server, now, limits: { connections: limits.total + 4 * SPARE_CONNECTIONS, perAddress } })
    }),
    (tcp) => Effect.sync(() => tcp.close())
  )
  const { tcp: place } = options
  const tcpPort = place === null ? null : yield* Effect.tryPromise({
    try: () => tcp.listen(place.host, place.port, onError),
    catch: (cause) =>
      new TurnListenError({
        message: `cannot listen for TURN at ${place.host}, TCP port ${place.port}: ${String(cause)}`
      })
  })
  let ticks = 0
  const tick = Effect.suspend(() => {
    if (++ticks % OWN_TICKS === 0) mayRelayTo = mayRelay()
    server.tick()
    tcp.tick()
    return udp?.look ?? Effect.void
  })
  return { server, udpPort: udp?.port() ?? null, tcpPort, tick }
})

const addressesOf = (interfaces: LocalAddresses.Interfaces): ReadonlyArray<string> =>
  Object.values(interfaces).flatMap((addresses) => (addresses ?? []).map(({ address }) => address))

/**
 * Socket options without batching: each datagram is one message, because joined ChannelData
 * messages could not be separated.
 */
const unbatched = (host: string) => ({ host, family: familyOf(host), segment: SEGMENT_BYTES, offload: false }) as const

const udpClient = (
  socket: UdpPort.UdpPort,
  index: number,
  { address, port }: { readonly address: string; readonly port: number }
): Client => ({
  tuple: `udp ${index} ${port} ${address}`,
  host: address,
  port,
  stream: false,
  send: (bytes) => socket.send(bytes, 0, bytes.length, port, address)
})

const answering = (now: number) => {
  const seed = new DataView(Crypto.randomBytes(4).buffer).getInt32(0)
  const buckets = new PrefixBuckets({ rate: UNKNOWN_PER_PREFIX, burst: 2 * UNKNOWN_PER_PREFIX, seed, now })
  const ip = new Uint8Array(16)
  return (address: string, now: number): boolean => {
    const length = IpBytes.parse(address, ip)
    return length !== 0 && buckets.take(ip, length, 1, now)
  }
}
