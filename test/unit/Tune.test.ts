import { assert, describe, it } from "@effect/vitest"
import { Effect, FiberRef, Layer, Logger, TestClock } from "effect"
import * as Telemetry from "../../src/services/telemetry/Telemetry.ts"

describe("telemetry that is tuned while it runs", () => {
  it.effect("changes the level of fibers that run already", () =>
    Effect.gen(function*() {
      const lines: Array<string> = []
      const logger = Logger.make(({ message }) => void lines.push(String(message)))
      const settings = { ...Telemetry.DEFAULT, level: "Warning" as const }
      const quiet = yield* Effect.gen(function*() {
        const other = yield* Effect.fork(Effect.delay(Effect.logDebug("from a fiber"), "1 second"))
        yield* Effect.logInfo("before")
        yield* Telemetry.tune({ level: "Debug", sample: 1 })
        yield* Effect.logDebug("after")
        yield* Effect.exit(TestClock.adjust("1 second"))
        yield* other.await
        yield* Telemetry.tune({ level: "None", sample: 1 })
        yield* Effect.logFatal("silenced")
        return yield* FiberRef.get(FiberRef.currentMinimumLogLevel)
      }).pipe(
        Effect.provide(Layer.merge(Telemetry.layer(settings, "main"), Logger.add(logger)))
      )
      assert.deepStrictEqual(lines, ["after", "from a fiber"])
      assert.strictEqual(quiet.label, "OFF")
    }))

  it.effect("belongs to its own program only", () =>
    Effect.gen(function*() {
      yield* Effect.provide(
        Telemetry.tune({ level: "Trace", sample: 1 }),
        Telemetry.layer({ ...Telemetry.DEFAULT, level: "Error" }, "main")
      )
      const level = yield* Effect.provide(
        FiberRef.get(FiberRef.currentMinimumLogLevel),
        Telemetry.layer({ ...Telemetry.DEFAULT, level: "Error" }, "main")
      )
      assert.strictEqual(level.label, "ERROR")
    }))
})
