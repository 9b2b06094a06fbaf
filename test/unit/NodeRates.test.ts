/** What one node may have of the relay's signaling, and that others are not held up by it. */
import { assert, describe, it } from "@effect/vitest"
import { NodeRates } from "../../src/actors/hub/NodeRates.ts"
import type { NodeKey } from "../../src/protocol/trust/NodeKey.ts"

const [LOUD, QUIET] = ["A".repeat(43), "B".repeat(43)] as [NodeKey, NodeKey]
/** How often it was let, of many tries. */
const count = (tries: number, may: () => boolean) => Array.from({ length: tries }, may).filter(Boolean).length

describe("NodeRates", () => {
  it("limits each node's dials separately", () => {
    const rates = new NodeRates()
    assert.strictEqual(count(1000, () => rates.mayDial(LOUD, 0)), 100)
    assert.isTrue(rates.mayDial(QUIET, 0))
    assert.strictEqual(count(1000, () => rates.mayDial(LOUD, 2000)), 10)
    assert.isTrue(rates.mayForward(LOUD, 2000), "messages are another matter")
  })

  it("passes thousands of messages after a move", () => {
    const rates = new NodeRates()
    assert.strictEqual(count(10_000, () => rates.mayForward(LOUD, 0)), 4000)
    assert.strictEqual(count(1000, () => rates.mayForward(LOUD, 1000)), 100)
    rates.onRemoved(LOUD)
    assert.isTrue(rates.mayForward(LOUD, 1000))
  })
})
