/** Which connector the relay invites first. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Mailbox } from "effect"
import type { Link } from "../../src/actors/hub/Board.ts"
import { ConnectorOrder } from "../../src/actors/hub/ConnectorOrder.ts"
import type { SignalingEvent } from "../../src/actors/signaling/RelaySignalingRpcs.ts"
import type { NodeKey } from "../../src/protocol/trust/NodeKey.ts"

const linkOf = (name: string): Link => ({
  member: { key: name as NodeKey, name, shown: name, role: "connector", network: "default" },
  isBrowser: false,
  since: 0,
  events: Effect.runSync(Mailbox.make<SignalingEvent>()),
  cut: () => undefined
})

const [A, B, C, D] = ["a", "b", "c", "d"].map(linkOf) as [Link, Link, Link, Link]

/** The names in order. `loads` are the numbers of sessions, 0 where there is none. */
const setup = (loads: Readonly<Record<string, number>> = {}) => {
  const order = new ConnectorOrder((key) => loads[key] ?? 0)
  const sorted = (links: ReadonlyArray<Link>, now: number, isBrowser = false) =>
    order.sort(links, isBrowser, now).map(({ member }) => member.name).join("")
  return { order, sorted }
}

describe("the order of invitations", () => {
  it("prefers the freer one of the first two", () => {
    const { sorted } = setup({ a: 5, b: 4, c: 0, d: 4 })
    assert.strictEqual(sorted([A, B, C, D], 0), "bacd")
    assert.strictEqual(sorted([B, D, A], 0), "bda", "equal ones stay as they are")
    assert.strictEqual(sorted([A], 0), "a")
    assert.strictEqual(sorted([], 0), "")
  })

  it("loads connectors more evenly than chance alone", () => {
    const loads = { a: 0, b: 0, c: 0, d: 0 }
    const { order } = setup(loads)
    let seed = 1
    const random = () => (seed = (seed * 48_271) % 2_147_483_647) / 2_147_483_647
    for (let session = 0; session < 1_000; session++) {
      const shuffled = [A, B, C, D].map((link) => ({ link, at: random() })).toSorted((one, two) => one.at - two.at)
      const [first] = order.sort(shuffled.map(({ link }) => link), false, 0)
      loads[first!.member.name as keyof typeof loads]++
    }
    const all = Object.values(loads)
    assert.isAtMost(Math.max(...all) - Math.min(...all), 6)
  })

  it("puts connectors that did not answer last for 30 s", () => {
    const { order, sorted } = setup({ b: 9 })
    order.onSilent(A, 0)
    assert.strictEqual(sorted([A, B, C], 29_999), "cba")
    assert.strictEqual(sorted([A, B], 29_999), "ba")
    assert.strictEqual(sorted([A, B], 30_000), "ab")
    order.onSilent(A, 40_000)
    order.onHeard(A)
    assert.strictEqual(sorted([A, B], 40_000), "ab")
  })

  it("puts connectors that declined last for 10 s", () => {
    const { order, sorted } = setup()
    order.onAnswer(A, false, false, 0)
    order.onSilent(B, 0)
    assert.strictEqual(sorted([B, A, C], 9_999), "cab", "silent ones cost more")
    assert.strictEqual(sorted([A, C], 10_000), "ac")
    order.onAnswer(A, false, false, 20_000)
    order.onAnswer(A, false, true, 20_001)
    assert.strictEqual(sorted([A, C], 20_001), "ac", "it takes sessions again")
  })

  it("tells browsers from nodes", () => {
    const { order, sorted } = setup()
    order.onAnswer(A, true, false, 0)
    assert.strictEqual(sorted([A, B], 0, true), "ba")
    assert.strictEqual(sorted([A, B], 0), "ab")
  })
})
