/**
 * Implementation of the `Backend` service. Each operation imports its part of the program when it
 * is called.
 */
import { Context, Effect, Layer, Option } from "effect"
import type { RelayConfig } from "../services/config/Config.ts"
import { Backend } from "./Backend.ts"
import { type CliError, failure, fromError, usage } from "./CliError.ts"
import * as StopLimit from "./StopLimit.ts"

const orError = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, CliError, R> =>
  Effect.mapError(effect, fromError)

/**
 * Reads the relay's keys. This happens before the directory is opened, because opening the
 * directory of a relay that does not exist would create half a relay.
 */
const keysOf = (relay: RelayConfig) =>
  Effect.flatMap(
    Effect.promise(() => import("../services/directory/RelayKeys.ts")),
    ({ read }) =>
      Effect.mapError(read(relay.stateDir), (error) =>
        error.reason === "missing"
          ? failure(
            `there is no relay in ${relay.stateDir}: ${error.path} is missing; ` +
              "make one with sallyport relay init, or start the relay once with sallyport run --new-identity"
          )
          : fromError(error))
  )

/** Opens the relay's directory. A running relay may have it open at the same time. */
const directoryOf = (relay: RelayConfig) =>
  Effect.gen(function*() {
    yield* keysOf(relay)
    const { Directory, layer } = yield* Effect.promise(() => import("../services/directory/Directory.ts"))
    return Context.get(yield* orError(Layer.build(layer({ stateDir: relay.stateDir }))), Directory)
  })

export const layer: Layer.Layer<Backend> = Layer.succeed(Backend, {
  run: (config, options) =>
    Effect.flatMap(
      Effect.promise(() => import("../roles/Run.ts")),
      ({ run }) =>
        Effect.mapError(
          run(config, { ...options, onStopping: (seconds) => Effect.sync(() => StopLimit.restart(seconds)) }),
          ({ again, message }) => again ? failure(message) : usage(message)
        )
    ),
  demo: Effect.flatMap(Effect.promise(() => import("../roles/Demo.ts")), ({ demo }) => orError(demo)),
  makeRelayKeys: (stateDir) =>
    Effect.flatMap(
      Effect.promise(() => import("../services/directory/RelayKeys.ts")),
      ({ init }) => Effect.asVoid(orError(init(stateDir)))
    ),
  createToken: (relay, wanted) =>
    Effect.scoped(Effect.gen(function*() {
      const { host, https } = relay.advertise
      if (https === 0) {
        return yield* failure("the relay's port is chosen at each start, so no token can name it; set advertise.https")
      }
      const { tokenText, trustOf } = yield* Effect.promise(() => import("../services/directory/RelayKeys.ts"))
      const keys = yield* keysOf(relay)
      const token = yield* orError((yield* directoryOf(relay)).createToken(wanted))
      return tokenText({ keys, host, httpsPort: https, trust: trustOf(relay, keys), token })
    })),
  netcheck: (server) =>
    Effect.flatMap(Effect.promise(() => import("../roles/Netcheck.ts")), ({ run }) => orError(run(server))),
  listNodes: (relay) =>
    Effect.scoped(Effect.gen(function*() {
      const nodes = yield* orError((yield* directoryOf(relay)).listNodes)
      return nodes.map(({ createdAt, key, network, role, shown }) => ({
        name: shown,
        role,
        network,
        nodeKey: key,
        enrolledAt: new Date(createdAt * 1000).toISOString().replace(".000Z", "Z")
      }))
    })),
  removeNode: (relay, name) =>
    Effect.scoped(Effect.gen(function*() {
      return Option.isSome(yield* orError((yield* directoryOf(relay)).removeNode(name)))
    }))
})
