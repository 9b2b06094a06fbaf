import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import * as Candidate from "../../src/protocol/candidate/Candidate.ts"
import * as CandidateChoice from "../../src/protocol/candidate/CandidateChoice.ts"

const PORT = 41_641
type Use = Candidate.Origin["use"]
const host = (address: string, use: Use, index = 0) =>
  Candidate.make("host", { host: address, port: PORT }, { index, origin: { use, interface: "if0" } })
const seen = (address: string, port = 9_000) => Candidate.make("srflx", { host: address, port })
const times = <A>(count: number, make: (i: number) => A): ReadonlyArray<A> =>
  Array.from({ length: count }, (_, i) => make(i))
const choose = (found: ReadonlyArray<Candidate.Candidate>, allowLoopback = false) => {
  const { candidates, leftOut } = CandidateChoice.choose(found, { allowLoopback })
  const hostsOf = (list: ReadonlyArray<Candidate.Candidate>) => list.map(({ address }) => address.host)
  return { candidates: hostsOf(candidates), leftOut: hostsOf(leftOut) }
}

const BRIDGES = times(20, (i) => host(i < 14 ? `172.${17 + i}.0.1` : `192.168.${i}.1`, "virtual", i))
const TEMPORARY = times(30, (i) => host(`2001:db8:1:1::${(i + 0x1000).toString(16)}`, "lan", i))

describe("the choice of candidates", () => {
  it("offers the default route and reflexive addresses beside many bridges", () => {
    const { candidates, leftOut } = choose([...BRIDGES, host("10.0.0.2", "outward", 20), seen("198.51.100.7")])
    expect(candidates.slice(0, 2)).toEqual(["10.0.0.2", "198.51.100.7"])
    expect(candidates).toHaveLength(2 + CandidateChoice.MAX_VIRTUAL)
    expect(leftOut).toHaveLength(BRIDGES.length - CandidateChoice.MAX_VIRTUAL)
  })

  it("offers two addresses of a /64 at most", () => {
    const out = host("2001:db8:1:1::abcd", "outward")
    const other = host("2001:db8:1:2::1", "lan")
    const { candidates } = choose([...TEMPORARY, host("10.0.0.2", "outward"), out, other, seen("198.51.100.7")])
    expect(new Set(candidates)).toEqual(
      new Set(["10.0.0.2", "2001:db8:1:1::abcd", "2001:db8:1:1::1000", "2001:db8:1:2::1", "198.51.100.7"])
    )
  })

  it("keeps room for each kind when all are many", () => {
    const { candidates } = choose([
      ...BRIDGES,
      ...times(20, (i) => host(`10.9.${i}.1`, "preferred")),
      ...times(20, (i) => host(`10.8.${i}.1`, "lan")),
      ...times(20, (i) => host(`2001:db8:2:${i}::1`, "lan")),
      ...times(20, (i) => seen("198.51.100.7", 9_000 + i)),
      seen("2001:db8:9::7"),
      Candidate.make("port-mapped", { host: "198.51.100.7", port: PORT }),
      Candidate.make("port-mapped", { host: "203.0.113.9", port: PORT }, { origin: { use: "static" } }),
      host("10.0.0.2", "outward"),
      host("2001:db8:1:1::abcd", "outward")
    ])
    expect(candidates).toHaveLength(Candidate.MAX_CANDIDATES)
    for (
      const one of ["10.0.0.2", "2001:db8:1:1::abcd", "203.0.113.9", "2001:db8:9::7", "10.9.0.1", "2001:db8:2:0::1"]
    ) {
      expect(candidates).toContain(Candidate.canonical(one))
    }
    expect(candidates.filter((it) => it === "198.51.100.7")).toHaveLength(CandidateChoice.MAX_REFLEXIVE)
    expect(candidates.filter((it) => it.startsWith("172."))).toEqual([])
  })

  it("reports tunnels and excluded interfaces as left out", () => {
    const { candidates, leftOut } = choose([
      host("10.77.0.1", "tunnel"),
      host("10.0.0.9", "excluded"),
      host("10.0.0.2", "lan")
    ])
    expect(candidates).toEqual(["10.0.0.2"])
    expect(leftOut).toEqual(["10.77.0.1", "10.0.0.9"])
  })

  it("offers loopback beside bridges only where it is allowed", () => {
    const found = [...BRIDGES, host("127.0.0.1", "loopback")]
    expect(choose(found, true).candidates).toContain("127.0.0.1")
    const { candidates, leftOut } = choose(found)
    expect([...candidates, ...leftOut]).not.toContain("127.0.0.1")
  })

  it("ranks bridges below reflexive addresses", () => {
    const bridge = host("172.17.0.1", "virtual")
    expect(bridge.priority).toBeLessThan(seen("198.51.100.7").priority)
    expect(host("10.0.0.2", "lan").priority).toBeGreaterThan(seen("198.51.100.7").priority)
  })

  it("never exceeds the list, and always offers the default route", () => {
    const use = fc.constantFrom<Use>("preferred", "lan", "virtual", "tunnel", "excluded", "static")
    const kind = fc.constantFrom<Candidate.Kind>("host", "srflx", "port-mapped")
    const address = fc.oneof(fc.ipV4(), fc.ipV6(), fc.nat({ max: 40 }).map((i) => `2001:db8::${i.toString(16)}`))
    const any = fc.record({ kind, use, address }).map((it) =>
      Candidate.make(it.kind, { host: it.address, port: PORT }, { origin: { use: it.use } })
    )
    fc.assert(fc.property(fc.array(any, { maxLength: 200 }), (found) => {
      const { candidates, leftOut } = choose([...found, host("192.0.2.77", "outward")])
      expect(candidates.length).toBeLessThanOrEqual(Candidate.MAX_CANDIDATES)
      expect(leftOut.length).toBeLessThanOrEqual(CandidateChoice.MAX_LEFT_OUT)
      expect(new Set(candidates).size).toBe(candidates.length)
      expect(candidates).toContain("192.0.2.77")
    }))
  })
})
