import * as fc from "fast-check"
import { expect, it } from "vitest"
import * as Candidate from "../../src/protocol/candidate/Candidate.ts"
import { GuessBudget, MAX_A_SECOND, MAX_AN_HOUR } from "../../src/protocol/path/GuessBudget.ts"
import { direct } from "../../src/protocol/path/PathRef.ts"
import { MAX_PROBES, PortGuess, SOCKETS } from "../../src/protocol/path/PortGuess.ts"
import { runs } from "../support/Runs.ts"

const host = fc.constantFrom("198.51.100.1", "203.0.113.2", "203.0.113.3", "10.0.0.1", "127.0.0.1", "::1", "no address")
const address = fc.record({ host, port: fc.integer({ min: 1, max: 65_535 }) })
const mapping = fc.constantFrom("steady" as const, "varies" as const, null)
const command = fc.oneof(
  { weight: 12, arbitrary: fc.record({ is: fc.constant("wait" as const), ms: fc.integer({ min: 0, max: 3_000 }) }) },
  fc.record({ is: fc.constant("sleep" as const), ms: fc.integer({ min: 0, max: 400_000 }) }),
  fc.record({ is: fc.constant("local" as const), mapping }),
  fc.record({ is: fc.constant("peer" as const), mapping, list: fc.array(address, { maxLength: 4 }) }),
  fc.record({
    is: fc.constant("opened" as const),
    attempt: fc.integer({ min: 0, max: 1_000 }),
    seen: fc.array(address, { maxLength: 8 }),
    delta: fc.option(fc.integer({ min: -128, max: 127 }))
  }),
  fc.record({ is: fc.constant("sample" as const), mapped: address }),
  fc.record({ is: fc.constant("refused" as const), count: fc.integer({ min: 1, max: 10 }) }),
  fc.record({ is: fc.constant("ping" as const), remote: address }),
  fc.record({ is: fc.constant("network" as const) }),
  fc.record({ is: fc.constant("facts" as const), relayed: fc.boolean(), direct: fc.boolean(), seeking: fc.boolean() })
)
const input = fc.record({
  who: fc.integer({ min: 0, max: 2 }),
  command,
  late: fc.integer({ min: 0, max: 20 })
})

it("a node stays within its budgets for any input", () => {
  fc.assert(
    fc.property(fc.array(input, { maxLength: 60 }), (inputs) => {
      const budget = new GuessBudget(0)
      let seed = 0
      let now = 0
      const sides = Array.from({ length: 3 }, () => ({
        guess: new PortGuess({ budget, nextSeed: () => ++seed }),
        facts: { relayed: true, direct: false, seeking: true },
        told: new Set<string>(),
        guessed: 0,
        opened: 0,
        open: false
      }))
      const sent: Array<number> = []
      const step = (side: (typeof sides)[number]) => {
        for (const output of side.guess.step(side.facts, now)) {
          if (output._tag === "CloseGuess") [side.open, side.opened] = [false, 0]
          if (output._tag === "SampleGuess") side.open = true
          if (output._tag === "OpenGuess") {
            expect(side.told.has(output.to.host)).toBe(true)
            side.opened += output.count
            for (let i = 0; i < output.count; i++) sent.push(now)
          }
          if (output._tag === "SendGuesses") {
            for (const to of output.to) {
              expect(side.told.has(to.host)).toBe(true)
              expect(to.port).toBeGreaterThanOrEqual(1_024)
              sent.push(now)
            }
            side.guessed += output.to.length
          }
        }
        if (side.guess.reason !== "guessing") side.guessed = 0
        expect(side.guessed).toBeLessThanOrEqual(MAX_PROBES)
        expect(side.opened).toBeLessThanOrEqual(SOCKETS)
        expect(sides.filter(({ open }) => open).length).toBeLessThanOrEqual(1)
        if (!side.facts.relayed || !side.facts.seeking || side.facts.direct) {
          expect(side.guess.reason).not.toBe("guessing")
        }
      }
      for (const { command: it, late, who } of inputs) {
        const side = sides[who]!
        switch (it.is) {
          case "wait": {
            const end = now + it.ms
            while (now < end) {
              now = Math.max(now + 1, Math.min(end, ...sides.map(({ guess }) => (guess.wakeAt() ?? Infinity) + late)))
              for (const one of sides) step(one)
            }
            break
          }
          case "sleep":
            now += it.ms
            break
          case "local":
            side.guess.onLocal(it.mapping)
            break
          case "peer":
            for (const one of it.list) side.told.add(one.host)
            side.guess.onPeer(it.mapping, it.list.map((one) => Candidate.make("srflx", one)), now)
            break
          case "opened":
            for (const one of it.seen) side.told.add(one.host)
            side.guess.onOpened(it)
            break
          case "sample":
            side.guess.onSample({ local: 1, mapped: it.mapped })
            break
          case "refused":
            side.guess.onRefused(it.count)
            break
          case "ping":
            side.guess.onPing(direct(it.remote))
            break
          case "network":
            side.guess.onNetworkChange()
            break
          case "facts":
            side.facts = it
            break
        }
        step(side)
      }
      for (const [i, at] of sent.entries()) {
        const within = sent[i + MAX_A_SECOND]
        if (within !== undefined) expect(within - at).toBeGreaterThanOrEqual(1_000)
      }
      expect(sent.length).toBeLessThanOrEqual(MAX_AN_HOUR * (1 + Math.ceil(now / 3_600_000)))
    }),
    { numRuns: runs(300) }
  )
})
