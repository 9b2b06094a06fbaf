import { FastCheck as fc } from "effect"
import { describe, expect, it } from "vitest"
import { SEAL_BYTES } from "../../src/protocol/path/PathMessage.ts"
import { BASE_BYTES, CONFIRM_MS, MAX_PROBES, PathMtu, RAISE_MS, SIZES } from "../../src/protocol/path/PathMtu.ts"
import { OVERHEAD_BYTES } from "../../src/transport/probe/ProbeSeal.ts"

const PATIENCE_MS = 300

/** Probes as often as it wants from `from` to `until`, over a path that carries `mtu`. Answers with the sizes sent. */
const search = (it: PathMtu, mtu: number, from: number, until: number) => {
  const sent: Array<number> = []
  for (let now = from; now <= until; now += 50) {
    it.settle(now)
    const bytes = it.due(now)
    if (bytes === null) continue
    sent.push(bytes)
    it.onSent(String(now), now, PATIENCE_MS)
    if (bytes <= mtu) it.onPong(String(now), now + 10)
  }
  return sent
}

describe("path MTU discovery", () => {
  it("counts what sealing adds as the data plane does", () => {
    expect(SEAL_BYTES).toBe(OVERHEAD_BYTES)
  })

  it("finds the largest size, asking three times", () => {
    for (const [index, mtu] of SIZES.entries()) {
      const it = new PathMtu()
      const sent = search(it, mtu, 0, 1_900)
      expect(it.bytes).toBe(mtu)
      const larger = SIZES[index + 1]
      expect(sent.filter((bytes) => bytes === larger)).toHaveLength(larger === undefined ? 0 : MAX_PROBES)
    }
  })

  it("tries larger sizes again after ten minutes", () => {
    const it = new PathMtu()
    search(it, 1350, 0, 2_000)
    const sent = search(it, 1350, 2_050, RAISE_MS - 10_000)
    expect(new Set(sent)).toEqual(new Set([1350]))
    expect(sent.length).toBeLessThanOrEqual(RAISE_MS / CONFIRM_MS)
    search(it, 1440, RAISE_MS - 9_950, RAISE_MS + 3_000)
    expect(it.bytes).toBe(1440)
  })

  it("returns to the base when a size stops working", () => {
    const it = new PathMtu()
    search(it, 1440, 0, 1_000)
    search(it, BASE_BYTES, 1_050, 1_000 + CONFIRM_MS + (MAX_PROBES + 1) * (PATIENCE_MS + 50))
    expect(it.bytes).toBe(BASE_BYTES)
  })

  it("keeps the size through two lost probes", () => {
    const it = new PathMtu()
    search(it, 1440, 0, 1_000)
    let now = 1_000 + CONFIRM_MS
    for (let lost = 0; lost < MAX_PROBES - 1; lost++) {
      expect(it.due(now)).toBe(1440)
      it.onSent(`lost ${lost}`, now, PATIENCE_MS)
      expect(it.onPong("another", now)).toBe(false)
      now += PATIENCE_MS
      it.settle(now)
    }
    expect(it.bytes).toBe(1440)
    search(it, 1440, now, now + 500)
    expect(it.bytes).toBe(1440)
  })

  it("never has two probes open, nor an unproved size", () => {
    fc.assert(fc.property(fc.array(fc.tuple(fc.integer({ min: 1, max: 3_000 }), fc.boolean(), fc.nat(9))), (steps) => {
      const it = new PathMtu()
      const answered = new Set([BASE_BYTES])
      let now = 0
      let open: { id: string; bytes: number } | null = null
      for (const [wait, answers, chance] of steps) {
        now += wait
        if (now >= it.lostAt()) open = null
        it.settle(now)
        const bytes = it.due(now)
        if (bytes !== null) {
          expect(open).toBeNull()
          open = { id: String(now), bytes }
          it.onSent(open.id, now, PATIENCE_MS)
        }
        if (answers && open !== null) {
          answered.add(open.bytes)
          expect(it.onPong(open.id, now)).toBe(true)
          open = null
        }
        if (chance === 0) {
          it.reset()
          answered.clear()
          answered.add(BASE_BYTES)
          open = null
        }
        expect(answered).toContain(it.bytes)
      }
    }))
  })
})
