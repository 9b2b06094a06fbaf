/** How long a second relay has been without the directory. */
import { assert, describe, it } from "vitest"
import { NORMAL } from "../../src/protocol/trust/Lifetimes.ts"
import { DirectoryOutage } from "../../src/transport/relay/DirectoryOutage.ts"

describe("an outage of the directory", () => {
  const setup = () => {
    const clock = { seconds: 1_000 }
    return { clock, outage: new DirectoryOutage(() => clock.seconds * 1000) }
  }

  it("counts from the loss to a minute after the return", () => {
    const { clock, outage } = setup()
    assert.strictEqual(outage.seconds, 0)
    outage.onReach(true)
    outage.onReach(false)
    clock.seconds += 5_000
    outage.onReach(false) // another try has failed
    assert.strictEqual(outage.seconds, 5_000)
    outage.onReach(true)
    clock.seconds += 59
    outage.onReach(true) // another message says the same
    assert.strictEqual(outage.seconds, 5_059)
    clock.seconds += 1
    assert.strictEqual(outage.seconds, 0)
  })

  it("goes on if the directory is lost again at once", () => {
    const { clock, outage } = setup()
    outage.onReach(false)
    clock.seconds += 500
    outage.onReach(true)
    clock.seconds += 10
    outage.onReach(false)
    clock.seconds += 500
    assert.strictEqual(outage.seconds, 1_010)
  })

  it("is over after seven days", () => {
    const { clock, outage } = setup()
    outage.onReach(false)
    clock.seconds += NORMAL.outage
    assert.strictEqual(outage.seconds, NORMAL.outage)
    clock.seconds += 1
    assert.strictEqual(outage.seconds, 0)
  })
})
