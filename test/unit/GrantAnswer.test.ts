/** What a connector answers to a grant from its client. */
import { Either } from "effect"
import { assert, describe, it } from "vitest"
import type { Grant } from "../../src/protocol/trust/Documents.ts"
import * as Signed from "../../src/protocol/trust/Signed.ts"
import * as GrantAnswer from "../../src/session/core/GrantAnswer.ts"

const BYTES = Signed.toBytes({ payload: new Uint8Array([1, 2]), signature: new Uint8Array(64) })
const grant = { id: "g1" } as Grant

describe("a connector's answer to a grant", () => {
  it("names the grant that it has taken", () => {
    const taken: Array<number> = []
    const answer = GrantAnswer.answer(BYTES, {
      open: () => Either.right(grant),
      take: (_, { payload }) => taken.push(payload.length) > 0
    })
    assert.deepStrictEqual(answer, { _tag: "GrantAck", id: "g1" })
    assert.deepStrictEqual(taken, [2])
  })

  it("says why it refuses", () => {
    const never = () => assert.fail("not to be taken")
    const refused = GrantAnswer.answer(BYTES, { open: () => Either.left("forged"), take: never })
    assert.deepStrictEqual(refused, { _tag: "GrantRefused", reason: "forged" })
    const foreign = GrantAnswer.answer(BYTES, { open: () => Either.right(grant), take: () => false })
    assert.deepStrictEqual(foreign, { _tag: "GrantRefused", reason: "for others" })
    const bad = GrantAnswer.answer(new Uint8Array(0), { open: never, take: never })
    assert.strictEqual(bad._tag, "GrantRefused")
  })
})
