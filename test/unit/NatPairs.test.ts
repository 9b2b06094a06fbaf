import { assert, describe, it } from "@effect/vitest"
import * as NatPairs from "../natlab/NatPairs.ts"

const reach = (client: NatPairs.Side, connector: NatPairs.Side) => NatPairs.expected({ client, connector })

describe("the reference model of NAT pairs", () => {
  it("expects direct paths between all endpoint-independent mappings", () => {
    const sides = [
      "none",
      "firewall",
      "full-cone",
      "addr-restricted",
      "port-restricted",
      "eim-apdf",
      "cgn",
      "v6-firewall"
    ] as const
    for (const client of sides) for (const connector of sides) assert.strictEqual(reach(client, connector), "direct")
    assert.strictEqual(reach("same-nat", "same-nat"), "direct")
  })

  it("expects guessing where a symmetric side's port matters", () => {
    for (const open of ["none", "full-cone", "addr-restricted"] as const) {
      assert.strictEqual(reach("symmetric", open), "direct")
    }
    for (const closed of ["firewall", "port-restricted", "eim-apdf"] as const) {
      assert.strictEqual(reach("symmetric", closed), "guess")
    }
    assert.strictEqual(reach("cgn", "symmetric"), "guess")
  })

  it("leaves a pool of addresses to chance", () => {
    for (const open of ["none", "full-cone"] as const) assert.strictEqual(reach("symmetric-pool", open), "direct")
    for (const closed of ["firewall", "addr-restricted", "port-restricted", "eim-apdf"] as const) {
      assert.strictEqual(reach("symmetric-pool", closed), "chance")
    }
  })

  it("expects nothing if both ports are unknown or UDP fails", () => {
    const symmetric = ["symmetric", "symmetric-pool"] as const
    for (const client of symmetric) {
      for (const connector of symmetric) assert.strictEqual(reach(client, connector), "relay")
    }
    for (const pair of NatPairs.all) {
      if (/udp-blocked|tcp443/.test(NatPairs.nameOf(pair))) assert.strictEqual(NatPairs.expected(pair), "relay")
    }
  })

  it("is the same from both ends", () => {
    for (const { client, connector } of NatPairs.all) {
      assert.strictEqual(reach(client, connector), reach(connector, client))
    }
  })

  it("fails for a relayed path where direct is expected", () => {
    assert.isFalse(NatPairs.isMet("direct", "relay-udp"))
    assert.isFalse(NatPairs.isMet("relay", "none"))
    for (const expected of ["guess", "chance", "relay"] as const) {
      assert.isTrue(NatPairs.isMet(expected, "relay-udp"))
      assert.isTrue(NatPairs.isMet(expected, "direct"))
    }
  })

  it("knows pairs by name, and by a star", () => {
    assert.lengthOf(NatPairs.all, 10 * 10 + 10 + 2)
    assert.deepStrictEqual(NatPairs.parse("none×symmetric"), {
      pairs: [{ client: "none", connector: "symmetric" }],
      unknown: []
    })
    assert.lengthOf(NatPairs.parse("tcp443x*, nonexnone,*×*").pairs, NatPairs.all.length)
    assert.lengthOf(NatPairs.parse("symmetric×*").pairs, 10)
    assert.deepStrictEqual(NatPairs.parse("none×nothing,none×cgn").unknown, ["none×nothing", "none×cgn"])
  })
})
