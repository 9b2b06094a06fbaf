/** Runs the search for the lifetime of idle mappings (`MappingLifetime`) against STUN servers. */
import { Context, Effect, Layer, Option } from "effect"
import * as Candidate from "../../protocol/Candidate.ts"
import * as MappingLifetime from "../../protocol/MappingLifetime.ts"
import type { SocketAddr } from "../../protocol/SocketAddr.ts"
import * as Stun from "../../protocol/Stun.ts"
import * as Crypto from "../../services/Crypto.ts"
import * as ProbeSockets from "./ProbeSockets.ts"

export interface Service {
  /**
   * Takes up to 64 seconds, most of them silent, and asks the first of `servers` (literal) of each IP version: the way that forgets
   * first counts. Null: there is no way to any.
   */
  readonly find: (servers: ReadonlyArray<SocketAddr>) => Effect.Effect<MappingLifetime.Lifetime | null>
}

/** Asks nobody and knows nothing unless a layer provides it: it has sockets of its own, which simulated hosts do not. */
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

/** For tests. */
export const layerTest = (find: Service["find"]): Layer.Layer<LifetimeProbe> => Layer.succeed(LifetimeProbe, { find })
