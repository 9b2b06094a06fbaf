/** What must be so after every scenario, and the figures of many. */
import { expect } from "vitest"
import { quantile } from "./world/Figures.ts"
import type { Outcome } from "./world/Scenario.ts"

/** `withinMs`: after everything is whole again. */
export const judge = ({ answeredMs, faults, path, settledMs }: Outcome, withinMs: number): void => {
  expect(faults).toEqual([])
  expect(answeredMs, "the flow goes on after everything is whole again").not.toBeNull()
  expect(answeredMs).toBeLessThanOrEqual(withinMs)
  expect(settledMs, `the session goes by the path that it must (${path})`).not.toBeNull()
}

/** One line of JSON. */
export const tell = (sim: string, seed: number, outcomes: ReadonlyArray<Outcome>): void => {
  const figures = (of: (outcome: Outcome) => number | null) => {
    const known = outcomes.map(of).filter((it) => it !== null)
    return { p50: quantile(known, 0.5), p99: quantile(known, 0.99), max: quantile(known, 1) }
  }
  const [answeredMs, settledMs] = [figures((it) => it.answeredMs), figures((it) => it.settledMs)]
  process.stdout.write(`${JSON.stringify({ sim, n: outcomes.length, seed, answeredMs, settledMs })}\n`)
}
