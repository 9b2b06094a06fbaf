/** Measures the actor runtime; bundled and run by `actor-runtime.mjs`. Prints one line of JSON for each figure. */
import { Effect, Logger, LogLevel } from "effect"
import { pathToFileURL } from "node:url"
import * as Supervisor from "../src/actors/runtime/supervisor/Supervisor.ts"
import * as Threads from "../src/actors/runtime/thread/Threads.ts"
import { kinds, QUIET, startUp } from "../test/suite/runtime/Harness.ts"
import { Echo, Middle } from "../test/suite/runtime/TestRpcs.ts"

const [what, file = ""] = process.argv.slice(2)
const entry = pathToFileURL(file)

const print = (figure: Record<string, unknown>) =>
  Effect.sync(() => void process.stdout.write(`${JSON.stringify(figure)}\n`))
const median = (values: ReadonlyArray<number>) => [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN
const round = (value: number) => Math.round(value * 10) / 10

/** `middle` asks `echo`, each placed as `kind` says; main only starts it. */
const calls = Effect.forEach(kinds, (kind) =>
  Effect.scoped(Effect.gen(function*() {
    const middle = (yield* startUp(kind, entry)).ref(Middle)
    const ping = (n: number, atOnce: number) =>
      middle.ask((client) => client.PingEcho({ n, atOnce }), { deadline: "2 minutes" })
    yield* ping(2000, 16) // warm
    for (const [n, atOnce] of [[3000, 1], [15_000, 64]] as const) {
      const cpu = process.cpuUsage()
      const runs = yield* Effect.replicateEffect(ping(n, atOnce), 3)
      const { system, user } = process.cpuUsage(cpu)
      const cpuMicrosPerCall = Math.round((user + system) / n / 3) // both ends; hardly depends on what else the machine does
      const perSecond = runs.map((ms) => Math.round(n / ms * 1000))
      yield* print({
        figure: "calls",
        placement: kind.name,
        atOnce,
        perSecondMedian: median(perSecond),
        perSecond,
        cpuMicrosPerCall
      })
    }
  })))

/** One thread with one actor; until it is up. */
const boot = Effect.scoped(Effect.gen(function*() {
  const rssBefore = process.memoryUsage.rss()
  const from = performance.now()
  const supervisor = yield* Supervisor.make({
    actors: [{ address: Echo, uses: [], config: { channel: "bench" } }],
    placement: "isolated",
    spawn: Threads.workers({ entry, telemetry: QUIET })
  })
  yield* supervisor.awaitUp
  const bootMs = round(performance.now() - from)
  yield* Effect.sleep("500 millis")
  yield* print({ figure: "boot", bootMs, rssMb: round((process.memoryUsage.rss() - rssBefore) / 1e6) })
}))

await Effect.runPromise((what === "calls" ? Effect.asVoid(calls) : boot).pipe(
  Effect.provide(Logger.minimumLogLevel(LogLevel.None))
))
