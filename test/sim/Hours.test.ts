/** Hours of two whole nodes and their relay, by the released lifetimes: each passes three times, and nothing is lost. */
import { Effect, Exit, Scope } from "effect"
import { afterAll, beforeAll, expect, it } from "vitest"
import { LIFETIMES, NORMAL } from "../../src/protocol/trust/Lifetimes.ts"
import * as Identities from "./nodes/Identities.ts"
import { play, TIMES } from "./nodes/LivesRun.ts"
import { VirtualTime } from "./nodes/VirtualTime.ts"

/** For what hangs: the test takes seconds, and minutes beside busy neighbours. */
const HANG_MS = 15 * 60_000
const scope = Effect.runSync(Scope.make())
let identities: Identities.Identities

beforeAll(async () => {
  const undo = new VirtualTime().install()
  identities = await Effect.runPromise(Scope.extend(Identities.make, scope))
  undo()
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

it("no flow and no leg is lost in three lives", async () => {
  expect(LIFETIMES).toBe(NORMAL)
  const cpu = process.cpuUsage()
  const { counts, faults, hours, lives } = await play({
    client: "port-restricted",
    connector: "port-restricted",
    identities,
    seed: 1,
    relayed: false,
    oldFlow: false
  })
  const cpuMs = Math.round(process.cpuUsage(cpu).user / 1000)
  process.stdout.write(`${JSON.stringify({ sim: "hours", hours, cpuMs, lives, counts })}\n`)
  expect(faults).toEqual([])
  for (const [name, passed] of Object.entries(lives)) expect(passed, name).toBeGreaterThanOrEqual(TIMES)
  expect(counts["rules"]).toBeGreaterThanOrEqual(TIMES)
}, HANG_MS)
