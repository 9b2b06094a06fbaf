import { assert, describe, it } from "@effect/vitest"
import { Effect, Logger, LogLevel } from "effect"
import { afterAll, beforeAll } from "vitest"
import type { Family, Labels } from "../../src/services/telemetry/Metrics.ts"
import * as OpenMetrics from "../../src/services/telemetry/OpenMetrics.ts"
import { parse } from "../unit/support/OpenMetricsParser.ts"
import * as Bundle from "./runtime/Bundle.ts"
import { eventually, kinds, newChannel, start, startUp } from "./runtime/Harness.ts"
import { Echo } from "./runtime/TestRpcs.ts"

let bundle: Bundle.Bundle
beforeAll(async () => {
  bundle = await Bundle.make()
})
afterAll(() => bundle.remove())

const quiet = Logger.minimumLogLevel(LogLevel.None)
const isolated = kinds.find(({ placement }) => placement === "isolated")!

const valueOf = (families: ReadonlyArray<Family>, name: string, labels: Labels = {}): number => {
  const found = parse(OpenMetrics.render(families)).find((sample) =>
    sample.name === name && Object.entries(labels).every(([label, text]) => sample.labels[label] === text)
  )
  return found?.value ?? -1
}
const handled = (families: ReadonlyArray<Family>) => valueOf(families, "sallyport_actor_message_wait_seconds_count")
const missing = (families: ReadonlyArray<Family>, thread: string, cause: string) =>
  valueOf(families, "sallyport_scrape_missing_threads_total", { thread, cause })

describe.each(kinds)("metrics of actors, $name", (kind) => {
  it.scopedLive("survive an actor's death: counters do not fall", () =>
    Effect.gen(function*() {
      const supervisor = yield* startUp(kind, bundle.entry)
      const echo = supervisor.ref(Echo)
      yield* Effect.repeatN(echo.ask((client) => client.Bump()), 9)
      const before = yield* supervisor.metrics
      assert.strictEqual(handled(before), 10)
      assert.strictEqual(valueOf(before, "sallyport_actor_up", { actor: "echo" }), 1)
      yield* Effect.exit(echo.ask((client) => client.LoopDies()))
      yield* echo.ask((client) => client.Bump())
      const after = yield* supervisor.metrics
      assert.strictEqual(handled(after), 12)
      assert.strictEqual(valueOf(after, "sallyport_actor_restarts_total", { actor: "echo" }), 1)
    }).pipe(Effect.provide(quiet)))
})

describe("metrics of threads", () => {
  it.scopedLive("survive a thread's death without falling sums", () =>
    Effect.gen(function*() {
      const supervisor = yield* startUp(isolated, bundle.entry)
      const echo = supervisor.ref(Echo)
      yield* Effect.repeatN(echo.ask((client) => client.Bump()), 4)
      assert.strictEqual(handled(yield* supervisor.metrics), 5)
      yield* supervisor.kill("echo")
      const down = yield* supervisor.metrics
      assert.strictEqual(handled(down), 5, "what it said last stands in for it")
      assert.isAbove(Math.max(missing(down, "echo", "down"), missing(down, "echo", "died")), 0)
      yield* eventually(Effect.map(Effect.either(echo.ask((client) => client.Bump())), ({ _tag }) => _tag === "Right"))
      assert.strictEqual(handled(yield* supervisor.metrics), 6)
    }).pipe(Effect.provide(quiet)))

  it.scopedLive("do not wait for a thread that hangs", () =>
    Effect.gen(function*() {
      const supervisor = yield* start(isolated, bundle.entry, newChannel(), { health: "1 minute", stop: "200 millis" })
      yield* supervisor.awaitUp
      yield* Effect.forkScoped(supervisor.ref(Echo).ask((client) => client.BlockThread()))
      yield* eventually(
        Effect.map(
          Effect.either(supervisor.ref(Echo).ask((client) => client.Echo({ n: 1 }), { deadline: "100 millis" })),
          ({ _tag }) => _tag === "Left"
        )
      )
      const families = yield* supervisor.metrics
      assert.strictEqual(missing(families, "echo", "late"), 1)
      assert.strictEqual(valueOf(families, "sallyport_actor_up", { actor: "middle" }), 1)
    }).pipe(Effect.provide(quiet)))

  it.scopedLive("tell how each thread's loop does, main's among them", () =>
    Effect.gen(function*() {
      const supervisor = yield* startUp(isolated, bundle.entry)
      const loops = ["main", "echo", "middle", "front"]
      yield* eventually(
        Effect.map(supervisor.metrics, (families) =>
          loops.every((thread) =>
            valueOf(families, "sallyport_thread_loop_delay_seconds_count", { thread }) > 0
          ))
      )
    }).pipe(Effect.provide(quiet)))
})
