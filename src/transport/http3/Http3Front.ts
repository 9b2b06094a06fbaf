/** HTTP/3 at a relay: its sockets, its connections, and for each session the way to the process that serves links. */
import { Effect, Redacted, Schedule, Stream } from "effect"
import type { Leaf } from "../../services/Pki.ts"
import * as ListenSockets from "../udp/ListenSockets.ts"
import * as UdpPort from "../udp/UdpPort.ts"
import { Gateway } from "./Gateway.ts"
import * as Http3Listener from "./Http3Listener.ts"
import { MAX_PACKET } from "./QuicheHttp3.ts"

export interface Options {
  readonly host: string
  /** 0: any free one (one address only). */
  readonly port: number
  readonly certificate: Leaf
  /** Each later one. */
  readonly changes: Stream.Stream<Leaf>
  /** The path of the socket of the process that serves links. */
  readonly gate: string
  readonly limits?: Partial<Http3Listener.Limits>
  readonly onError: (cause: Error) => void
}

export interface Front {
  readonly port: number
  readonly listener: Http3Listener.Http3Listener
}

/** Serves until the scope ends. */
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
        joined: false, // QUIC's packets do not tell where they end
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

/** For the last packets to leave. */
const GOOD_BYE = "50 millis"

const shown = ({ cert, key, sha256 }: Leaf): Http3Listener.Shown => ({ cert, key: Redacted.value(key), sha256 })
