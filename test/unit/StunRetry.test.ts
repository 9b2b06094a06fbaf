import { assert, describe, it } from "@effect/vitest"
import * as StunRetry from "../../src/protocol/nat/StunRetry.ts"

/** Ticks every `everyMs` and notes when it sends and when it fails. */
const run = (schedule: StunRetry.Schedule, everyMs: number) => {
  const sentAt: Array<number> = []
  let step = StunRetry.start(0, schedule)
  for (let now = 0;; now += everyMs) {
    if (step._tag === "TimedOut") return { sentAt, failedAt: now - everyMs, sends: step.sends }
    if (step._tag === "Send") sentAt.push(now - (now === 0 ? 0 : everyMs))
    if (now === 0 && step._tag === "Send") sentAt[0] = 0
    step = StunRetry.onTick(step.state, now)
  }
}

describe("StunRetry", () => {
  it("sends on RFC 8489's schedule and fails after 39.5 s", () => {
    const { failedAt, sends, sentAt } = run(StunRetry.RFC8489, 50)
    assert.deepStrictEqual(sentAt, [0, 500, 1500, 3500, 7500, 15500, 31500])
    assert.strictEqual(failedAt, 39_500)
    assert.strictEqual(sends, 7)
  })

  it("sends on the schedule and fails after 1.5 s", () => {
    const { failedAt, sentAt } = run(StunRetry.FAST, 50)
    assert.deepStrictEqual(sentAt, [0, 100, 300, 700])
    assert.strictEqual(failedAt, 1500)
  })

  it("sends once when called late, and waits when early", () => {
    const first = StunRetry.start(0, StunRetry.FAST)
    assert.strictEqual(first._tag, "Send")
    if (first._tag === "TimedOut") return
    assert.strictEqual(StunRetry.onTick(first.state, 99)._tag, "Wait")
    const late = StunRetry.onTick(first.state, 5000)
    assert.deepStrictEqual(late, { _tag: "Send", state: { schedule: StunRetry.FAST, sends: 2, deadline: 5200 } })
  })
})
