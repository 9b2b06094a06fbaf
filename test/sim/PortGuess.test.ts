import { describe, expect, it } from "vitest"
import { MAX_PROBES, SOCKETS } from "../../src/protocol/path/PortGuess.ts"
import { quantile } from "./world/Figures.ts"
import { PairWorld } from "./world/PairWorld.ts"
import type { Allocation, Nat } from "./world/Translator.ts"

const SEEDS = 200
/** One attempt and what comes before it; a second one would begin a minute later. */
const WITHIN_MS = 20_000

const symmetric = (allocation: Allocation): Nat => ({
  mapping: "address-and-port-dependent",
  filtering: "address-and-port-dependent",
  allocation,
  hairpin: false,
  pool: 1
})
const restricted: Nat = { ...symmetric({ kind: "preserving" }), mapping: "endpoint-independent" }
const hard = symmetric({ kind: "random" })

const STEP_MS = 10

interface Result {
  /** When the client's session went direct; null: it did not. */
  readonly ms: number | null
  readonly reason: string
  /** Of both sides. */
  readonly guesses: number
  readonly openers: number
  /** Sockets that are still open for guessing, of both sides. */
  readonly open: number
  /** Sends to guessed ports, or from guess sockets, that left in the busiest second of one node. */
  readonly busiest: number
}
interface Setup {
  readonly client: Nat
  readonly connector: Nat
  readonly seed: number
  readonly loss?: number
  /** When the only flow ends; left out, it lasts. */
  readonly flowMs?: number
}
const run = ({ client, connector, flowMs, loss = 0, seed }: Setup, untilMs: number): Result => {
  const world = new PairWorld({ client: { nat: client, delayMs: 5 }, connector: { nat: connector, delayMs: 5 }, seed })
  world.loss = loss
  if (flowMs !== undefined) world.time.at(flowMs, () => world.idle(10 * untilMs))
  let ms: number | null = null
  while (world.time.now < untilMs) {
    world.time.runUntil(world.time.now + STEP_MS)
    if (world.client.path.kind === "direct") ms ??= world.time.now
  }
  const sum = (of: (node: PairWorld["client"]) => number) => world.nodes.reduce((total, node) => total + of(node), 0)
  const busiest = world.nodes.map(({ guessedAt }) =>
    guessedAt.map((at, i) => guessedAt.slice(i).filter((other) => other < at + 1_000).length)
  )
  return {
    ms,
    reason: world.client.machine.reason,
    guesses: sum((node) => node.guesses),
    openers: sum((node) => node.openers),
    open: sum((node) => node.sockets.size - new Set(node.won.values()).size),
    busiest: Math.max(0, ...busiest.flat())
  }
}

/** A request and its answer. */
const SHORT_MS = 300
const SHORT_SEEDS = 40

const many = (client: Nat, connector: Nat, loss = 0) => {
  // Of the rarer misses there must be enough to tell 0.4 % from 1 %.
  const all = Array.from(
    { length: loss > 0 ? 3 * SEEDS : SEEDS },
    (_, seed) => run({ client, connector, seed, loss }, WITHIN_MS)
  )
  const ms = all.flatMap((result) => result.ms ?? [])
  const guesses = all.map((result) => result.guesses)
  return {
    all,
    figures: {
      n: all.length,
      success: ms.length / all.length,
      ms: { p50: quantile(ms, 0.5), p99: quantile(ms, 0.99) },
      guesses: { p50: quantile(guesses, 0.5), p99: quantile(guesses, 0.99) }
    }
  }
}
const holds = (all: ReadonlyArray<Result>) => {
  for (const { busiest, guesses, open, openers } of all) {
    expect(guesses).toBeLessThanOrEqual(MAX_PROBES)
    expect(openers).toBeLessThanOrEqual(SOCKETS)
    expect(busiest).toBeLessThanOrEqual(200)
    expect(open).toBe(0)
  }
}

describe("a NAT with random ports, another that filters by port", () => {
  it.each([["client", hard, restricted, 0], ["connector", restricted, hard, 0], [
    "client, 2 % loss",
    hard,
    restricted,
    0.02
  ]])(
    "become direct: symmetric is the %s",
    (what, client, connector, loss) => {
      const { all, figures } = many(client, connector, loss)
      process.stdout.write(`${JSON.stringify({ sim: "guess", symmetric: what, ...figures })}\n`)
      holds(all)
      expect(figures.success).toBeGreaterThanOrEqual(0.99)
      expect(figures.ms.p50).toBeLessThanOrEqual(4_000)
      expect(figures.ms.p99).toBeLessThanOrEqual(15_000)
    }
  )

  it.each([["client", hard, restricted], ["connector", restricted, hard]])(
    "become direct after a short flow: symmetric is the %s",
    (_, client, connector) => {
      const all = Array.from(
        { length: SHORT_SEEDS },
        (_, seed) => run({ client, connector, seed, flowMs: SHORT_MS }, WITHIN_MS)
      )
      holds(all)
      expect(all.map(({ ms }) => ms).filter((ms) => ms === null)).toEqual([])
    }
  )

  it.each([["one after the other", 1], ["every second", 2], ["downwards", -1]])(
    "need few guesses where the ports are given %s",
    (_, delta) => {
      const { all, figures } = many(symmetric({ kind: "sequential", delta }), restricted)
      holds(all)
      expect(figures.success).toBe(1)
      expect(figures.guesses.p99).toBeLessThanOrEqual(40)
    }
  )
})

it("nobody guesses if probes suffice or both sides' ports vary", () => {
  for (const filtering of ["endpoint-independent", "address-dependent"] as const) {
    const result = run({ client: hard, connector: { ...restricted, filtering }, seed: 1 }, WITHIN_MS)
    expect(result.ms).toBeLessThan(1_000)
    expect([result.guesses, result.openers]).toEqual([0, 0])
  }
  const both = run({ client: hard, connector: hard, seed: 1 }, WITHIN_MS)
  expect(both).toMatchObject({ ms: null, reason: "symmetric_both", guesses: 0, openers: 0 })
})
