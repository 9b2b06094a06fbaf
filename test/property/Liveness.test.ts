import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import * as Liveness from "../../src/actors/runtime/liveness/Liveness.ts"

const LIMIT_MS = 10_000

/** What a thread did between two readings; the rest of `elapsedMs` it waited for a processor. */
interface Span {
  readonly elapsedMs: number
  readonly ranMs: number
  readonly sleptMs: number
  readonly isAsleep: boolean
  readonly beats: number
  readonly answers: boolean
}

const play = (spans: ReadonlyArray<Span>) => {
  let reading: Liveness.Reading = { beats: 0, cpuMs: 0, waitedMs: 0, isAsleep: true }
  let now = 0
  let state = Liveness.onReading(Liveness.start(now), reading, now)
  for (const { answers, beats, elapsedMs, isAsleep, ranMs, sleptMs } of spans) {
    now += elapsedMs
    reading = {
      beats: reading.beats + beats,
      cpuMs: (reading.cpuMs ?? 0) + ranMs,
      waitedMs: reading.waitedMs + elapsedMs - ranMs - sleptMs,
      isAsleep
    }
    state = Liveness.onReading(state, reading, now)
    if (answers) state = Liveness.onAnswer(state)
    const why = Liveness.verdict(state, LIMIT_MS)
    if (why !== null) return { why, now }
  }
  return { why: null, now }
}

const times = (count: number, span: Partial<Span> & { readonly elapsedMs: number }) =>
  Array.from(
    { length: count },
    (): Span => ({ ranMs: 0, sleptMs: 0, isAsleep: false, beats: 0, answers: false, ...span })
  )

const spans = (part: fc.Arbitrary<Partial<Span>>) =>
  fc.array(
    // oxlint-disable-next-line oxc/no-map-spread -- generated data
    fc.tuple(fc.integer({ min: 1, max: 20_000 }), part).map(([elapsedMs, part]): Span => ({
      elapsedMs,
      ranMs: 0,
      sleptMs: 0,
      isAsleep: false,
      beats: 0,
      answers: false,
      ...part
    })),
    { maxLength: 400 }
  )

describe("liveness of a thread", () => {
  it("ends a thread that runs too long without a turn", () => {
    const { now, why } = play(times(100, { elapsedMs: 500, ranMs: 500 }))
    assert.strictEqual(now, LIMIT_MS)
    assert.include(why ?? "", "it ran for 10 s without a turn")
  })

  it("ends one that sleeps in a call for six limits", () => {
    const { now, why } = play(times(1000, { elapsedMs: 500, sleptMs: 500, isAsleep: true }))
    assert.strictEqual(now, 6 * LIMIT_MS)
    assert.include(why ?? "", "it slept for 60 s inside a call")
  })

  it("ends one whose event loop turns and that answers nothing", () => {
    const { now, why } = play(times(1000, { elapsedMs: 500, ranMs: 100, sleptMs: 400, isAsleep: true, beats: 2 }))
    assert.strictEqual(now, 6 * LIMIT_MS)
    assert.include(why ?? "", "answered nothing for 60 s")
  })

  it("ends one that spins too long on a busy host", () => {
    const { now } = play(times(1000, { elapsedMs: 500, ranMs: 50 }))
    assert.strictEqual(now, LIMIT_MS * 10)
  })

  it("spares one that waits for a processor, however long", () => {
    fc.assert(fc.property(spans(fc.constant({})), (spans) => {
      assert.isNull(play(spans).why)
    }))
  })

  it("spares a slow thread that turns and answers", () => {
    const part = fc.record({ ranMs: fc.integer({ min: 0, max: 9_000 }), isAsleep: fc.boolean() })
    fc.assert(fc.property(spans(part), (spans) => {
      const slow = spans.map((span) => ({
        ...span,
        ranMs: Math.min(span.ranMs, span.elapsedMs),
        beats: 1,
        answers: true
      }))
      assert.isNull(play(slow).why)
    }))
  })

  it("spares a thread of a process that stood still", () => {
    assert.isNull(play(times(50, { elapsedMs: 3_600_000, sleptMs: 3_600_000, isAsleep: true })).why)
  })

  it("counts unknown processor time as sleep", () => {
    let state = Liveness.start(0)
    for (let now = 500; now <= 60_000; now += 500) {
      assert.isNull(Liveness.verdict(state, LIMIT_MS))
      state = Liveness.onReading(state, { beats: 0, cpuMs: null, waitedMs: 0, isAsleep: true }, now)
    }
    assert.isNotNull(Liveness.verdict(state, LIMIT_MS))
    assert.strictEqual(state.givenMs, 60_000)
  })
})
