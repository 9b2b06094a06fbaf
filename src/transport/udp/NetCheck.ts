/** Runs behaviour discovery (`NatDiscovery`) against one server. */
import { Effect, Option } from "effect"
import type { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import * as Candidate from "../../protocol/candidate/Candidate.ts"
import * as NatDiscovery from "../../protocol/nat/NatDiscovery.ts"
import * as NatReport from "../../protocol/nat/NatReport.ts"
import type * as PortMapping from "../../protocol/nat/PortMapping.ts"
import * as Stun from "../../protocol/nat/Stun.ts"
import * as Crypto from "../../services/host/Crypto.ts"
import * as ProbeSockets from "./ProbeSockets.ts"
import type * as UdpPort from "./UdpPort.ts"

/**
 * Checks how the network treats UDP, with one STUN server for each IP version. `addresses` are the
 * server's literal addresses; the first one of each IP version is used. `name` is the server's name
 * for people. `probe` asks the gateway meanwhile.
 */
export const run = (
  name: string,
  addresses: ReadonlyArray<SocketAddr>,
  probe: Effect.Effect<PortMapping.Report | null> = Effect.succeed(null)
): Effect.Effect<NatReport.NetReport, UdpPort.UdpOpenError> =>
  Effect.gen(function*() {
    const finding = Effect.forEach(
      Candidate.firstOfEach(addresses),
      (server) => discover(server).pipe(Effect.map(Option.some), Effect.catchTag("NoWay", () => Effect.succeedNone)),
      { concurrency: 2 }
    )
    const [found, portMapping] = yield* Effect.all([finding, probe], { concurrency: 2 })
    return NatReport.make(name, found.flatMap(Option.toArray), portMapping)
  })

/** Runs discovery against one address. Takes 2 to 4 seconds, depending on what stays unanswered. */
const discover = (server: SocketAddr) =>
  ProbeSockets.run({
    server,
    sockets: NatDiscovery.SOCKETS,
    make: (own) =>
      new NatDiscovery.NatDiscovery({ server, ...own, newTxId: () => Crypto.randomBytes(Stun.TX_ID_BYTES) })
  })
