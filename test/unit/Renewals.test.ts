/** What keeps a page's session permitted, over hours of virtual time. */
import { afterEach, assert, beforeEach, describe, it, vi } from "vitest"
import type { Grant } from "../../src/protocol/trust/Documents.ts"
import { NORMAL } from "../../src/protocol/trust/Lifetimes.ts"
import { FlowCount } from "../../src/session/core/FlowCount.ts"
import { Renewals } from "../../src/session/core/Renewals.ts"

const LIVES = 4
const signed = { payload: new Uint8Array(), signature: new Uint8Array() }

/** A session and the relay that renews it. Times in seconds, by one clock. */
const setup = () => {
  const now = () => performance.now() / 1000
  const documents = { grantEnds: now() + NORMAL.grant, ticketEnds: now() + NORMAL.ticket }
  const seen = { ended: null as string | null, renewals: 0, isReachable: true }
  const newGrant = () => {
    documents.grantEnds = now() + NORMAL.grant
  }
  const flows = new FlowCount(() => performance.now())
  const renewals = new Renewals({
    flows,
    leftSeconds: () => documents.grantEnds - now(),
    renew: () => {
      if (!seen.isReachable || documents.ticketEnds <= now()) return Promise.reject(new Error("refused"))
      seen.renewals++
      documents.ticketEnds = now() + NORMAL.ticket
      return Promise.resolve({ grant: { id: String(seen.renewals) } as Grant, signed })
    },
    onRenewed: newGrant,
    end: (why) => {
      seen.ended ??= why
      renewals.stop()
    }
  })
  const pass = (seconds: number) => vi.advanceTimersByTimeAsync(seconds * 1000)
  return { documents, flows, newGrant, pass, renewals, seen }
}

beforeEach(() => void vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "performance"] }))
afterEach(() => void vi.useRealTimers())

describe("the renewals of a page's session", () => {
  it("keep its grant and its ticket, life after life", async () => {
    const { documents, flows, pass, renewals, seen } = setup()
    flows.began()
    for (let life = 1; life <= LIVES * NORMAL.ticket / NORMAL.grant; life++) {
      const before = seen.renewals
      await pass(NORMAL.grant)
      assert.isAbove(seen.renewals, before, `life ${life} of the grant`)
      assert.isAbove(documents.ticketEnds, performance.now() / 1000)
    }
    assert.isNull(seen.ended)
    renewals.stop()
  })

  it("keep its ticket although rules change all the time", async () => {
    const { documents, flows, newGrant, pass, renewals, seen } = setup()
    flows.began()
    for (let second = 0; second < LIVES * NORMAL.ticket; second += 100) {
      await pass(100)
      newGrant() // each change of rules brings a grant, which is never old enough to be renewed
      assert.isAbove(documents.ticketEnds, performance.now() / 1000, `after ${second + 100} s`)
    }
    assert.isAtLeast(seen.renewals, LIVES)
    assert.isNull(seen.ended)
    renewals.stop()
  })

  it("retry until the grant ends, then end the session", async () => {
    const { flows, pass, seen } = setup()
    flows.began()
    for (let life = 1; life < LIVES; life++) {
      seen.isReachable = false
      await pass(NORMAL.grant - 60)
      assert.isNull(seen.ended)
      seen.isReachable = true
      await pass(10)
    }
    seen.isReachable = false
    await pass(NORMAL.grant)
    assert.strictEqual(seen.ended, "the grant has expired and could not be renewed")
  })

  it("end it once it is not used any more", async () => {
    const { flows, pass, seen } = setup()
    for (let use = 1; use < LIVES; use++) {
      flows.began()
      await pass(400)
      flows.ended()
      await pass(290)
      assert.isNull(seen.ended, `use ${use}`)
    }
    await pass(20)
    assert.strictEqual(seen.ended, "not used any more")
  })
})
