import { Effect, Logger } from "effect"
import { assert, describe, it } from "vitest"
import { ForeignPrograms } from "../../src/actors/mux/ForeignPrograms.ts"

describe("programs that speak no SOCKS", () => {
  it("are counted each time, and logged every ten minutes", () => {
    const foreign = new ForeignPrograms()
    const lines: Array<string> = []
    const logger = Logger.make(({ message }) => void lines.push(String(message)))
    const met = [["http", 0], ["http", 1], ["tls", 2], ["http", 599_999], ["http", 600_000]] as const
    Effect.runSync(
      Effect.forEach(met, ([reason, at]) => Effect.suspend(() => foreign.onForeign(reason, "127.0.0.1:1080", at))).pipe(
        Effect.provide(Logger.replace(Logger.defaultLogger, logger))
      )
    )
    assert.deepStrictEqual(lines.map((line) => /HTTP|TLS/.exec(line)?.[0]), ["HTTP", "TLS", "HTTP"])
    const [family] = foreign.read()
    assert.deepStrictEqual(
      family?._tag === "Histogram" ? [] : family?.points.map(({ labels, value }) => [labels["reason"], value]),
      [["http", 4], ["tls", 1]]
    )
  })
})
