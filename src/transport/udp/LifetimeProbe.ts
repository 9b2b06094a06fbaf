/**
 * Runs the search for the lifetime of idle NAT mappings (`MappingLifetime`) against STUN servers.
 */
import { Context, Effect, Layer, Option } from "effect"
import type { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import * as Candidate from "../../protocol/candidate/Candidate.ts"
import * as MappingLifetime from "../../protocol/nat/MappingLifetime.ts"
import * as Stun from "../../protocol/nat/Stun.ts"
import * as Crypto from "../../services/host/Crypto.ts"
import * as ProbeSockets from "./ProbeSockets.ts"

/** Functions of {@link LifetimeProbe}. */
export interface Service {
  /**
   * Asks the first of `servers` (literal addresses) of each IP version and returns the shortest
   * lifetime found. Takes up to 64 seconds, most of them silent. `null` if no server could be
   * asked.
   */
  readonly find: (servers: ReadonlyArray<SocketAddr>) => Effect.Effect<MappingLifetime.Lifetime | null>
}

/**
 * Service that finds how long idle NAT mappings last. Its default asks no server and returns
 * `null`, because a real search opens sockets, which simulated hosts do not have.
 */
export class LifetimeProbe extends Context.Reference<LifetimeProbe>()("sallyport/transport/LifetimeProbe", {
  defaultValue: (): Service => ({ find: () => Effect.succeed(null) })
}) {}

const findOne = (server: SocketAddr) =>
  ProbeSockets.run({
    server,
    sockets: MappingLifetime.SOCKETS,
    make: ({ now }) =>
      new MappingLifetime.MappingLifetime({ server, now, newTxId: () => Crypto.randomBytes(Stun.TX_ID_BYTES) })
  }).pipe(
    Effect.map(Option.some),
    Effect.catchAll(({ message }) =>
      Effect.as(Effect.logDebug("how long mappings last is not asked", message), Option.none())
    )
  )

export const layer: Layer.Layer<LifetimeProbe> = Layer.succeed(LifetimeProbe, {
  find: (servers) =>
    Effect.forEach(Candidate.firstOfEach(servers), findOne, { concurrency: 2 }).pipe(
      Effect.map((found) => MappingLifetime.shortest(found.flatMap(Option.toArray)))
    )
})

/** Layer for tests, which returns a fixed result. */
export const layerTest = (find: Service["find"]): Layer.Layer<LifetimeProbe> => Layer.succeed(LifetimeProbe, { find })
