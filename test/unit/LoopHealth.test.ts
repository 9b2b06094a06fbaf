/** What is told of an event loop: lateness that lasts is told apart from one late moment. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as LoopHealth from "../../src/actors/runtime/thread/LoopHealth.ts"

const LATE_MS = 500
const TICKS_PER_SECOND = 20

/** Monitors of one loop whose ticks are given by hand, as `monitorEventLoopDelay` measures them: 50 ms in time, more if late. */
const loop = () => {
  const monitors = new Set<{ readonly delays: Array<number> }>()
  const monitor = Effect.sync((): LoopHealth.DelayMonitor => {
    const delays: Array<number> = []
    monitors.add({ delays })
    return {
      get max() {
        return Math.max(0, ...delays)
      },
      percentile: (percent) => delays.toSorted((a, b) => a - b)[Math.ceil((percent / 100) * delays.length) - 1] ?? 0,
      reset: () => void delays.splice(0)
    }
  })
  const tick = (lateMs: number) => {
    for (const { delays } of monitors) delays.push((50 + lateMs) * 1e6)
  }
  const second = () => {
    for (let n = 0; n < TICKS_PER_SECOND; n++) tick(0)
  }
  return { monitor, tick, second }
}

describe("LoopHealth", () => {
  it.scoped("shows one late moment as the largest delay", () =>
    Effect.gen(function*() {
      const { monitor, second, tick } = loop()
      const read = yield* LoopHealth.makeWith(monitor)
      for (let n = 0; n < 4; n++) second()
      yield* read
      tick(LATE_MS)
      second()
      const after = yield* read
      assert.strictEqual(after.loopDelayMaxMs, LATE_MS)
      assert.strictEqual(after.loopDelayP99Ms, 0)
      second()
      assert.strictEqual((yield* read).loopDelayMaxMs, 0)
    }))

  it.scoped("shows lasting lateness in the percentile, too", () =>
    Effect.gen(function*() {
      const { monitor, second, tick } = loop()
      const read = yield* LoopHealth.makeWith(monitor)
      for (let n = 0; n < 3; n++) {
        for (let late = 0; late < 4; late++) tick(LATE_MS)
        yield* read
      }
      assert.strictEqual((yield* read).loopDelayP99Ms, LATE_MS)
      for (let n = 0; n < 20; n++) {
        second()
        yield* read
      }
      assert.strictEqual((yield* read).loopDelayP99Ms, 0)
    }))

  it.scopedLive("reads the loop of its own thread", () =>
    Effect.gen(function*() {
      const read = yield* LoopHealth.make
      yield* Effect.sleep("100 millis")
      yield* Effect.sync(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LATE_MS))
      yield* Effect.sleep("100 millis")
      assert.isAbove((yield* read).loopDelayMaxMs, LATE_MS / 2)
    }))
})
