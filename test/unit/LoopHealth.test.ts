/** What is said of an event loop: lateness that lasts is told apart from one late moment. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as LoopHealth from "../../src/actors/runtime/LoopHealth.ts"

const LATE_MS = 500

const block = (ms: number) => Effect.sync(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms))

describe("LoopHealth", () => {
  it.scopedLive("tells one late moment by the largest delay, and not by the percentile", () =>
    Effect.gen(function*() {
      const read = yield* LoopHealth.make
      yield* Effect.sleep("4 seconds") // some two hundred timers in time
      yield* read
      yield* Effect.sleep("100 millis")
      yield* block(LATE_MS)
      yield* Effect.sleep("100 millis")
      const after = yield* read
      assert.isAbove(after.loopDelayMaxMs, LATE_MS / 2)
      assert.isBelow(after.loopDelayP99Ms, LATE_MS / 2)
      const later = yield* Effect.delay(read, "100 millis")
      assert.isBelow(later.loopDelayMaxMs, LATE_MS / 2)
    }))

  it.scopedLive("tells lateness that lasts by both, until it has been over for a while", () =>
    Effect.gen(function*() {
      const read = yield* LoopHealth.make
      const late = Effect.zipRight(block(LATE_MS), Effect.sleep("1 millis"))
      for (let second = 0; second < 3; second++) yield* Effect.zipRight(Effect.repeatN(late, 3), read)
      assert.isAbove((yield* read).loopDelayP99Ms, LATE_MS / 2)
      for (let second = 0; second < 20; second++) yield* Effect.delay(read, "100 millis")
      assert.isBelow((yield* read).loopDelayP99Ms, LATE_MS / 2)
    }))
})
