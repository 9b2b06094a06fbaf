import { describe, expect, it } from "vitest"
import * as Candidate from "../../src/protocol/candidate/Candidate.ts"
import { GuessBudget } from "../../src/protocol/path/GuessBudget.ts"
import * as GuessOrder from "../../src/protocol/path/GuessOrder.ts"
import { direct } from "../../src/protocol/path/PathRef.ts"
import {
  BACK_OFF_MS,
  MAX_PROBES,
  OPEN_MS,
  type Opened,
  type Output,
  PortGuess,
  SAMPLES,
  SOCKETS,
  WAIT_MS
} from "../../src/protocol/path/PortGuess.ts"

const EASY = { host: "198.51.100.1", port: 4001 }
const HARD = "203.0.113.2"
const RELAYED = { relayed: true, direct: false, seeking: true }
const seen = [5_000, 41_000, 12_000, 60_000].map((port) => ({ host: HARD, port }))
const opened: Opened = { attempt: 7, seen, delta: null }

const make = (budget = new GuessBudget(0)) => {
  let seed = 1
  return new PortGuess({ budget, nextSeed: () => seed++ })
}
const hardSide = (budget?: GuessBudget) => {
  const guess = make(budget)
  guess.onLocal("varies")
  guess.onPeer("steady", [Candidate.make("srflx", EASY)], 0)
  return guess
}
const easySide = () => {
  const guess = make()
  guess.onLocal("steady")
  guess.onPeer("varies", [Candidate.make("srflx", { host: HARD, port: 5_000 })], 0)
  return guess
}
type Done = Output & { readonly at: number }
/** Steps whenever the machine wants to be woken. */
const runUntil = (guess: PortGuess, from: number, to: number, facts = RELAYED): Array<Done> => {
  const done: Array<Done> = []
  for (let now = from; now <= to; now = Math.max(now + 1, guess.wakeAt() ?? Infinity)) {
    for (const output of guess.step(facts, now)) done.push({ ...output, at: now })
  }
  return done
}
const ofTag = <Tag extends Output["_tag"]>(list: ReadonlyArray<Done>, tag: Tag) =>
  list.filter((output): output is Extract<Done, { _tag: Tag }> => output._tag === tag)
const sum = (list: ReadonlyArray<{ readonly count: number }>) => list.reduce((total, { count }) => total + count, 0)

describe("the side whose ports vary", () => {
  it("opens 256 sockets, tells the peer, and closes them", () => {
    const guess = hardSide()
    const out = runUntil(guess, 0, 30_000)
    expect(ofTag(out, "SampleGuess").map(({ at, count }) => [at, count])).toEqual([[WAIT_MS, SAMPLES]])
    const opens = ofTag(out, "OpenGuess")
    expect(sum(opens)).toBe(SOCKETS)
    expect(opens.every(({ to }) => to.host === EASY.host && to.port === EASY.port)).toBe(true)
    const told = ofTag(out, "TellOpened")
    expect(new Set(told.map(({ opened: { attempt } }) => attempt)).size).toBe(1)
    expect(told[0]!.at).toBeGreaterThanOrEqual(opens.at(-1)!.at)
    expect(ofTag(out, "CloseGuess").map(({ at }) => at)).toEqual([told[0]!.at + OPEN_MS])
    expect(guess.reason).toBe("guess_exhausted")
  })

  it("tells how its NAT counts", () => {
    const guess = hardSide()
    guess.step(RELAYED, 0)
    guess.step(RELAYED, WAIT_MS)
    for (let i = 0; i < SAMPLES; i++) {
      guess.onSample({ local: 40_000 + i * 7, mapped: { host: HARD, port: 2_000 + 2 * i } })
    }
    const told = ofTag(runUntil(guess, WAIT_MS + 20, 5_000), "TellOpened")[0]!.opened
    expect(told.delta).toBe(2)
    expect(told.seen.at(-1)).toEqual({ host: HARD, port: 2_000 + 2 * (SAMPLES - 1) })
  })

  it("closes all at once when the peer's probe came", () => {
    const guess = hardSide()
    runUntil(guess, 0, 3_000)
    guess.onPing(direct(EASY))
    expect(guess.step(RELAYED, 3_001)).toEqual([{ _tag: "CloseGuess" }])
    expect(guess.reason).toBeNull()
    expect(runUntil(guess, 3_002, 30_000)).toEqual([])
  })

  it("waits twice as long after each failure", () => {
    const guess = hardSide()
    const starts = ofTag(runUntil(guess, 0, 10 * BACK_OFF_MS), "SampleGuess").map(({ at }) => at)
    expect(starts).toHaveLength(4)
    const gaps = starts.slice(1).map((at, i) => at - starts[i]!)
    expect(gaps[0]).toBeGreaterThanOrEqual(BACK_OFF_MS)
    expect(gaps[1]).toBeGreaterThanOrEqual(2 * BACK_OFF_MS)
    expect(gaps[2]).toBeGreaterThanOrEqual(4 * BACK_OFF_MS)
    guess.onNetworkChange()
    const again = ofTag(runUntil(guess, 10 * BACK_OFF_MS, 10 * BACK_OFF_MS + 5_000), "SampleGuess")
    expect(again).toHaveLength(1)
  })

  it("goes on with too few sockets, and says so", () => {
    const some = hardSide()
    runUntil(some, 0, 1_600)
    some.onRefused(4)
    expect(ofTag(runUntil(some, 1_601, 3_000), "TellOpened").length).toBeGreaterThan(0)
    const none = hardSide()
    runUntil(none, 0, 910)
    none.onRefused(10)
    expect(ofTag(runUntil(none, 911, 3_000), "CloseGuess")).toHaveLength(1)
    expect(none.reason).toBe("guess_unavailable")
  })

  it("lets one session after the other", () => {
    const budget = new GuessBudget(0)
    const [first, second] = [hardSide(budget), hardSide(budget)]
    const early = runUntil(first, 0, 5_000)
    expect(ofTag(early, "SampleGuess")).toHaveLength(1)
    expect(ofTag(runUntil(second, 0, 5_000), "SampleGuess")).toHaveLength(0)
    runUntil(first, 5_001, 30_000)
    expect(ofTag(runUntil(second, 30_000, 40_000), "SampleGuess")).toHaveLength(1)
  })

  it.each([
    ["the peer's ports vary, too", (guess: PortGuess) => guess.onPeer("varies", [Candidate.make("srflx", EASY)], 0)],
    ["nothing is known of the peer", (guess: PortGuess) => guess.onPeer(null, [Candidate.make("srflx", EASY)], 0)],
    ["the peer has no outside address", (guess: PortGuess) => guess.onPeer("steady", [], 0)]
  ])("does nothing where %s", (_, tell) => {
    const guess = hardSide()
    tell(guess)
    expect(runUntil(guess, 0, 60_000)).toEqual([])
  })

  it("does nothing while no guess is needed", () => {
    for (const change of [{ relayed: false }, { direct: true }, { seeking: false }]) {
      expect(runUntil(hardSide(), 0, 60_000, { ...RELAYED, ...change })).toEqual([])
    }
  })
})

describe("the side whose port is steady", () => {
  it("guesses each port once within the budget, then reports failure", () => {
    const guess = easySide()
    expect(runUntil(guess, 0, 5_000)).toEqual([])
    guess.onOpened(opened)
    const out = ofTag(runUntil(guess, 5_001, 30_000), "SendGuesses").flatMap(({ to }) => to)
    expect(out).toHaveLength(MAX_PROBES)
    expect(new Set(out.map(({ port }) => port)).size).toBe(MAX_PROBES)
    expect(out.every(({ host, port }) => host === HARD && port >= GuessOrder.MIN_PORT)).toBe(true)
    expect(guess.reason).toBe("guess_exhausted")
    guess.onOpened(opened)
    expect(runUntil(guess, 200_000, 230_000)).toEqual([]) // told again of the same attempt
  })

  it("stops when the peer's probe comes directly", () => {
    const guess = easySide()
    guess.onOpened(opened)
    expect(ofTag(runUntil(guess, 0, 1_000), "SendGuesses").length).toBeGreaterThan(10)
    guess.onPing(direct({ host: HARD, port: 33_333 }))
    expect(guess.step(RELAYED, 1_001)).toEqual([])
    expect(guess.reason).toBeNull()
  })

  it("does not guess unless it is its turn", () => {
    const guess = easySide()
    guess.onOpened(opened)
    expect(runUntil(guess, 0, 10_000, { ...RELAYED, relayed: false })).toEqual([])
    guess.onLocal("varies")
    guess.onOpened(opened)
    expect(runUntil(guess, 10_000, 20_000)).toEqual([])
    expect(guess.reason).toBe("symmetric_both")
  })
})

describe("the order of guesses", () => {
  const take = (count: number, ...args: Parameters<typeof GuessOrder.of>) => {
    const out: Array<{ host: string; port: number }> = []
    for (const one of GuessOrder.of(...args)) {
      out.push(one)
      if (out.length === count) break
    }
    return out
  }

  it("finds 256 ports of a counter within a few", () => {
    for (const delta of [1, 2, -1]) {
      const last = 40_000
      const open = new Set(Array.from({ length: 256 }, (_, i) => last + delta * (i + 30)))
      expect(take(4, seen.concat({ host: HARD, port: last }), delta, 1).some(({ port }) => open.has(port))).toBe(true)
    }
  })

  it("begins near the seen ports if they are close together", () => {
    const block = [20_100, 20_900, 20_400, 21_000].map((port) => ({ host: HARD, port }))
    expect(take(200, block, null, 1).every(({ port }) => Math.abs(port - 20_500) < 1_100)).toBe(true)
  })

  it("gives every port of a host once, whatever was seen", () => {
    for (const delta of [null, 1, -64, 127]) {
      const all = take(100_000, seen, delta, 5)
      expect(all).toHaveLength(GuessOrder.PORTS)
      expect(new Set(all.map(({ port }) => port)).size).toBe(GuessOrder.PORTS)
    }
  })

  it("lets hosts take turns, and ignores forbidden ones", () => {
    const hosts = ["127.0.0.1", "224.0.0.1", "169.254.169.254", "::1", HARD, "203.0.113.3"]
    const list = take(4, hosts.map((host) => ({ host, port: 9 })), null, 1)
    expect(list.map(({ host }) => host)).toEqual([HARD, "203.0.113.3", HARD, "203.0.113.3"])
  })
})
