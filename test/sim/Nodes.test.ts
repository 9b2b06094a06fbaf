/**
 * Random scenarios played by two whole nodes: their actors, data planes and relay are the real ones. `SALLYPORT_SIM_NODE_RUNS` and
 * `SALLYPORT_SIM_SEED` choose how many and which. A scenario that ever failed is kept.
 */
import { Effect, Exit, Scope } from "effect"
import * as fc from "fast-check"
import { readFileSync } from "node:fs"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import * as Identities from "./nodes/Identities.ts"
import { ANSWERED_MS, type Outcome, play } from "./nodes/NodeRun.ts"
import { VirtualTime } from "./nodes/VirtualTime.ts"
import { quantile } from "./world/Figures.ts"
import { type Kept, type Scenario, scenario } from "./world/Scenario.ts"

const RUNS = Number(process.env["SALLYPORT_SIM_NODE_RUNS"] ?? 500)
const SEED = Number(process.env["SALLYPORT_SIM_SEED"] ?? 1)
const MAX_EVENTS = 3
/** Of idle time: a second of two whole nodes takes some 20 ms. */
const LONGEST_MS = 8_000

const kept = JSON.parse(readFileSync(new URL("kept-nodes.json", import.meta.url), "utf8")) as ReadonlyArray<Kept>
const scope = Effect.runSync(Scope.make())
let identities: Identities.Identities

beforeAll(async () => {
  const undo = new VirtualTime().install() // its documents bear virtual dates
  identities = await Effect.runPromise(Scope.extend(Identities.make, scope))
  undo()
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const judge = ({ answeredMs, faults, path, settledMs }: Outcome) => {
  expect(faults).toEqual([])
  expect(answeredMs, "the flow goes on after everything is whole again").not.toBeNull()
  expect(answeredMs).toBeLessThanOrEqual(ANSWERED_MS)
  expect(settledMs, `the session goes by the path that it must (${path})`).not.toBeNull()
}

describe("a scenario that failed once", () => {
  it.each(kept)("$why", async ({ scenario: it }) => judge(await play(it, identities)))
})

it(
  `whatever befalls two nodes, no word of their flow is lost, and it goes on (${RUNS} scenarios, seed ${SEED})`,
  async () => {
    const outcomes: Array<Outcome> = []
    await fc.assert(
      fc.asyncProperty(scenario(MAX_EVENTS, LONGEST_MS), async (one: Scenario) => {
        const outcome = await play(one, identities)
        outcomes.push(outcome)
        judge(outcome)
      }),
      { numRuns: RUNS, seed: SEED, endOnFailure: process.env["CI"] !== undefined }
    )
    const figures = (list: ReadonlyArray<number | null>) => {
      const known = list.filter((it) => it !== null)
      return { p50: quantile(known, 0.5), p99: quantile(known, 0.99), max: quantile(known, 1) }
    }
    process.stdout.write(`${
      JSON.stringify({
        sim: "nodes",
        n: outcomes.length,
        seed: SEED,
        answeredMs: figures(outcomes.map((it) => it.answeredMs)),
        settledMs: figures(outcomes.map((it) => it.settledMs))
      })
    }\n`)
  },
  4_000 * Math.max(100, RUNS)
)
