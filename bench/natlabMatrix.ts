/** The matrix of network pairs; bundled and run by `natlab-matrix.mjs`. */
import { NodeRuntime } from "@effect/platform-node"
import { Effect } from "effect"
import { cpus, loadavg } from "node:os"
import { parseArgs } from "node:util"
import * as Lab from "../test/natlab/Lab.ts"
import * as NatPairs from "../test/natlab/NatPairs.ts"
import * as PairLab from "../test/natlab/PairLab.ts"

const TOPOLOGIES = ["plain", "cgn", "same-nat", "v6"] as const

const { values } = parseArgs({
  options: {
    pairs: { type: "string", default: "*×*" },
    rounds: { type: "string", default: "1" },
    labs: { type: "string", default: "1" },
    seconds: { type: "string", default: "Infinity" }
  }
})
const { pairs, unknown } = NatPairs.parse(values.pairs)
const rounds = Number(values.rounds)
const labs = Number(values.labs)
/** No trial is begun after this. */
const endAt = performance.now() + Number(values.seconds) * 1000

const give = (problem: string) => {
  process.stderr.write(`natlab-matrix: ${problem}\n`)
  process.exit(2)
}
if (unknown.length > 0) give(`no such pairs: ${unknown.join(", ")}`)
if (!(rounds >= 1) || !(labs >= 1) || !(endAt > 0)) give("--rounds, --labs and --seconds take positive numbers")
if (!Lab.isPossible) give("network namespaces need root on Linux")

type Verdict = "ok" | "MISS" | "NOT CONNECTED" | "ASTRAY" | "NO REASON"
const verdict = (outcome: PairLab.Outcome): Verdict => {
  const { expected, path, reason } = outcome
  if (path === "none") return "NOT CONNECTED"
  if (!PairLab.isTrue(outcome)) return "ASTRAY"
  if (!NatPairs.isMet(expected, path)) return "MISS"
  return PairLab.isSettled(reason) ? "ok" : "NO REASON"
}

const rounded = (value: number | null) => (value === null ? null : Math.round(value))
const quantiles = (list: ReadonlyArray<number | null>) => {
  const sorted = list.filter((it) => it !== null).sort((a, b) => a - b)
  const at = (share: number) => rounded(sorted[Math.ceil(share * sorted.length) - 1] ?? null)
  return { n: sorted.length, p50: at(0.5), p99: at(0.99), max: at(1) }
}
const summary = (outcomes: ReadonlyArray<PairLab.Outcome>) => ({
  trials: outcomes.length,
  direct: outcomes.filter(({ path }) => path === "direct").length,
  firstByteMs: quantiles(outcomes.map(({ firstByteMs }) => firstByteMs)),
  toDirectMs: quantiles(outcomes.map(({ toDirectMs }) => toDirectMs))
})
const grouped = (outcomes: ReadonlyArray<PairLab.Outcome>, keyOf: (outcome: PairLab.Outcome) => string) =>
  Object.fromEntries(
    [...new Set(outcomes.map(keyOf))].map((key) => [key, summary(outcomes.filter((it) => keyOf(it) === key))])
  )

const line = (...cells: ReadonlyArray<string | number | null>) => {
  const widths = [32, 9, 10, 20, 9, 9]
  process.stderr.write(`${cells.map((cell, i) => String(cell ?? "-").padEnd(widths[i] ?? 0)).join(" ")}\n`)
}
const tell = (outcome: PairLab.Outcome) => {
  const { expected, firstByteMs, pair, path, reason, toDirectMs } = outcome
  line(pair, expected, path, reason, rounded(firstByteMs), rounded(toDirectMs), verdict(outcome))
}

/** All rounds of some pairs, dealt to labs of one topology. */
const runAll = (topology: PairLab.Topology, chosen: ReadonlyArray<NatPairs.Pair>) => {
  const todo = Array.from({ length: rounds }, () => chosen).flat()
  const worker = Effect.scoped(Effect.gen(function*() {
    const lab = yield* PairLab.make(topology)
    const outcomes: Array<PairLab.Outcome> = []
    for (let pair = todo.shift(); pair !== undefined && performance.now() < endAt; pair = todo.shift()) {
      const outcome = yield* PairLab.trial(lab, pair)
      tell(outcome)
      outcomes.push(outcome)
    }
    return outcomes
  }))
  const isLate = performance.now() >= endAt
  const workers = Array.from({ length: isLate ? 0 : Math.min(labs, todo.length) }, () => worker)
  return Effect.map(Effect.all(workers, { concurrency: "unbounded" }), (lists) => lists.flat())
}

const main = Effect.gen(function*() {
  const loadBefore = loadavg()[0]
  line("PAIR", "MUST BE", "IS", "REASON", "BYTE ms", "DIRECT ms")
  const lists = yield* Effect.forEach(
    TOPOLOGIES,
    (topology) => runAll(topology, pairs.filter((pair) => PairLab.topologyOf(pair) === topology))
  )
  const outcomes = lists.flat()
  const tried = new Set(outcomes.map(({ pair }) => pair))
  const notTried = pairs.map(NatPairs.nameOf).filter((name) => !tried.has(name))
  const bad = outcomes.filter((outcome) => verdict(outcome) !== "ok")
  const classOf = new Map(pairs.map((pair) => [NatPairs.nameOf(pair), NatPairs.classOf(pair)]))
  const classes = grouped(outcomes, ({ pair }) => classOf.get(pair)!)
  process.stderr.write("\n")
  for (const [name, { direct, firstByteMs, toDirectMs, trials }] of Object.entries(classes)) {
    const times = toDirectMs.n === 0 ? "" : `; to direct p50 ${toDirectMs.p50} ms, p99 ${toDirectMs.p99} ms`
    process.stderr.write(
      `${name}: ${direct} of ${trials} direct; first byte p50 ${firstByteMs.p50} ms, p99 ${firstByteMs.p99} ms${times}\n`
    )
  }
  for (const outcome of bad) process.stderr.write(`${verdict(outcome)}: ${outcome.pair}: ${outcome.reason}\n`)
  if (notTried.length > 0) process.stderr.write(`NOT TRIED: ${notTried.join(", ")}\n`)
  const figure = {
    bench: "natlab-matrix",
    node: process.version,
    cores: cpus().length,
    load: [loadBefore, loadavg()[0]],
    rounds,
    labs,
    notTried,
    bad: bad.map((outcome) => ({ pair: outcome.pair, verdict: verdict(outcome), reason: outcome.reason })),
    classes,
    reaches: grouped(outcomes, ({ expected }) => expected),
    pairs: grouped(outcomes, ({ pair }) => pair),
    outcomes
  }
  process.stdout.write(`${JSON.stringify(figure, null, 2)}\n`)
  return bad.length + notTried.length === 0 ? 0 : 1
})

NodeRuntime.runMain(Effect.map(main, (code) => void (process.exitCode = code)))
