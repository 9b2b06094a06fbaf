import { describe, expect, it, vi } from "vitest"
import * as Ways from "../../src/session/Ways.ts"

const HEAD_START_MS = 300

/** A way that answers after `ms` of its own; `log` says what befell it. */
const way = (name: string, ms: number, outcome: "opens" | "fails", log: Array<string>): Ways.Way<string> => ({
  open: (signal) =>
    new Promise((resolve, reject) => {
      log.push(`${name} begins at ${Date.now()}`)
      const giveUp = () => log.push(`${name} is given up`)
      signal.addEventListener("abort", giveUp)
      setTimeout(() => {
        if (outcome === "opens") return resolve(name)
        signal.removeEventListener("abort", giveUp)
        reject(new Error(name))
      }, ms)
    }),
  discard: (opened) => log.push(`${opened} is discarded`)
})

const race = async (run: (log: Array<string>, signal: AbortSignal, abort: () => void) => Promise<string>) => {
  vi.useFakeTimers({ now: 0, toFake: ["setTimeout", "clearTimeout", "Date"] })
  try {
    const log: Array<string> = []
    const controller = new AbortController()
    const result = run(log, controller.signal, () => controller.abort()).then(
      (won) => `${won} wins`,
      ({ message }) => `${message} is told`
    )
    await vi.advanceTimersByTimeAsync(2_000)
    return [...log, await result]
  } finally {
    vi.useRealTimers()
  }
}

describe("several ways to one end", () => {
  it("are tried in order, only the first if it answers", async () => {
    const log = await race((log, signal) =>
      Ways.firstOf([way("a", 200, "opens", log), way("b", 1, "opens", log)], HEAD_START_MS, signal)
    )
    expect(log).toEqual(["a begins at 0", "a wins"])
  })

  it("begin at once when the one before has failed", async () => {
    const log = await race((log, signal) =>
      Ways.firstOf([way("a", 50, "fails", log), way("b", 100, "opens", log)], HEAD_START_MS, signal)
    )
    expect(log).toEqual(["a begins at 0", "b begins at 50", "b wins"])
  })

  it("run in parallel after the head start, discarding the slower", async () => {
    const log = await race((log, signal) =>
      Ways.firstOf([way("a", 500, "opens", log), way("b", 100, "opens", log)], HEAD_START_MS, signal)
    )
    expect(log).toEqual(["a begins at 0", "b begins at 300", "a is given up", "b wins", "a is discarded"].sort(byTime))
  })

  it("may all fail, and the last one's error counts", async () => {
    const log = await race((log, signal) =>
      Ways.firstOf([way("a", 900, "fails", log), way("b", 100, "fails", log)], HEAD_START_MS, signal)
    )
    expect(log).toEqual(["a begins at 0", "b begins at 300", "b is told"])
  })

  it("are all given up by an abort", async () => {
    const log = await race((log, signal, abort) => {
      setTimeout(abort, 100)
      return Ways.firstOf([way("a", 500, "opens", log), way("b", 100, "opens", log)], HEAD_START_MS, signal)
    })
    expect(log).toEqual(["a begins at 0", "a is given up", "given up is told", "a is discarded"].sort(byTime))
  })
})

/** What happens in the race comes before its result, which is read at the end. */
const byTime = (a: string, b: string) => Number(/wins|told/.test(a)) - Number(/wins|told/.test(b))
