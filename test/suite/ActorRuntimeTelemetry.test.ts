import { assert, describe, it } from "@effect/vitest"
import { Effect, Logger, LogLevel } from "effect"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { afterAll, beforeAll } from "vitest"
import * as Threads from "../../src/actors/runtime/thread/Threads.ts"
import * as Tracing from "../../src/services/telemetry/Tracing.ts"
import * as Bundle from "./runtime/Bundle.ts"
import { kinds, QUIET, startUp } from "./runtime/Harness.ts"
import { Front } from "./runtime/TestRpcs.ts"

let bundle: Bundle.Bundle
beforeAll(async () => {
  bundle = await Bundle.make()
})
afterAll(() => bundle.remove())

/** An OTLP collector that keeps the bodies it was sent, by path. */
const collector = Effect.acquireRelease(
  Effect.promise(async () => {
    const bodies: Array<string> = []
    const server = createServer((request, response) => {
      let body = ""
      request.on("data", (part) => (body += String(part)))
      request.on("end", () => {
        bodies.push(`${request.url} ${body}`)
        response.end("{}")
      })
    })
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    return { bodies, server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
  }),
  ({ server }) => Effect.sync(() => server.close())
)

describe("telemetry of threads", () => {
  it.scopedLive("exports each thread's spans under its name until the stop", () =>
    Effect.gen(function*() {
      const isolated = kinds.find(({ placement }) => placement === "isolated")
      assert.isDefined(isolated)
      const { bodies, url } = yield* collector
      const spawn = (entry: URL) => Threads.workers({ entry, telemetry: { ...QUIET, otlp: url } })
      const [trace] = yield* Effect.scoped(Effect.gen(function*() {
        const supervisor = yield* startUp({ ...isolated, spawn }, bundle.entry)
        const ask = supervisor.ref(Front).ask((client) => client.Trace())
        return yield* Effect.withSpan(ask, "test", { context: Tracing.BY_CHANCE })
      }))
      const traces = bodies.filter((body) => body.startsWith("/v1/traces"))
      for (const thread of ["front", "middle", "echo"]) {
        const own = traces.find((body) => body.includes(`"name":"${thread}.Trace"`))
        assert.include(own, `{"key":"thread.name","value":{"stringValue":"${thread}"}}`)
        assert.include(own, trace)
      }
    }).pipe(Effect.provide(Logger.minimumLogLevel(LogLevel.None))))
})
