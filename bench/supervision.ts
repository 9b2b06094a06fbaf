/** Measures what a removal and a dead data thread cost; bundled and run by `supervision.mjs`. */
import { Duration, Effect } from "effect"
import type { Socket } from "node:net"
import { loadavg } from "node:os"
import { Directory, layer } from "../src/services/directory/Directory.ts"
import * as World from "../test/e2e/support/World.ts"

const [CLIENTS = 20, CONNECTORS = 5] = process.argv.slice(2).map(Number)
/** Beyond this a trial counts as `null`: never. */
const LIMIT = Duration.seconds(10)

const echoed = (socket: Socket) =>
  Effect.async<void, Error>((resume) => {
    socket.once("data", () => resume(Effect.void)).once("close", () => resume(Effect.fail(new Error("cut"))))
    socket.on("error", () => undefined)
    socket.write("x")
  })

const msOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.timed(Effect.timeout(effect, LIMIT)).pipe(
    Effect.map(([took]) => Duration.toMillis(took)),
    Effect.catchAll(() => Effect.succeed(Infinity))
  )

const makeWorld = Effect.gen(function*() {
  const port = yield* World.serve((socket) => void socket.pipe(socket))
  const world = yield* World.make({
    resources: [{ name: "echo", address: "127.0.0.1", tcp: [port], allowLoopback: true }]
  })
  /** One whole flow: a byte goes and comes back. A try that hangs is left alone for another. */
  const once = Effect.scoped(Effect.flatMap(world.dialAnew("echo", port), echoed)).pipe(
    Effect.disconnect,
    Effect.timeout("500 millis")
  )
  const works = Effect.retry(once, { schedule: World.spaced })
  yield* works
  yield* world.untilPath("direct")
  return { world, port, works }
})

const clientTrial = Effect.scoped(Effect.gen(function*() {
  const { port, works, world } = yield* makeWorld
  yield* world.client.supervisor.kill("data")
  const killed = yield* msOf(works)
  const socket = yield* world.dialAnew("echo", port)
  yield* echoed(socket)
  const cut = Effect.async<void>((resume) => void socket.once("close", () => resume(Effect.void)))
  const directory = yield* Effect.provide(Directory, layer({ stateDir: world.relayConfig.stateDir }))
  const removed = yield* msOf(Effect.zipRight(directory.removeNode("laptop"), cut))
  return { removed, killed }
}))

const connectorTrial = Effect.scoped(Effect.gen(function*() {
  const { works, world } = yield* makeWorld
  yield* world.connector.supervisor.kill("data")
  return yield* msOf(works)
}))

const summary = (values: ReadonlyArray<number>) => {
  const sorted = values.map(Math.round).sort((left, right) => left - right)
  const at = (share: number) => sorted[Math.ceil(share * sorted.length) - 1]
  return { n: sorted.length, p50: at(0.5), p99: at(0.99), all: sorted }
}

const main = Effect.gen(function*() {
  const trials = yield* Effect.replicateEffect(clientTrial, CLIENTS)
  const connectors = yield* Effect.replicateEffect(connectorTrial, CONNECTORS)
  const figure = {
    unit: "ms",
    load: loadavg(),
    removedToCut: summary(trials.map(({ removed }) => removed)),
    clientDataThreadKilledToFlow: summary(trials.map(({ killed }) => killed)),
    connectorDataThreadKilledToFlow: summary(connectors)
  }
  process.stdout.write(`${JSON.stringify(figure)}\n`)
})

await Effect.runPromise(main)
process.exit() // the threads of the last world may still be on their way out
