/** What a node knows of its link to the relay. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as LinkCondition from "../../src/actors/signaling/LinkCondition.ts"
import { LinkError } from "../../src/transport/link/LinkClient.ts"

const make = () => LinkCondition.make({ relay: "relay.test:443", proxy: null })
const failed = (reason: LinkError["reason"]) => new LinkError({ reason, message: reason })

describe("the condition of a link", () => {
  it("is refused only after the relay has refused", () => {
    const condition = make()
    assert.strictEqual(condition.state.state, "connecting")
    condition.onDown("no", failed("handshake_refused"))
    assert.deepInclude(condition.state, { state: "refused", reason: "handshake_refused", problem: "no" })
    condition.onUp("websocket")
    condition.onDown("the relay ended it", null)
    assert.deepInclude(condition.state, { state: "connecting", reason: null, connects: 1 })
  })

  it("waits for DNS at every second try", () => {
    const condition = make()
    const waits = [failed("unreachable"), failed("timed_out"), failed("unreachable"), null, failed("handshake_refused")]
      .map((error) => {
        condition.onDown("no", error)
        return condition.waitForDns
      })
    assert.deepStrictEqual(waits, [true, false, true, true, false])
  })

  it.effect("sends keepalives more often where idle links are cut", () =>
    Effect.gen(function*() {
      const condition = make()
      const { gapMs } = condition
      for (let cut = 0; cut < 10 && condition.state.keepaliveMs === null; cut++) yield* condition.onCut(8_000)
      assert.isBelow(condition.gapMs, gapMs)
      assert.strictEqual(condition.state.keepaliveMs, condition.gapMs)
      condition.onNetworkChange()
      assert.deepStrictEqual([condition.state.keepaliveMs, condition.gapMs], [null, gapMs])
    }))
})
