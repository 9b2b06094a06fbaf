/**
 * The UDP sockets of a relay. Nodes bind at one port of each address. STUN also uses a second port
 * of each address, and both ports of an additional address, so that nodes can find out how their
 * networks treat UDP (RFC 5780).
 */
import { Effect, type Scope } from "effect"
import * as StunPlaces from "../../protocol/nat/StunPlaces.ts"
import type * as LocalAddresses from "../../services/network/LocalAddresses.ts"
import * as ListenSockets from "../udp/ListenSockets.ts"
import * as UdpPort from "../udp/UdpPort.ts"
import type { StunServer } from "./StunServer.ts"

/** Segment size of the STUN sockets, which send no trains. */
const STUN_SEGMENT_BYTES = 1200
const LAST_PORT = 65_535

/**
 * Receiver of the sockets' datagrams. It sends through the sockets, which it identifies by their
 * numbers.
 */
export interface Server {
  readonly stun: StunServer
  readonly onUdp: (bytes: Uint8Array, from: { readonly address: string; readonly port: number }, socket: number) => void
  readonly setPort: (socket: number, port: UdpPort.UdpPort) => void
  readonly dropSocket: (socket: number) => void
}

/** Options of {@link make}. */
export interface Options {
  readonly server: Server
  readonly host: string
  /** Port to bind. 0 means any free one. */
  readonly port: number
  /**
   * Alternate host and port for STUN, as configured. If `host` is `null`, the relay pairs its own
   * public addresses. If `alternate` is `null`, the next port is used if it is free.
   */
  readonly alternate: { readonly host: string | null; readonly port: number } | null
  /** Segment size of most trains of relayed packets, in bytes. */
  readonly segment: number
  readonly onError: (cause: Error) => void
  /** Returns the current time in milliseconds (monotonic). */
  readonly now: () => number
  /** Returns the addresses of this machine. Tests replace it. */
  readonly see?: () => LocalAddresses.Seen
}

/** The open sockets of a relay. */
export interface RelaySockets {
  readonly port: () => number
  /** The addresses at which nodes can bind. */
  readonly serving: () => ReadonlyArray<string>
  readonly skipped: () => ReadonlyArray<ListenSockets.Skipped>
  readonly blind: boolean
  /** Checks the addresses again. Must be run about once a second. */
  readonly look: Effect.Effect<void>
}

/**
 * Opens the sockets. Fails if the relay's own port, or an address that was configured for STUN, is
 * not available.
 */
export const make = Effect.fnUntraced(function*(options: Options) {
  const { alternate, now, onError, server } = options
  const numbers = new ListenSockets.Numbers()
  const shared = {
    numbers,
    now,
    onChange: () => wire(),
    ...(options.see === undefined ? {} : { see: options.see })
  }
  const main: ListenSockets.ListenSockets = yield* ListenSockets.make({
    ...shared,
    host: options.host,
    port: options.port,
    required: true,
    open: (place, number) =>
      UdpPort.openScoped({
        ...place,
        segment: options.segment,
        dontFragment: true, // the nodes themselves probe for the size that gets through
        onMessage: (bytes, from) => server.onUdp(bytes, from, number),
        onError
      }),
    onDropped: (number) => server.dropSocket(number),
    onSkipped: ({ code, host, message }) =>
      Effect.logWarning(`nodes cannot bind at one of this machine's addresses; it is tried again. ${message}`).pipe(
        Effect.annotateLogs({ host, code })
      )
  })
  const stunAt = (host: string, port: number, onSkipped: ListenSockets.Options["onSkipped"]) =>
    ListenSockets.make({
      ...shared,
      host,
      port,
      required: alternate !== null,
      open: (place, number): Effect.Effect<UdpPort.UdpPort, UdpPort.UdpOpenError, Scope.Scope> =>
        UdpPort.openScoped({
          ...place,
          segment: STUN_SEGMENT_BYTES,
          offload: false,
          onMessage: (bytes, from) => server.stun.onUdp(bytes, from, number),
          onError
        }),
      onDropped: (number) => server.stun.dropSocket(number),
      onSkipped
    })
  const tellTaken = ({ code, host, port }: UdpPort.UdpOpenError) =>
    Effect.logInfo("the second STUN port cannot be opened; nodes learn less of their networks").pipe(
      Effect.annotateLogs({ host, port, code })
    )

  const second = alternate?.port ?? main.port() + 1
  const extra: Array<ListenSockets.ListenSockets> = []
  const wanted = alternate?.host ?? null
  if (second <= LAST_PORT) extra.push(yield* stunAt(options.host, second, tellTaken))
  if (wanted !== null && !main.held().some(({ host }) => host === wanted)) {
    extra.push(yield* stunAt(wanted, main.port(), tellTaken))
    if (second <= LAST_PORT) extra.push(yield* stunAt(wanted, second, tellTaken))
  }

  /** Gives the STUN server its sockets, and tells it which of them are alternates of each other. */
  const wire = () => {
    const places = [main, ...extra].flatMap((it) =>
      // oxlint-disable-next-line oxc/no-map-spread -- a handful of sockets, once a change
      it.held().map((held) => ({ ...held, port: held.socket.address().port }))
    )
    for (const { number, socket } of main.held()) server.setPort(number, socket)
    if (main.blind) return // how others see these sockets is not known
    const hosts = [...new Set(places.map(({ host }) => host))]
    const others = StunPlaces.pairs(hosts, wanted)
    const numberAt = (host: string | undefined, port: number) =>
      places.find((place) => place.host === host && place.port === port)?.number
    for (const { host, number, port, socket } of places) {
      const otherPort = port === main.port() ? second : main.port()
      const otherHost = others.get(host)
      server.stun.setSocket(number, socket, { host, port }, {
        port: numberAt(host, otherPort),
        address: numberAt(otherHost, port),
        both: numberAt(otherHost, otherPort)
      })
    }
  }
  wire()
  return {
    port: main.port,
    serving: () => main.held().map(({ host }) => host),
    skipped: main.skipped,
    blind: main.blind,
    look: Effect.forEach([main, ...extra], ({ look }) => look, { discard: true })
  } satisfies RelaySockets
})
