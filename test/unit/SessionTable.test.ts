/** The table of sessions that nodes, connectors of browsers and pages have. */
import { assert, describe, it } from "vitest"
import { SessionTable } from "../../src/session/core/SessionTable.ts"

const table = (...ids: ReadonlyArray<string>) => {
  const sessions = new SessionTable<string>(2)
  for (const id of ids) sessions.add(id, id.toUpperCase())
  return sessions
}

describe("a table of sessions", () => {
  it("is full at its limit", () => {
    const sessions = table("a")
    assert.isFalse(sessions.isFull)
    sessions.add("b", "B")
    assert.isTrue(sessions.isFull)
    assert.strictEqual(sessions.remove("a"), "A")
    assert.isUndefined(sessions.remove("a"))
    assert.deepStrictEqual([sessions.isFull, sessions.size, sessions.has("a")], [false, 1, false])
  })

  it("finds the oldest session that fits", () => {
    assert.strictEqual(table("b", "a").find(() => true), "B")
    assert.isUndefined(table("a").find(() => false))
  })

  it("ignores a session that ends while it iterates", () => {
    const sessions = table("a", "b")
    const seen: Array<string> = []
    for (const entry of sessions) {
      seen.push(entry)
      sessions.remove("b")
    }
    assert.deepStrictEqual([seen, sessions.all()], [["A"], ["A"]])
  })
})
