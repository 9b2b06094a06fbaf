import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import * as NatDiscovery from "../../src/protocol/nat/NatDiscovery.ts"
import type { Dependence } from "../../src/protocol/nat/NatReport.ts"
import * as NatReport from "../../src/protocol/nat/NatReport.ts"
import * as PortPattern from "../../src/protocol/nat/PortPattern.ts"
import * as Stun from "../../src/protocol/nat/Stun.ts"
import { run, SERVER } from "../sim/NatWorld.ts"
import type { Allocation, Nat } from "../sim/world/Translator.ts"
import { runs } from "../support/Runs.ts"

const KINDS: ReadonlyArray<Dependence> = NatReport.Dependence.literals
const allocation: fc.Arbitrary<Allocation> = fc.oneof(
  fc.constantFrom<Allocation>({ kind: "preserving" }, { kind: "random" }),
  fc.constantFrom(-2, -1, 1, 2, 3, 7).map((delta): Allocation => ({ kind: "sequential", delta }))
)
const CONE: Nat = {
  mapping: "endpoint-independent",
  filtering: "address-and-port-dependent",
  allocation: { kind: "random" },
  hairpin: false,
  pool: 1
}

describe("NatDiscovery", () => {
  for (const mapping of KINDS) {
    for (const filtering of KINDS) {
      it(`names mapping ${mapping} with filtering ${filtering} for any ports`, () =>
        fc.assert(
          fc.property(
            allocation,
            fc.boolean(),
            fc.integer({ min: 1, max: 900 }),
            fc.nat(),
            (allocation, hairpin, rttMs, seed) => {
              const nat = { mapping, filtering, allocation, hairpin, pool: 1 }
              const { report } = run({ nat, server: "two addresses", rttMs, seed })
              assert.strictEqual(report.udp, "works")
              assert.isTrue(report.translated)
              assert.deepStrictEqual(report.mapping, { value: mapping, reason: null })
              assert.deepStrictEqual(report.filtering, { value: filtering, reason: null })
              assert.strictEqual(report.ports.value, allocation.kind)
              assert.strictEqual(report.ports.delta, allocation.kind === "sequential" ? allocation.delta : null)
              assert.approximately(report.rttMs!, rttMs, 0.001)
              const { value } = report.hairpin
              if (hairpin && mapping === "endpoint-independent") assert.strictEqual(value, "works")
              else if (!hairpin) assert.strictEqual(value, mapping === "endpoint-independent" ? "fails" : "unknown")
            }
          ),
          { numRuns: runs(40) }
        ))
    }
  }

  for (const filtering of KINDS) {
    it(`tells a public address with filtering ${filtering} from a NAT`, () => {
      const { report } = run({ nat: null, firewall: filtering, server: "two addresses" })
      assert.isFalse(report.translated)
      assert.strictEqual(report.mapping.value, "endpoint-independent")
      assert.strictEqual(report.filtering.value, filtering)
      assert.strictEqual(report.hairpin.value, "not-needed")
      assert.strictEqual(report.ports.value, "preserving")
    })
  }

  it("uses two ports of one address, leaves the rest unknown", () => {
    const reports = KINDS.flatMap((kind) => {
      const nat = { ...CONE, mapping: kind, filtering: kind }
      const { report: { filtering, mapping } } = run({ nat, server: "two ports" })
      return [[mapping.value, filtering.value]]
    })
    assert.deepStrictEqual(reports, [
      ["unknown", "unknown"],
      ["unknown", "unknown"],
      ["address-and-port-dependent", "address-and-port-dependent"]
    ])
    const { report } = run({ nat: { ...CONE, filtering: "address-dependent" }, server: "two ports" })
    assert.match(report.mapping.reason!, /endpoint-independent or address-dependent.*no second address/)
    assert.match(report.filtering.reason!, /endpoint-independent or address-dependent.*no second address/)
  })

  it("does not mistake a silent address for a filter", () =>
    fc.assert(fc.property(fc.constantFrom(...KINDS), fc.constantFrom(...KINDS), (mapping, filtering) => {
      const { report } = run({ nat: { ...CONE, mapping, filtering }, server: "two addresses", deadAddress: true })
      const told = (kind: Dependence) => kind === "address-and-port-dependent" ? kind : "unknown"
      assert.strictEqual(report.mapping.value, told(mapping))
      assert.strictEqual(report.filtering.value, told(filtering))
    })))

  it("reports unknown behaviour with a plain STUN server", () => {
    const { report } = run({ nat: CONE, server: "plain" })
    assert.deepStrictEqual([report.mapping.value, report.filtering.value], ["unknown", "unknown"])
    assert.strictEqual(report.mapping.reason, "the server announces no second address or port")
    assert.strictEqual(report.ports.value, "random")
  })

  it("is never wrong when every other packet is lost", () =>
    fc.assert(
      fc.property(
        fc.constantFrom(...KINDS),
        fc.constantFrom(...KINDS),
        fc.integer({ min: 3, max: 7 }),
        (mapping, filtering, n) => {
          const { report } = run({
            nat: { ...CONE, mapping, filtering },
            server: "two addresses",
            lose: (i) => i % n === 0
          })
          assert.include([mapping, "unknown"], report.mapping.value)
          assert.include([filtering, "unknown"], report.filtering.value)
        }
      ),
      { numRuns: runs(60) }
    ))

  it("says after 3 s that UDP is blocked", () => {
    const { ms, report, sends } = run({ nat: CONE, server: "two addresses", lose: () => true })
    assert.deepStrictEqual([report.udp, report.mapped, report.rttMs], ["blocked", null, null])
    assert.strictEqual(ms, 3000)
    assert.strictEqual(sends, 10)
  })

  /** What is reported when each question is answered, once, by the datagrams that `answers` makes of it. */
  const answered = (answers: (send: NatDiscovery.Send, txId: Uint8Array) => ReadonlyArray<NatDiscovery.Send>) => {
    let id = 0
    const discovery = new NatDiscovery.NatDiscovery({
      server: SERVER,
      localHost: null,
      localPorts: Array.from({ length: NatDiscovery.SOCKETS }, (_, i) => 40_000 + i),
      newTxId: () => new Uint8Array(12).fill(++id),
      now: 0
    })
    for (const send of discovery.poll(0).sends) {
      for (const { bytes, socket, to } of answers(send, send.bytes.slice(8, 20))) {
        discovery.onDatagram(socket, to, bytes, 5)
      }
    }
    for (let now = 100;; now += 100) {
      const { report } = discovery.poll(now)
      if (report !== null) return report
    }
  }

  it("does not mistake a refusing server for blocked UDP", () => {
    const report = answered((send, txId) => [{ ...send, bytes: Stun.encodeError({ txId, code: 400 }) }])
    assert.strictEqual(report.udp, "works")
    assert.deepStrictEqual(report.mapping, { value: "unknown", reason: "the server answers with an error" })
    assert.strictEqual(NatReport.make("x", [report]).direct.expected, "unknown")
  })

  it("accepts answers only from the server, with the right transaction", () => {
    const mapped = { host: "198.51.100.2", port: 5 }
    const right = (send: NatDiscovery.Send, txId: Uint8Array) => ({
      ...send,
      bytes: Stun.encodeSuccess({ txId, mapped })
    })
    assert.strictEqual(answered((send, txId) => [right(send, txId)]).udp, "works")
    const report = answered((send, txId) => [
      { ...right(send, txId), to: { ...SERVER, port: 1 } },
      { ...right(send, txId), to: { ...SERVER, host: "192.0.2.66" } },
      { ...right(send, txId), socket: 5 },
      right(send, new Uint8Array(12)),
      { ...send, bytes: new Uint8Array([1, 2, 3]) }
    ])
    assert.strictEqual(report.udp, "blocked")
  })

  it("tells all outside addresses, and how ports go on each", () => {
    for (const kind of ["preserving", "random"] as const) {
      const { report } = run({ nat: { ...CONE, allocation: { kind }, pool: 4 }, server: "two addresses" })
      assert.lengthOf(report.publicHosts, 4)
      assert.strictEqual(report.ports.value, kind)
    }
  })

  it("needs less than 40 packets for a known NAT", () => {
    const { ms, sends } = run({ nat: CONE, server: "two addresses", rttMs: 40 })
    assert.isAtMost(sends, 40)
    assert.isAtMost(ms, 2500)
  })
})

describe("PortPattern", () => {
  const at = (host: string) => (port: number, index: number) => ({ local: 40_000 + index, mapped: { host, port } })
  const one = at("198.51.100.2")
  const CASES: ReadonlyArray<
    readonly [what: string, ports: ReadonlyArray<number>, value: string, delta: number | null]
  > = [
    ["too few", [1, 2, 3], "unknown", null],
    ["a port that was taken", [40_000, 40_001, 40_002, 1024, 40_004], "preserving", null],
    ["as many kept as not", [40_000, 40_001, 1024, 7000], "unknown", null],
    ["a counter", [5000, 5001, 5002, 5003], "sequential", 1],
    ["a counter of even ports", [5000, 5002, 5004, 5006], "sequential", 2],
    ["a counter that others use, too", [5000, 5002, 5003, 5007, 5008], "sequential", 1],
    ["a counter at its end", [65_533, 65_534, 65_535, 1024, 1025], "sequential", 1],
    ["a counter over the top", [65_534, 65_535, 0, 1, 2], "sequential", 1],
    ["a small range at random", [2010, 2003, 2050, 2049, 2013], "random", null],
    ["chance", [1000, 60_000, 30_000, 5, 44_000], "random", null],
    ["two jumps", [5000, 5001, 9000, 9001, 13_000, 13_001, 13_002], "random", null]
  ]
  for (const [what, ports, value, delta] of CASES) {
    it(`${what}: ${value}`, () => {
      const found = PortPattern.of(ports.map((port, index) => one(port, index)))
      assert.deepStrictEqual([found.value, found.delta], [value, delta])
      assert.strictEqual(found.reason === null, value !== "unknown")
    })
  }

  it("does not judge ports that are all at different addresses", () => {
    const samples = [1000, 2000, 3000, 4000].map((port, index) => at(`198.51.100.${index}`)(port, index))
    assert.strictEqual(PortPattern.of(samples).value, "unknown")
  })

  it("takes random ports for random", () =>
    fc.assert(fc.property(fc.array(fc.integer({ min: 1024, max: 65_535 }), { minLength: 8, maxLength: 8 }), (ports) => {
      fc.pre(ports.filter((port, index) => index > 0 && Math.abs(port - ports[index - 1]!) <= 64).length < 3)
      assert.strictEqual(PortPattern.of(ports.map((port, index) => one(port, index))).value, "random")
    })))
})

describe("NatReport", () => {
  const direct = (world: Parameters<typeof run>[0]) => NatReport.make("relay", [run(world).report]).direct
  it("expects direct paths by what was found", () => {
    const server = "two addresses" as const
    const EXPECTED: ReadonlyArray<readonly [Dependence, Dependence, string]> = [
      ["endpoint-independent", "endpoint-independent", "yes"],
      ["endpoint-independent", "address-dependent", "yes"],
      ["endpoint-independent", "address-and-port-dependent", "likely"],
      ["address-dependent", "endpoint-independent", "sometimes"],
      ["address-and-port-dependent", "address-and-port-dependent", "sometimes"]
    ]
    for (const [mapping, filtering, expected] of EXPECTED) {
      assert.strictEqual(direct({ nat: { ...CONE, mapping, filtering }, server }).expected, expected)
    }
    assert.strictEqual(direct({ nat: CONE, server: "plain" }).expected, "unknown")
    assert.strictEqual(direct({ nat: CONE, server, lose: () => true }).expected, "no")
  })
})
