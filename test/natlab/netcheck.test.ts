import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { afterAll, beforeAll } from "vitest"
import * as Lab from "./Lab.ts"
import * as NetcheckLab from "./NetcheckLab.ts"

const EI = "endpoint-independent"
const AD = "address-dependent"
const APD = "address-and-port-dependent"
const GATEWAY = "198.51.100.2"

type Found = {
  readonly host: string
  readonly mapping: string
  readonly filtering: string
  readonly hairpin: string
  readonly ports: string
  readonly direct: string
}
const found = (
  host: string,
  mapping: string,
  filtering: string,
  hairpin: string,
  ports: string,
  direct: string
): Found => ({ host, mapping, filtering, hairpin, ports, direct })

const CASES: ReadonlyArray<readonly [Lab.Nat, Found]> = [
  ["none", found("198.18.1.10", EI, EI, "not-needed", "preserving", "yes")],
  ["firewall", found("198.18.1.10", EI, APD, "not-needed", "preserving", "likely")],
  ["full-cone", found(GATEWAY, EI, EI, "works", "preserving", "yes")],
  ["addr-restricted", found(GATEWAY, EI, AD, "works", "preserving", "yes")],
  ["port-restricted", found(GATEWAY, EI, APD, "fails", "preserving", "likely")],
  ["eim-apdf", found(GATEWAY, EI, APD, "works", "random", "likely")],
  ["symmetric", found(GATEWAY, APD, APD, "unknown", "random", "sometimes")],
  ["symmetric-pool", found("198.51.100.2 to .5", APD, APD, "unknown", "random", "sometimes")]
]

type Report = Effect.Effect.Success<ReturnType<NetcheckLab.NetcheckLab["netcheck"]>>
const short = ({ direct, filtering, hairpin, mapped, mapping, ports }: Report): Found =>
  found(mapped?.host ?? "none", mapping.value, filtering.value, hairpin.value, ports.value, direct.expected)

describe.skipIf(!Lab.isPossible)("netcheck behind real NATs", () => {
  const scope = Effect.runSync(Scope.make())
  let lab: NetcheckLab.NetcheckLab
  beforeAll(async () => {
    lab = await Effect.runPromise(Scope.extend(NetcheckLab.make(), scope))
  })
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  const { hasCoturn } = NetcheckLab
  for (const [nat, expected] of CASES) {
    it.live(`names ${nat}${hasCoturn ? ", as coturn does" : ""}`, () =>
      Effect.gen(function*() {
        yield* lab.setNat(nat)
        const [ours, theirServer, theirClient] = yield* Effect.all([
          lab.netcheck("relay"),
          hasCoturn ? lab.netcheck("coturn") : Effect.succeed(null),
          hasCoturn ? lab.independent : Effect.succeed(null)
        ], { concurrency: 3 })
        const host = expected.host.includes("to") ? ours.mapped!.host : expected.host
        assert.match(host, /^198\.(18\.1\.10|51\.100\.[2-5])$/)
        assert.deepStrictEqual(short(ours), { ...expected, host })
        assert.strictEqual(ours.translated, expected.hairpin !== "not-needed")
        assert.isNotNull(ours.rttMs)
        const { filtering, mapping } = expected
        if (theirClient !== null) assert.deepStrictEqual(theirClient, { mapping, filtering })
        if (theirServer !== null) {
          assert.deepStrictEqual({ ...short(theirServer), host }, { ...expected, host })
        }
      }))
  }

  it.live("tells a network without UDP, in a table for people", () =>
    Effect.gen(function*() {
      yield* lab.setNat("udp-blocked")
      const lines = (yield* lab.table).split("\n")
      assert.match(lines[0] ?? "", /^203\.0\.113\.10:3478 +IPV4$/)
      assert.match(lines[1] ?? "", /^UDP +blocked$/)
      assert.match(lines.at(-2) ?? "", /^Direct paths: no\./)
    }))

  for (
    const [cgn, mapping, ports, direct] of [
      ["eim-apdf", EI, "random", "likely"],
      ["symmetric", APD, "random", "sometimes"]
    ] as const
  ) {
    it.scopedLive(`sees through a home router to the provider's ${cgn}`, () =>
      Effect.gen(function*() {
        const lab = yield* NetcheckLab.make({ cgn })
        const report = yield* lab.netcheck("relay")
        assert.strictEqual(report.mapped?.host, GATEWAY)
        assert.deepStrictEqual(
          [report.mapping.value, report.filtering.value, report.ports.value, report.direct.expected],
          [mapping, APD, ports, direct]
        )
      }))
  }

  it.scopedLive("asks a running client whose relay has one address", () =>
    Lab.use({ clientNat: "symmetric" }, (lab) =>
      Effect.gen(function*() {
        const { ipv4 } = JSON.parse(yield* lab.client("netcheck", "--json")) as { ipv4: Report }
        assert.deepStrictEqual([ipv4.udp, ipv4.mapping.value, ipv4.filtering.value], ["works", APD, APD])
        yield* lab.net("nat", "client", "full-cone")
        const cone = JSON.parse(yield* lab.client("netcheck", "--json")) as { ipv4: Report }
        assert.deepStrictEqual([cone.ipv4.mapping.value, cone.ipv4.filtering.value], ["unknown", "unknown"])
        assert.match(cone.ipv4.mapping.reason ?? "", /no second address/)
      })))
})
