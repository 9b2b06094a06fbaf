/**
 * Random scenarios played by two whole nodes: their actors, data planes and relay are the real ones. `SALLYPORT_SIM_SEED` chooses
 * which, and `FUZZ` multiplies how many. A scenario that ever failed is kept.
 */
import { Effect, Exit, Scope } from "effect"
import * as fc from "fast-check"
import { readFileSync } from "node:fs"
import { afterAll, beforeAll, describe, it } from "vitest"
import { runs } from "../support/Runs.ts"
import { judge, tell } from "./Judge.ts"
import * as Identities from "./nodes/Identities.ts"
import { ANSWERED_MS, play } from "./nodes/NodeRun.ts"
import { VirtualTime } from "./nodes/VirtualTime.ts"
import { type Kept, type Outcome, type Scenario, scenario } from "./world/Scenario.ts"

const RUNS = Number(process.env["SALLYPORT_SIM_NODE_RUNS"] ?? runs(60))
const SEED = Number(process.env["SALLYPORT_SIM_SEED"] ?? 1)
const MAX_EVENTS = 3
/** How soon a relayed flow goes on after its relay is back. */
const RESTARTED_MS = 2_000
/** Of idle time: with more of it the scenarios would take too long. */
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

describe("a scenario that failed once", () => {
  it.each(kept)("$why", async ({ scenario: it }) => judge(await play(it, identities), ANSWERED_MS))
})

describe("a relayed flow whose relay restarts", () => {
  const restart = (awayMs: number): Scenario => ({
    client: "symmetric",
    connector: "symmetric",
    clientMs: 10,
    connectorMs: 20,
    detourMs: 0,
    lifetimeMs: 60_000,
    signalingLagMs: 60_000,
    seed: SEED,
    events: [[1_000, { t: "relayRestart", ms: awayMs }]]
  })

  it.each([3_000, 25_000])("goes on within 2 s, before signaling (away %i ms)", async (awayMs) => {
    judge(await play(restart(awayMs), identities), RESTARTED_MS)
  })
})

it(
  `flows lose nothing and go on (${RUNS} scenarios, seed ${SEED})`,
  async () => {
    const outcomes: Array<Outcome> = []
    await fc.assert(
      fc.asyncProperty(scenario(MAX_EVENTS, LONGEST_MS), async (one: Scenario) => {
        const outcome = await play(one, identities)
        outcomes.push(outcome)
        judge(outcome, ANSWERED_MS)
      }),
      { numRuns: RUNS, seed: SEED, endOnFailure: process.env["CI"] !== undefined }
    )
    tell("nodes", SEED, outcomes)
  },
  4_000 * Math.max(100, RUNS)
)
