import { assert, describe, it } from "@effect/vitest"
import type { Limit } from "../../src/services/telemetry/Limits.ts"
import { ENDED_FLOWS, QUIET_MS, Trim } from "../../src/transport/flow/Trim.ts"
import { BUDGET_BYTES, MAX_BYTES, MIN_BYTES, Unread } from "../../src/transport/flow/Unread.ts"

describe("bytes that nobody reads", () => {
  it("are bounded in sum, however many flows hold them, and are free again", () => {
    const met: Array<Limit> = []
    const unread = new Unread((limit) => void met.push(limit))
    assert.strictEqual(unread.allowance, MAX_BYTES)
    const held: Array<number> = []
    for (let flow = 0; flow < 4096; flow += 1) {
      held.push(unread.allowance)
      unread.change(unread.allowance)
    }
    assert.isAtMost(unread.bytes, BUDGET_BYTES + 4096 * MIN_BYTES)
    assert.deepStrictEqual(met, ["buffers"])
    for (const bytes of held) unread.change(-bytes)
    assert.strictEqual(unread.bytes, 0)
    assert.strictEqual(unread.allowance, MAX_BYTES)
  })
})

describe("memory of flows that ended", () => {
  it("is given back once many have ended and none ends any more", () => {
    let trimmed = 0
    const trim = new Trim(() => {
      trimmed += 1
    })
    trim.tick(ENDED_FLOWS, 0)
    trim.tick(0, 1000)
    trim.tick(0, 1000 + QUIET_MS - 1)
    assert.strictEqual(trimmed, 0)
    trim.tick(0, 1000 + QUIET_MS)
    trim.tick(0, 60_000)
    assert.strictEqual(trimmed, 1)
    trim.tick(ENDED_FLOWS - 1, 61_000)
    trim.tick(0, 62_000)
    trim.tick(0, 90_000)
    assert.strictEqual(trimmed, 1)
  })
})
