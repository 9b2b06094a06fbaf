/** The count of a client's flows in one session. */
import { assert, describe, it } from "vitest"
import { FlowCount } from "../../src/session/core/FlowCount.ts"
import type { FlowStream } from "../../src/session/FlowStream.ts"

const WEB = { kind: "tcp", host: "web", port: 80, traceparent: null } as const
const NO_STREAM = { openStream: () => null }

/** A stream that takes everything and answers nothing. */
const silent = (): FlowStream => ({
  handler: null,
  readOver: false,
  writeOver: false,
  read: () => -1,
  write: (bytes) => bytes.length,
  finish: () => true,
  reset: () => undefined,
  stop: () => undefined,
  abort: () => undefined,
  pause: () => undefined
})

describe("a count of flows", () => {
  it("counts a flow from its Open to its end", () => {
    let now = 5
    const count = new FlowCount(() => now)
    assert.deepStrictEqual([count.flows, count.lastAt], [0, 5])
    now = 6
    const cancel = count.open({ openStream: silent }, WEB, () => assert.fail("nothing answers"))
    assert.deepStrictEqual([count.flows, count.lastAt], [1, 6])
    now = 7
    cancel()
    assert.deepStrictEqual([count.flows, count.lastAt], [0, 7])
  })

  it("does not count a flow that is rejected", () => {
    const count = new FlowCount(() => 0)
    const answers: Array<string> = []
    count.open(NO_STREAM, WEB, ({ _tag }) => void answers.push(`${_tag} of ${count.flows}`))
    assert.deepStrictEqual(answers, ["Rejected of 0"])
  })

  it("is used by what is not counted", () => {
    let now = 0
    const count = new FlowCount(() => now)
    now = 9
    count.touch()
    assert.deepStrictEqual([count.flows, count.lastAt], [0, 9])
  })
})
