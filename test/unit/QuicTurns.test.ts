import { afterEach, assert, beforeEach, describe, it, vi } from "vitest"
import { QuicTurns } from "../../src/transport/quic/QuicTurns.ts"

const TIMES = 4

/** A connection's turns, with the timer that QUIC asks for. Times in ms. */
const setup = (turn: (turns: QuicTurns) => void = () => undefined) => {
  const seen = { turnsAt: new Array<number>(), timeouts: 0 }
  const quic = {
    dueAt: Infinity,
    timeoutMs: () => quic.dueAt === Infinity ? null : Math.max(0, quic.dueAt - performance.now()),
    onTimeout: () => {
      seen.timeouts++
      quic.dueAt = Infinity
    }
  }
  const turns: QuicTurns = new QuicTurns(quic, () => {
    seen.turnsAt.push(performance.now())
    turn(turns)
  })
  return { quic, seen, turns }
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setImmediate", "performance"] })
})
afterEach(() => void vi.useRealTimers())

describe("a QUIC connection", () => {
  it("has one turn for many requests, again and again", () => {
    const { seen, turns } = setup()
    for (let time = 1; time <= TIMES; time++) {
      for (let request = 0; request < 3; request++) turns.schedule()
      assert.strictEqual(seen.turnsAt.length, time - 1, "a turn waits for the event loop")
      vi.advanceTimersByTime(1)
      assert.strictEqual(seen.turnsAt.length, time)
    }
  })

  it("has no further turn for work within a turn", () => {
    const { seen, turns } = setup((it) => {
      it.hold()
      it.schedule()
      it.release()
    })
    turns.schedule()
    vi.advanceTimersByTime(1000)
    assert.strictEqual(seen.turnsAt.length, 1)
    turns.schedule()
    vi.advanceTimersByTime(1000)
    assert.strictEqual(seen.turnsAt.length, 2)
  })

  it("has a turn whenever QUIC's own timer is due", () => {
    const { quic, seen, turns } = setup()
    for (let time = 1; time <= TIMES; time++) {
      const start = performance.now()
      quic.dueAt = start + 300
      turns.arm(start, start + 1000)
      vi.advanceTimersByTime(2000)
      assert.deepStrictEqual([seen.timeouts, seen.turnsAt.length, seen.turnsAt.at(-1)], [time, time, start + 300])
    }
  })

  it("has a turn that is due before QUIC's own timer", () => {
    const { quic, seen, turns } = setup()
    for (let time = 1; time <= TIMES; time++) {
      const start = performance.now()
      quic.dueAt = start + 1000
      turns.arm(start, start + 300)
      vi.advanceTimersByTime(2000)
      assert.deepStrictEqual([seen.timeouts, seen.turnsAt.length, seen.turnsAt.at(-1)], [0, time, start + 300])
    }
  })

  it("moves its timer only to an earlier time", () => {
    const { seen, turns } = setup()
    const start = performance.now()
    turns.arm(start, start + 500)
    turns.arm(start, Infinity)
    turns.arm(start, start + 900)
    turns.arm(start, start + 200)
    vi.advanceTimersByTime(2000)
    assert.deepStrictEqual([seen.turnsAt, seen.timeouts], [[start + 200], 0])
  })

  it("has no turn after its end", () => {
    const { seen, turns } = setup()
    turns.arm(performance.now(), performance.now() + 100)
    turns.schedule()
    turns.stop()
    turns.schedule()
    vi.advanceTimersByTime(1000)
    assert.deepStrictEqual(seen.turnsAt, [])
  })
})
