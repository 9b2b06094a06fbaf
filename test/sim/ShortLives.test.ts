/**
 * Three lives of everything by the lifetimes of the soak test, so that one flow can stay open and in use over all of them: by the
 * released ones its packets would take too long to compute. Both nodes are relayed, so the flow depends on each document.
 */
import { Effect, Exit, Scope } from "effect"
import { afterAll, beforeAll, expect, it, vi } from "vitest"
import { LIFETIMES, SHORT } from "../../src/protocol/trust/Lifetimes.ts"
import * as Identities from "./nodes/Identities.ts"
import { play, TIMES } from "./nodes/LivesRun.ts"
import { VirtualTime } from "./nodes/VirtualTime.ts"

/** For what hangs: the test takes seconds, and minutes beside busy neighbours. */
const HANG_MS = 15 * 60_000

vi.hoisted(() => void Object.assign(globalThis, { SHORT_LIFETIMES: true })) // as `scripts/build.mjs --short-lifetimes`

const scope = Effect.runSync(Scope.make())
let identities: Identities.Identities

beforeAll(async () => {
  const undo = new VirtualTime().install()
  identities = await Effect.runPromise(Scope.extend(Identities.make, scope))
  undo()
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

it("one flow stays open through three lives of everything", async () => {
  expect(LIFETIMES).toBe(SHORT)
  const cpu = process.cpuUsage()
  const { counts, faults, hours, lives } = await play({
    client: "port-restricted",
    connector: "port-restricted",
    identities,
    seed: 1,
    relayed: true,
    oldFlow: true
  })
  const cpuMs = Math.round(process.cpuUsage(cpu).user / 1000)
  process.stdout.write(`${JSON.stringify({ sim: "lives", hours, cpuMs, lives, counts })}\n`)
  expect(faults).toEqual([])
  for (const [name, passed] of Object.entries(lives)) expect(passed, name).toBeGreaterThanOrEqual(TIMES)
  expect(counts["rules"]).toBeGreaterThanOrEqual(TIMES)
}, HANG_MS)
