import { describe, expect, it } from "vitest"
import { direct, keyOf, RELAY } from "../../src/protocol/path/PathRef.ts"
import { RELAY_SLOT, Slots } from "../../src/transport/plane/Slots.ts"

const at = (port: number) => direct({ host: "198.51.100.1", port })

describe("Slots", () => {
  it("gives a path a slot, never the one in use", () => {
    const slots = new Slots()
    const taken = [1, 2, 3, 4, 5, 6, 7].map((port) => slots.take(at(port), RELAY_SLOT).slot)
    expect(new Set(taken).size).toBe(7)
    expect(slots.take(at(3), RELAY_SLOT)).toEqual({ slot: taken[2], fresh: false, evicted: null })
    expect(slots.take(at(8), taken[0]!)).toEqual({ slot: taken[1], fresh: true, evicted: at(2) })
    expect(slots.slotOf(keyOf(at(2)))).toBe(-1)
    expect(slots.pathOf(RELAY_SLOT)).toEqual(RELAY)
  })

  it("puts another path under a slot in use", () => {
    const slots = new Slots()
    const inUse = slots.take(at(1), RELAY_SLOT).slot
    const other = slots.take(at(2), inUse).slot
    expect(slots.repoint(inUse, at(2))).toEqual(at(1))
    expect(slots.slotOf(keyOf(at(2)))).toBe(inUse)
    expect(slots.slotOf(keyOf(at(1)))).toBe(-1)
    expect(slots.pathOf(other)).toBeNull()
    expect(slots.otherPaths()).toEqual([at(2)])
    expect(slots.take(at(3), inUse)).toEqual({ slot: other, fresh: true, evicted: null })
  })
})
