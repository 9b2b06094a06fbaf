import { Effect, HashMap, Logger, LogLevel } from "effect"
import { assert, describe, it } from "vitest"
import { Refusals, type Refused } from "../../src/actors/mux/Refusals.ts"

const refused: Refused = {
  host: "web",
  port: 80,
  peer: "laptop",
  verdict: { code: "denied", reason: "web is 127.0.1.1" }
}

const setup = () => {
  const refusals = new Refusals()
  const lines: Array<string> = []
  const logger = Logger.make(({ annotations, logLevel, message }) => {
    const of = Object.fromEntries(HashMap.entries(annotations))
    lines.push(
      [logLevel.label, String(message), of["host"], of["verdict"], of["why"], of["alsoNotLogged"] ?? 0].join(" ")
    )
  })
  const tell = (...told: ReadonlyArray<readonly [what: Refused, at: number]>) =>
    Effect.runSync(
      Effect.forEach(told, ([what, at]) => Effect.suspend(() => refusals.onRefused(what, at))).pipe(
        Effect.provide(Logger.replace(Logger.defaultLogger, logger)),
        Logger.withMinimumLogLevel(LogLevel.Debug)
      )
    )
  return { refusals, lines, tell }
}

describe("Refusals", () => {
  it("logs the first of a kind, then once a minute", () => {
    const { lines, refusals, tell } = setup()
    tell([refused, 0], [refused, 1], [refused, 59_999], [refused, 60_000])
    assert.deepStrictEqual(lines, [
      "INFO flow refused web denied web is 127.0.1.1 0",
      "DEBUG flow refused web denied web is 127.0.1.1 0",
      "DEBUG flow refused web denied web is 127.0.1.1 0",
      "INFO flow refused web denied web is 127.0.1.1 2"
    ])
    assert.deepStrictEqual(refusals.recent(60_000).map(({ at, count, why }) => [at, count, why]), [
      [60_000, 4, "web is 127.0.1.1"]
    ])
  })

  it("lists the last ten minutes, newest first, bounded", () => {
    const { refusals, tell } = setup()
    tell(...Array.from({ length: 200 }, (_, at) => [{ ...refused, port: at + 1 }, at + 1] as const))
    assert.deepStrictEqual(
      refusals.recent(200).map(({ port }) => port),
      Array.from({ length: 64 }, (_, at) => 200 - at)
    )
    tell([refused, 500_000])
    assert.deepStrictEqual(refusals.recent(700_000).map(({ port }) => port), [80])
  })

  it("counts those of the last ten minutes", () => {
    const { refusals, tell } = setup()
    tell(...Array.from({ length: 35 }, (_, minute) => [refused, minute * 60_000] as const))
    assert.deepStrictEqual(refusals.recent(34 * 60_000).map(({ count }) => count), [10])
    assert.deepStrictEqual(refusals.recent(40 * 60_000).map(({ count }) => count), [4])
    assert.deepStrictEqual(refusals.recent(60 * 60_000), [])
  })
})
