import { assert, it } from "@effect/vitest"
import { Effect, HashMap, Logger } from "effect"
import * as Printable from "../../src/services/telemetry/Printable.ts"

it.effect("leaves nothing that a terminal would obey", () =>
  Effect.gen(function*() {
    const seen: Array<unknown> = []
    const logger = Logger.mapInputOptions(
      Logger.make(({ annotations, message }: Logger.Logger.Options<unknown>) => {
        seen.push(message, Object.fromEntries(HashMap.toEntries(annotations)))
      }),
      Printable.entry
    )
    const why = "gone\u001b[2J\u001b]0;title\u0007\r\nready\u202etxt\u2028"
    yield* Effect.logInfo("session down\n    at a stack\u001b[31m").pipe(
      Effect.annotateLogs({ why, flows: 3, name: "Zoë, 東京" }),
      Effect.provide(Logger.replace(Logger.defaultLogger, logger))
    )
    assert.deepStrictEqual(seen, [
      ["session down\n    at a stack·[31m"],
      { why: "gone·[2J·]0;title···ready·txt·", flows: 3, name: "Zoë, 東京" }
    ])
  }))
