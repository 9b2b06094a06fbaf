/** Periodic jobs of the commands: in virtual time each works in its fourth period as in its first, on the state of that moment. */
import { assert, describe, it } from "@effect/vitest"
import { type Console, Effect, Fiber, TestClock } from "effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll } from "vitest"
import * as Drain from "../../src/cli/commands/Drain.ts"
import * as Ping from "../../src/cli/commands/Ping.ts"
import * as Trace from "../../src/cli/commands/Trace.ts"
import { AdminError } from "../../src/services/admin/AdminError.ts"
import * as AdminServer from "../../src/services/admin/AdminServer.ts"
import * as Config from "../../src/services/config/Config.ts"
import { someTurns, turnsUntil } from "./support/Turns.ts"

const PERIODS = 4

const dir = mkdtempSync(join(tmpdir(), "sallyport-cli-jobs-"))
afterAll(() => rmSync(dir, { recursive: true }))
const file = join(dir, "connector.yaml")
writeFileSync(file, "role: connector\nname: office\nstateDir: d\n")

/** Runs a command against a process that gives these answers. `next` passes the second until it has asked again. */
const run = Effect.fnUntraced(
  function*<A, E>(command: Effect.Effect<A, E>, answer: () => Effect.Effect<object, AdminError>) {
    const seen = { asked: 0, lines: new Array<string>() }
    const asked = () => Effect.suspend(() => (seen.asked++, answer()))
    const { admin } = yield* Config.load(file)
    const routes = { "GET /v1/traces": asked, "GET /v1/drain": asked, "POST /v1/drain": asked, "POST /v1/ping": asked }
    yield* AdminServer.make({ listen: admin, routes })
    const console: Console.Console = {
      ...yield* Effect.console,
      log: (...values) => Effect.sync(() => void seen.lines.push(values.join(" ")))
    }
    const fiber = yield* Effect.fork(Effect.withConsole(command, console))
    yield* turnsUntil(() => seen.asked === 1)
    yield* someTurns
    const next = Effect.gen(function*() {
      const { asked } = seen
      yield* TestClock.adjust("999 millis")
      yield* someTurns
      assert.strictEqual(seen.asked, asked, "a second must pass")
      yield* TestClock.adjust("1 millis")
      yield* turnsUntil(() => seen.asked > asked || fiber.unsafePoll() !== null)
      yield* someTurns
      assert.strictEqual(seen.asked, asked + 1)
    })
    return { seen, fiber, next }
  }
)

const unavailable = new AdminError({ code: "unavailable", message: "it is busy" })

describe("every second", () => {
  it.scoped("trace shows the flows that have come since", () =>
    Effect.gen(function*() {
      const traceOf = (n: number) => ({ traceId: String(n).repeat(32), startMs: n, durationMs: 1, spans: [] })
      let count = 1
      const answer = () =>
        Effect.sync(() => ({ traces: Array.from({ length: count }, (_, n) => traceOf(n)).toReversed(), dropped: 0 }))
      const command = Trace.trace({ config: file, follow: true, id: null, json: true, last: 20 })
      const { next, seen } = yield* run(command, answer)
      for (let period = 1; period <= PERIODS; period++) {
        count++
        yield* next
        assert.strictEqual(seen.lines.length, period - 1, "it may go on")
        yield* next
        assert.deepStrictEqual(seen.lines.slice(period - 1), [JSON.stringify(traceOf(period))])
      }
    }))

  it.scoped("ping measures until the path is direct", () =>
    Effect.gen(function*() {
      let isDirect = false
      let asked = 0
      const answer = () =>
        Effect.suspend(() =>
          ++asked === 2 ? unavailable : Effect.succeed({
            peer: "laptop",
            rttMs: asked,
            path: isDirect ? "direct" : "relay-udp",
            relay: null,
            reason: "relay_first"
          })
        )
      const command = Ping.ping({ config: file, count: 100, json: false, peer: "laptop" })
      const { fiber, next, seen } = yield* run(command, answer)
      for (let period = 1; period <= PERIODS; period++) {
        assert.strictEqual(seen.lines.length, period)
        isDirect = period === PERIODS
        yield* next
      }
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(
        seen.lines.map((line) => /[\d.]+ ms by [\w-]+/.exec(line)?.[0] ?? line),
        ["1.0 ms by relay-udp", "it is busy", "3.0 ms by relay-udp", "4.0 ms by relay-udp", "5.0 ms by direct"]
      )
    }))

  it.scoped("drain counts the flows that are still open", () =>
    Effect.gen(function*() {
      let flows = PERIODS
      let isBusy = false
      const answer = () =>
        Effect.suspend(() => isBusy ? unavailable : Effect.succeed({ draining: true, flows, sessions: 1 }))
      const command = Drain.drain({ config: file, cancel: false, json: false, noWait: false })
      const { fiber, next, seen } = yield* run(command, answer)
      for (let period = 1; period <= PERIODS; period++) {
        yield* next
        isBusy = true
        for (let look = 0; look < 3; look++) yield* next
        isBusy = false
        assert.strictEqual(seen.lines.length, 1 + period)
        flows--
        yield* next
      }
      yield* Fiber.join(fiber)
      const texts = ["4 flows are open", "3 flows are open", "2 flows are open", "1 flow is open", "no flow is open"]
      assert.deepStrictEqual(seen.lines.slice(1), texts)
    }))
})
