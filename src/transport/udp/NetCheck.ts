/** Runs behaviour discovery (`NatDiscovery`) against one server, with sockets of its own that are closed at the end. */
import { Clock, Effect, Mailbox, Option, Schema } from "effect"
import { createSocket, type RemoteInfo } from "node:dgram"
import * as Candidate from "../../protocol/Candidate.ts"
import * as NatDiscovery from "../../protocol/NatDiscovery.ts"
import * as NatReport from "../../protocol/NatReport.ts"
import type * as PortMapping from "../../protocol/PortMapping.ts"
import type { SocketAddr } from "../../protocol/SocketAddr.ts"
import * as Stun from "../../protocol/Stun.ts"
import * as Crypto from "../../services/Crypto.ts"
import * as UdpPort from "./UdpPort.ts"

/** Of what arrives before it is read; answers to our few questions fit several times over. */
const ARRIVALS = 256
const SEGMENT_BYTES = 1200 // no trains are sent here

/** This host has no way to the server: no address of that IP version, or no route. */
class NoWay extends Schema.TaggedError<NoWay>()("NoWay", { message: Schema.String }) {}

type Arrival = { readonly socket: number; readonly bytes: Uint8Array; readonly from: RemoteInfo }

/** `probe`, which takes less time than the rest, is asked beside it. The first of the server's addresses (literal) of each IP version. `name` is what people call it. */
export const run = (
  name: string,
  addresses: ReadonlyArray<SocketAddr>,
  probe: Effect.Effect<PortMapping.Report | null> = Effect.succeed(null)
): Effect.Effect<NatReport.NetReport, UdpPort.UdpOpenError> =>
  Effect.gen(function*() {
    const asked = [4, 6].flatMap((family) => addresses.find(({ host }) => Candidate.familyOf(host) === family) ?? [])
    const finding = Effect.forEach(
      asked,
      (server) => discover(server).pipe(Effect.map(Option.some), Effect.catchTag("NoWay", () => Effect.succeedNone)),
      { concurrency: 2 }
    )
    const [found, portMapping] = yield* Effect.all([finding, probe], { concurrency: 2 })
    return NatReport.make(name, found.flatMap(Option.toArray), portMapping)
  })

/** Takes 2 to 4 seconds, by what is silent. */
const discover = (server: SocketAddr): Effect.Effect<NatReport.NatReport, NoWay | UdpPort.UdpOpenError> =>
  Effect.scoped(Effect.gen(function*() {
    const family = Candidate.familyOf(server.host)
    const localHost = yield* localAddress(server, family)
    const arrivals = yield* Mailbox.make<Arrival>({ capacity: ARRIVALS, strategy: "dropping" })
    const sockets = yield* Effect.forEach(
      Array.from({ length: NatDiscovery.SOCKETS }, (_, socket) => socket),
      (socket) =>
        UdpPort.openScoped({
          host: family === 4 ? "0.0.0.0" : "::",
          port: 0,
          family,
          segment: SEGMENT_BYTES,
          offload: false,
          onMessage: (bytes, from) => void arrivals.unsafeOffer({ socket, bytes, from }),
          onError: () => {} // what it would have received counts as lost
        })
    )
    const discovery = new NatDiscovery.NatDiscovery({
      server,
      localHost,
      localPorts: sockets.map((socket) => socket.address().port),
      newTxId: () => Crypto.randomBytes(Stun.TX_ID_BYTES),
      now: yield* nowMs
    })
    for (;;) {
      const now = yield* nowMs
      const { report, sends, wakeAt } = discovery.poll(now)
      for (const { bytes, socket, to } of sends) sockets[socket]?.send(bytes, 0, bytes.length, to.port, to.host)
      if (report !== null) return report
      const arrived = yield* Effect.timeoutOption(arrivals.take, Math.max(0, wakeAt - now)).pipe(Effect.orDie)
      if (Option.isNone(arrived)) continue
      const { bytes, from, socket } = arrived.value
      const host = Candidate.canonical(from.address)
      if (host !== null) discovery.onDatagram(socket, { host, port: from.port }, bytes, yield* nowMs)
    }
  }))

/** From which address this host reaches the server: nothing is sent, the system only looks up the route. */
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

/** Monotonic. */
const nowMs = Effect.map(Clock.currentTimeNanos, (ns) => Number(ns) / 1e6)
