/** The sockets of a relay that are for STUN alone: a second port at each address, and both ports at an address that only STUN uses. */
import { Effect } from "effect"
import * as Candidate from "../../protocol/Candidate.ts"
import type { SocketAddr } from "../../protocol/SocketAddr.ts"
import * as StunPlaces from "../../protocol/StunPlaces.ts"
import * as UdpPort from "../udp/UdpPort.ts"
import type { StunServer } from "./StunServer.ts"

const SEGMENT_BYTES = 1200 // no trains are sent here
const LAST_PORT = 65_535

export interface Options {
  readonly server: StunServer
  /** By their numbers: the relay's own sockets, all at one port. */
  readonly main: ReadonlyArray<UdpPort.UdpPort>
  /** As configured; a null host is for the relay to choose. Null: the next port, if it is free. */
  readonly alternate: { readonly host: string | null; readonly port: number } | null
  readonly onError: (cause: Error) => void
}

/** Fails only where something was configured that cannot be had. */
export const open = Effect.fnUntraced(function*({ alternate, main, onError, server }: Options) {
  const sockets = [...main]
  const places = main.map((socket) => socket.address())
  const add = (place: SocketAddr) =>
    Effect.suspend(() => {
      const number = sockets.length
      return Effect.map(
        UdpPort.openScoped({
          ...place,
          family: Candidate.familyOf(place.host),
          segment: SEGMENT_BYTES,
          offload: false,
          onMessage: (bytes, from) => server.onUdp(bytes, from, number),
          onError
        }),
        (socket) => {
          sockets.push(socket)
          places.push(place)
        }
      )
    }).pipe(
      Effect.catchIf(() => alternate === null, (error) =>
        Effect.logInfo("the second STUN port is taken; nodes learn less of their networks").pipe(
          Effect.annotateLogs({ host: place.host, port: place.port, code: error.code })
        ))
    )
  const port = places[0]?.port ?? LAST_PORT
  const second = alternate?.port ?? port + 1
  const hosts = places.map(({ host }) => host)
  const wanted = alternate?.host ?? null
  if (wanted !== null && !hosts.includes(wanted)) {
    hosts.push(wanted)
    yield* add({ host: wanted, port })
  }
  if (second <= LAST_PORT) yield* Effect.forEach(hosts, (host) => add({ host, port: second }))
  const others = StunPlaces.pairs(hosts, wanted)
  const numberAt = (host: string | undefined, port: number) => {
    const number = places.findIndex((place) => place.host === host && place.port === port)
    return number < 0 ? undefined : number
  }
  for (const [number, socket] of sockets.entries()) {
    const place = places[number]!
    const otherPort = place.port === port ? second : port
    const otherHost = others.get(place.host)
    server.setSocket(number, socket, place, {
      port: numberAt(place.host, otherPort),
      address: numberAt(otherHost, place.port),
      both: numberAt(otherHost, otherPort)
    })
  }
})
