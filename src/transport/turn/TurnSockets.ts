/** A TURN server with its sockets, for as long as a scope: UDP at each local address, TCP, and one socket for each allocation. */
import { Effect, Schema } from "effect"
import { networkInterfaces } from "node:os"
import * as IpBytes from "../../protocol/IpBytes.ts"
import { PrefixBuckets } from "../../protocol/TokenBucket.ts"
import type * as TurnAllocations from "../../protocol/TurnAllocations.ts"
import * as TurnPeers from "../../protocol/TurnPeers.ts"
import * as Crypto from "../../services/Crypto.ts"
import type { Secret } from "../../services/TurnCredentials.ts"
import * as UdpPort from "../udp/UdpPort.ts"
import { TurnAuth } from "./TurnAuth.ts"
import { type Client, TurnServer } from "./TurnServer.ts"
import { TurnTcp } from "./TurnTcp.ts"

/** Messages a second, from clients without an allocation, of one prefix (/24, /56); the burst is two seconds of it. */
const UNKNOWN_PER_PREFIX = 100
/** Connections that have no allocation yet, beside those that may have one. */
const SPARE_CONNECTIONS = 64
const SEGMENT_BYTES = 1200 // no trains are sent here
/** How often this machine's own addresses are read anew, in ticks. */
const OWN_TICKS = 10

type Place = { readonly host: string; readonly port: number }

export interface Options {
  readonly secret: Secret
  /** Literal addresses, all with the same port. */
  readonly udp: ReadonlyArray<Place>
  readonly tcp: Place | null
  /** Of the relayed addresses, as peers see them. */
  readonly publicAddress: string
  /** Where the relayed addresses' sockets are bound. */
  readonly relayHost: string
  readonly ports: { readonly from: number; readonly to: number }
  readonly allowPeers: ReadonlyArray<string>
  readonly answerShort: boolean
  readonly limits: TurnAllocations.Limits
  readonly epochSeconds: () => number
  readonly onError: (cause: Error) => void
}

export class TurnListenError extends Schema.TaggedError<TurnListenError>()("TurnListenError", {
  message: Schema.String
}) {}

export const open = Effect.fnUntraced(function*(options: Options) {
  const { allowPeers, answerShort, limits, onError, ports, publicAddress, relayHost } = options
  const now = () => performance.now()
  const mayRelay = () => TurnPeers.make({ allowed: allowPeers, own: [publicAddress, relayHost, ...ownAddresses()] })
  let mayRelayTo = mayRelay()
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
  let udpPort: number | null = null
  for (const [index, { host, port }] of options.udp.entries()) {
    const socket: UdpPort.UdpPort = yield* UdpPort.openScoped({
      ...unbatched(host),
      port: udpPort ?? port,
      onMessage: (bytes, from) => server.onMessage(bytes, udpClient(socket, index, from)),
      onError
    })
    udpPort = socket.address().port
  }
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
  const tick = () => {
    if (++ticks % OWN_TICKS === 0) mayRelayTo = mayRelay()
    server.tick()
    tcp.tick()
  }
  return { server, udpPort, tcpPort, tick }
})

const ownAddresses = (): ReadonlyArray<string> =>
  Object.values(networkInterfaces()).flatMap((addresses) => (addresses ?? []).map(({ address }) => address))

/** One message for each datagram: joined ChannelData could not be told apart. */
const unbatched = (host: string) =>
  ({ host, family: host.includes(":") ? 6 : 4, segment: SEGMENT_BYTES, offload: false }) as const

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
