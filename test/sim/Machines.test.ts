/**
 * Random scenarios played by two whole path choices with port guessing: moves, new mappings, outages, restarts, crashes, losses,
 * sleep. `SALLYPORT_SIM_RUNS` and `SALLYPORT_SIM_SEED` choose how many and which. A scenario that ever failed is kept.
 */
import * as fc from "fast-check"
import { readFileSync } from "node:fs"
import { describe, expect, it } from "vitest"
import { quantile } from "./world/Figures.ts"
import { ANSWERED_MS, type Outcome, play } from "./world/PairRun.ts"
import { type Kept, type Scenario, scenario } from "./world/Scenario.ts"

const RUNS = Number(process.env["SALLYPORT_SIM_RUNS"] ?? 10_000)
const SEED = Number(process.env["SALLYPORT_SIM_SEED"] ?? 1)
const MAX_EVENTS = 8

const kept = JSON.parse(readFileSync(new URL("kept-machines.json", import.meta.url), "utf8")) as ReadonlyArray<Kept>

const judge = ({ answeredMs, faults, reason, settledMs }: Outcome) => {
  expect(faults).toEqual([])
  expect(answeredMs, "the flow goes on after everything is whole again").not.toBeNull()
  expect(answeredMs).toBeLessThanOrEqual(ANSWERED_MS)
  expect(settledMs, `the session goes by the path that it must (${reason})`).not.toBeNull()
}

describe("a scenario that failed once", () => {
  it.each(kept)("$why", ({ scenario: it }) => judge(play(it)))
})

it(`whatever befalls a session, its flow goes on and it finds the best path (${RUNS} scenarios, seed ${SEED})`, () => {
  const outcomes: Array<Outcome> = []
  fc.assert(
    fc.property(scenario(MAX_EVENTS), (one: Scenario) => {
      const outcome = play(one)
      outcomes.push(outcome)
      judge(outcome)
    }),
    { numRuns: RUNS, seed: SEED }
  )
  const figures = (list: ReadonlyArray<number | null>) => {
    const sorted = list.filter((it) => it !== null)
    return { p50: quantile(sorted, 0.5), p99: quantile(sorted, 0.99), max: quantile(sorted, 1) }
  }
  process.stdout.write(`${
    JSON.stringify({
      sim: "machines",
      n: outcomes.length,
      seed: SEED,
      answeredMs: figures(outcomes.map((it) => it.answeredMs)),
      settledMs: figures(outcomes.map((it) => it.settledMs))
    })
  }\n`)
}, 1_000 * Math.max(120, RUNS / 20))
