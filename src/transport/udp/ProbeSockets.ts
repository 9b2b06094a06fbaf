/**
 * Runs a state machine that asks one STUN server through sockets of its own. They are opened for it
 * and closed at the end.
 */
import { Effect, Mailbox, Option, Schema } from "effect"
import { createSocket, type RemoteInfo } from "node:dgram"
import { familyOf, type SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import * as Candidate from "../../protocol/candidate/Candidate.ts"
import { nowMs } from "../../session/MonotonicClock.ts"
import * as UdpPort from "./UdpPort.ts"

/**
 * Datagrams that wait to be read, several times the answers to our few questions. When it is full,
 * new ones are dropped.
 */
const ARRIVALS = 256
// Segment size that the sockets are opened with. It does not matter, because no trains are sent.
const SEGMENT_BYTES = 1200

/**
 * Error when this host cannot reach the server: it has no address of that IP version, or no route.
 */
export class NoWay extends Schema.TaggedError<NoWay>()("NoWay", { message: Schema.String }) {}

/** A state machine that asks a server. Times are in milliseconds, monotonic. */
export interface Machine<A> {
  readonly poll: (now: number) => {
    readonly sends: ReadonlyArray<{ readonly socket: number; readonly to: SocketAddr; readonly bytes: Uint8Array }>
    /** When to poll again, unless a datagram arrives earlier. */
    readonly wakeAt: number
    /** The result, which ends the run. `null` while it is not known. */
    readonly report: A | null
  }
  /** Called with each whole datagram that arrived at `socket`. */
  readonly onDatagram: (socket: number, from: SocketAddr, bytes: Uint8Array, now: number) => void
}

/** Server to ask, number of sockets that the machine needs, and function that makes the machine. */
export interface Options<A> {
  readonly server: SocketAddr
  readonly sockets: number
  readonly make: (own: {
    /** This host's address towards the server. `null` if it is not known. */
    readonly localHost: string | null
    readonly localPorts: ReadonlyArray<number>
    readonly now: number
  }) => Machine<A>
}

interface Arrival {
  readonly socket: number
  readonly bytes: Uint8Array
  readonly from: RemoteInfo
}

/**
 * Runs a machine until it has a report. Fails if the server cannot be reached, or if a socket
 * cannot be opened.
 */
export const run = <A>(options: Options<A>): Effect.Effect<A, NoWay | UdpPort.UdpOpenError> =>
  Effect.scoped(Effect.gen(function*() {
    const family = familyOf(options.server.host)
    const localHost = yield* localAddress(options.server, family)
    const arrivals = yield* Mailbox.make<Arrival>({ capacity: ARRIVALS, strategy: "dropping" })
    const sockets = yield* Effect.forEach(
      Array.from({ length: options.sockets }, (_, socket) => socket),
      (socket) =>
        UdpPort.openScoped({
          host: family === 4 ? "0.0.0.0" : "::",
          port: 0,
          family,
          segment: SEGMENT_BYTES,
          offload: false,
          onMessage: (bytes, from) => void arrivals.unsafeOffer({ socket, bytes, from }),
          onError: () => {} // datagrams that it would have received count as lost
        })
    )
    const localPorts = sockets.map((socket) => socket.address().port)
    const machine = options.make({ localHost, localPorts, now: yield* nowMs })
    for (;;) {
      const now = yield* nowMs
      const { report, sends, wakeAt } = machine.poll(now)
      for (const { bytes, socket, to } of sends) sockets[socket]?.send(bytes, 0, bytes.length, to.port, to.host)
      if (report !== null) return report
      const arrived = yield* Effect.timeoutOption(arrivals.take, Math.max(0, wakeAt - now)).pipe(Effect.orDie)
      if (Option.isNone(arrived)) continue
      const { bytes, from, socket } = arrived.value
      const host = Candidate.canonical(from.address)
      if (host !== null) machine.onDatagram(socket, { host, port: from.port }, bytes, yield* nowMs)
    }
  }))

/**
 * Finds the local address towards the server by connecting a socket. The system only looks up the
 * route; nothing is sent.
 */
const localAddress = (server: SocketAddr, family: 4 | 6): Effect.Effect<string | null, NoWay> =>
  Effect.acquireUseRelease(
    Effect.sync(() => createSocket({ type: family === 4 ? "udp4" : "udp6" })),
    (socket) =>
      Effect.async<string | null, NoWay>((resume) => {
        const noWay = ({ message }: Error) => resume(Effect.fail(new NoWay({ message })))
        socket.once("error", noWay)
        socket.connect(server.port, server.host, (cause?: Error) => {
          if (cause !== undefined) return noWay(cause)
          resume(Effect.succeed(Candidate.canonical(socket.address().address)))
        })
      }),
    (socket) => Effect.sync(() => socket.close())
  )
