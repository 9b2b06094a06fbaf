import { assert, describe, it } from "vitest"
import { DEFAULT_GAP_MS, IdleCuts, MIN_GAP_MS } from "../../src/protocol/relay/IdleCuts.ts"

describe("keepalives of a link", () => {
  it("send at half of a timeout that struck twice", () => {
    const cuts = new IdleCuts()
    assert.isNull(cuts.onCut(5_010))
    assert.strictEqual(cuts.gapMs, DEFAULT_GAP_MS)
    assert.deepStrictEqual(cuts.onCut(5_400), { idleMs: 5_010, gapMs: 2_505 })
    assert.strictEqual(cuts.gapMs, 2_505)
  })

  it("do not change if links end after different times", () => {
    const cuts = new IdleCuts()
    for (const idleMs of [9_000, 3_000, 8_000, 100, 8_000, 20, 5_000]) assert.isNull(cuts.onCut(idleMs))
    assert.strictEqual(cuts.gapMs, DEFAULT_GAP_MS)
  })

  it("shrink again for a shorter time-out, down to a limit", () => {
    const cuts = new IdleCuts()
    cuts.onCut(8_000)
    cuts.onCut(8_000)
    cuts.onCut(3_000)
    assert.strictEqual(cuts.onCut(3_000)?.gapMs, 1_500)
    cuts.onCut(1_200)
    assert.strictEqual(cuts.onCut(1_200)?.gapMs, MIN_GAP_MS)
    cuts.onCut(1_100)
    assert.isNull(cuts.onCut(1_100))
  })

  it("are the usual ones in another network", () => {
    const cuts = new IdleCuts()
    cuts.onCut(5_000)
    cuts.onCut(5_000)
    cuts.onNetworkChange()
    assert.strictEqual(cuts.gapMs, DEFAULT_GAP_MS)
    assert.isNull(cuts.onCut(5_000))
  })
})
