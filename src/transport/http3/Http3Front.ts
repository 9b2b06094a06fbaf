/**
 * HTTP/3 at a relay: its sockets, its connections, and a gateway to the process that serves links
 * for each session.
 */
import { Effect, Redacted, Schedule, Stream } from "effect"
import type { Leaf } from "../../services/identity/Pki.ts"
import * as ListenSockets from "../udp/ListenSockets.ts"
import * as UdpPort from "../udp/UdpPort.ts"
import { Gateway } from "./Http3Gateway.ts"
import * as Http3Listener from "./Http3Listener.ts"
import { MAX_PACKET } from "./QuicheHttp3.ts"

/** Options of {@link make}. */
export interface Options {
  readonly host: string
  /** UDP port; 0 picks a free one. */
  readonly port: number
  readonly certificate: Leaf
  /** Emits each later certificate. */
  readonly changes: Stream.Stream<Leaf>
  /** Path of the unix socket of the process that serves links. */
  readonly gate: string
  readonly limits?: Partial<Http3Listener.Limits>
  readonly onError: (cause: Error) => void
}

export interface Front {
  readonly port: number
  readonly listener: Http3Listener.Http3Listener
}

/** Serves HTTP/3 until the scope closes. */
export const make = Effect.fnUntraced(function*(options: Options) {
  const limits = { ...Http3Listener.DEFAULT_LIMITS, ...options.limits }
  const listener = new Http3Listener.Http3Listener({
    limits,
    certificate: shown(options.certificate),
    onConnection: (newcomer) => new Gateway(newcomer, options.gate, limits.stuckMs).handlers
  })
  const held = new Map<number, UdpPort.UdpPort>()
  const sockets = yield* ListenSockets.make({
    host: options.host,
    port: options.port,
    numbers: new ListenSockets.Numbers(),
    required: true,
    open: (at, number) =>
      UdpPort.openScoped({
        ...at,
        segment: MAX_PACKET,
        joined: false, // QUIC packets do not carry their length
        onMessage: (bytes, from) => {
          const socket = held.get(number)
          if (socket !== undefined) listener.onDatagram(socket, bytes, from.address, from.port)
        },
        onError: options.onError
      }).pipe(Effect.tap((socket) => void held.set(number, socket))),
    onDropped: (number) => void held.delete(number),
    onChange: () => {},
    onSkipped: ({ code, host, message }) =>
      Effect.logWarning(`HTTP/3 is not served at one of this machine's addresses; it is tried again. ${message}`).pipe(
        Effect.annotateLogs({ host, code })
      ),
    now: () => performance.now()
  })
  yield* Effect.forkScoped(Effect.repeat(sockets.look, Schedule.spaced("1 second")))
  yield* Effect.addFinalizer(() => Effect.zipRight(Effect.sync(() => listener.close()), Effect.sleep(GOOD_BYE)))
  yield* Effect.forkScoped(
    Stream.runForEach(options.changes, (next) => Effect.sync(() => listener.updateCertificate(shown(next))))
  )
  return { port: sockets.port(), listener } satisfies Front
})

/** Time for the last packets to leave before the sockets close. */
const GOOD_BYE = "50 millis"

const shown = ({ cert, key, sha256 }: Leaf): Http3Listener.Shown => ({ cert, key: Redacted.value(key), sha256 })
