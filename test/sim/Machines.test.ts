/**
 * Random scenarios played by two whole path choices with port guessing: moves, new mappings, outages, restarts, crashes, losses,
 * sleep. `SALLYPORT_SIM_SEED` chooses which, and `FUZZ` multiplies how many. A scenario that ever failed is kept.
 */
import * as fc from "fast-check"
import { readFileSync } from "node:fs"
import { describe, it } from "vitest"
import { runs } from "../support/Runs.ts"
import { judge, tell } from "./Judge.ts"
import { ANSWERED_MS, play } from "./world/PairRun.ts"
import { type Kept, type Outcome, type Scenario, scenario } from "./world/Scenario.ts"

const RUNS = Number(process.env["SALLYPORT_SIM_RUNS"] ?? runs(2_000))
const SEED = Number(process.env["SALLYPORT_SIM_SEED"] ?? 1)
const MAX_EVENTS = 8

const kept = JSON.parse(readFileSync(new URL("kept-machines.json", import.meta.url), "utf8")) as ReadonlyArray<Kept>

describe("a scenario that failed once", () => {
  it.each(kept)("$why", ({ scenario: it }) => judge(play(it), ANSWERED_MS))
})

it(`flows survive and find the best path (${RUNS}, seed ${SEED})`, () => {
  const outcomes: Array<Outcome> = []
  fc.assert(
    fc.property(scenario(MAX_EVENTS), (one: Scenario) => {
      const outcome = play(one)
      outcomes.push(outcome)
      judge(outcome, ANSWERED_MS)
    }),
    { numRuns: RUNS, seed: SEED }
  )
  tell("machines", SEED, outcomes)
}, 1_000 * Math.max(120, RUNS / 20))
