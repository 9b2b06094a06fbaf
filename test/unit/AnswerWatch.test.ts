/** A peer that does not answer, and a thread that does not run. */
import { afterEach, assert, beforeEach, describe, it, vi } from "vitest"
import { ANSWER_MS, AnswerWatch } from "../../src/transport/http3/AnswerWatch.ts"

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setImmediate", "performance"] }))
afterEach(() => void vi.useRealTimers())

/** A watch whose clock also counts `stalledMs`, in which no timer fired. */
const watched = () => {
  const seen = { asked: 0, silent: 0, stalledMs: 0 }
  const watch: AnswerWatch = new AnswerWatch({
    now: () => performance.now() + seen.stalledMs,
    ask: () => {
      seen.asked++
      watch.sent()
    },
    onSilent: () => void seen.silent++
  })
  return { seen, watch }
}

describe("a watch for answers", () => {
  it("asks once before it gives a peer up", () => {
    const { seen, watch } = watched()
    watch.sent()
    vi.advanceTimersByTime(ANSWER_MS + 10)
    assert.deepInclude(seen, { asked: 1, silent: 0 })
    vi.advanceTimersByTime(ANSWER_MS + 10)
    assert.deepInclude(seen, { asked: 1, silent: 1 })
    vi.advanceTimersByTime(10 * ANSWER_MS)
    assert.deepInclude(seen, { asked: 1, silent: 1 })
  })

  it("keeps a peer that answers each question", () => {
    const { seen, watch } = watched()
    for (let round = 0; round < 20; round++) {
      watch.sent()
      vi.advanceTimersByTime(ANSWER_MS + 10)
      watch.answered()
    }
    assert.strictEqual(seen.silent, 0)
  })

  it("blames no peer while this thread did not run", () => {
    const { seen, watch } = watched()
    watch.sent()
    vi.advanceTimersByTime(ANSWER_MS - 1)
    seen.stalledMs = 60_000
    vi.advanceTimersByTime(10)
    assert.strictEqual(seen.silent, 0)
    vi.advanceTimersByTime(2 * ANSWER_MS)
    assert.strictEqual(seen.silent, 1)
  })

  it("reads what has arrived before it judges", () => {
    const { seen, watch } = watched()
    watch.sent()
    vi.advanceTimersByTime(ANSWER_MS + 10)
    // The sockets are read between the timers and the immediates of a turn.
    vi.advanceTimersToNextTimer()
    watch.answered()
    vi.advanceTimersByTime(10)
    assert.deepInclude(seen, { asked: 1, silent: 0 })
  })

  it("says nothing once it has stopped", () => {
    const { seen, watch } = watched()
    watch.sent()
    watch.stop()
    watch.sent()
    vi.advanceTimersByTime(10 * ANSWER_MS)
    assert.deepInclude(seen, { asked: 0, silent: 0 })
  })
})
