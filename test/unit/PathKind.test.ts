import { readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, expectTypeOf, it } from "vitest"
import { MuxMetrics } from "../../src/actors/mux/MuxMetrics.ts"
import * as SessionWire from "../../src/protocol/flow/SessionWire.ts"
import * as PathKind from "../../src/protocol/path/PathKind.ts"
import { direct, RELAY, viaRelay, WEBRTC } from "../../src/protocol/path/PathRef.ts"
import { biasMs } from "../../src/protocol/path/PathScore.ts"
import * as RelayWire from "../../src/protocol/relay/RelayWire.ts"
import { diagnose } from "../../src/services/telemetry/Doctor.ts"
import { type Leg, PacketRouter } from "../../src/transport/plane/PacketRouter.ts"

const rows = Object.values(PathKind.TABLE)
const doc = (name: string): string => readFileSync(join(import.meta.dirname, "../../docs", name), "utf8")

/** Byte of a leg in a control message of a session. */
const byteOf = (kind: PathKind.LegKind): number => SessionWire.encode({ _tag: "Leg", kind })!.at(-1)!

const leg = (kind: string) => ({
  status: { peers: [{ name: "office", path: "direct", reason: "direct_proved" }], leg: { kind, reason: "because" } },
  threads: [],
  states: [],
  now: 0
})

describe("PathKind", () => {
  it("keeps the numbers of legs on the wire", () => {
    assert.deepStrictEqual(PathKind.LEG_KINDS.map((kind) => [kind, byteOf(kind)]).slice(0, 3), [
      ["relay-udp", 0],
      ["relay-h3", 1],
      ["relay-tcp", 2]
    ])
    for (const kind of PathKind.LEG_KINDS) {
      assert.strictEqual(byteOf(kind), PathKind.TABLE[kind].wire, kind)
      const about = { _tag: "Leg", mark: new Uint8Array(8), tag: 1, peerLeg: kind } as const
      assert.strictEqual(RelayWire.encode(about).at(-1), byteOf(kind) + 1, kind)
    }
  })

  it("keeps the cost of each path", () => {
    const v6 = direct({ host: "2001:db8::1", port: 1 })
    assert.deepStrictEqual(
      [
        biasMs(RELAY, "relay-tcp"),
        biasMs(RELAY, "relay-h3"),
        biasMs(RELAY, "relay-udp"),
        biasMs(viaRelay("second"), "relay-tcp"),
        biasMs(WEBRTC, "relay-tcp"),
        biasMs(direct({ host: "192.0.2.1", port: 1 }), "relay-tcp"),
        biasMs(v6, "relay-tcp")
      ],
      [10, 5, 3, 3, 5, 1, 0]
    )
  })

  it("describes and numbers each kind in the documents", () => {
    const [api, session, relay] = [doc("api.md"), doc("protocol/session.md"), doc("protocol/relay-udp.md")]
    for (const { kind, label, wire } of rows) {
      assert.match(api, new RegExp(`\\| \`${kind}\` +\\| ${label}\\. +\\|`))
      if (wire === null) continue
      assert.match(session, new RegExp(`\`Leg\`.*\\b${wire} \`${kind}\``))
      assert.match(relay, new RegExp(`^\\| leg .*\\b${wire + 1} \`${kind}\``, "m"))
    }
    assert.strictEqual(new Set(rows.map(({ label }) => label)).size, rows.length)
  })

  it("counts the packets and sessions of each kind", () => {
    const router = new PacketRouter(() => {})
    const families = new MuxMetrics().read({ router, sessions: () => [], kindOf: () => "direct" })
    for (const name of ["sallyport_path_bytes", "sallyport_path_packets", "sallyport_sessions"]) {
      const points = families.find((family) => family.name === name)?.points ?? []
      const paths = new Set(points.map(({ labels }) => labels["path"]))
      assert.sameMembers([...paths], [...PathKind.PATH_KINDS], name)
    }
    assert.strictEqual(new Set(Object.values(router.traffic)).size, rows.length, "no two kinds share counters")
  })

  it.each(rows.filter(({ wire }) => wire !== null))("has a remedy unless best: $kind", (row) => {
    const found = diagnose(leg(row.kind)).map(({ code, remedy, what }) => ({ code, remedy, what }))
    if (row.carriedBy === "udp") return assert.deepStrictEqual(found, [])
    assert.deepStrictEqual(found.map(({ code }) => code), [row.remedy?.code])
    assert.strictEqual(found[0]?.what, `${row.remedy?.what}: because`)
    assert.match(found[0]?.remedy ?? "", /^allow outgoing UDP/)
    if (row.remedy?.more) assert.include(found[0]?.remedy, row.remedy.more)
  })

  it("names the worse leg, and the carrier of each link", () => {
    for (const [at, worse] of PathKind.PATH_KINDS.entries()) {
      for (const better of PathKind.PATH_KINDS.slice(at)) {
        if (PathKind.TABLE[worse].wire === null || PathKind.TABLE[better].wire === null) continue
        const [one, other] = [worse as PathKind.LegKind, better as PathKind.LegKind]
        assert.strictEqual(PathKind.of(RELAY, one, other), one)
        assert.strictEqual(PathKind.of(RELAY, other, one), one)
      }
    }
    assert.deepStrictEqual([PathKind.ofLink("websocket"), PathKind.ofLink("webtransport-h3")], [
      "relay-tcp",
      "relay-h3"
    ])
    for (const { carriedBy, kind } of rows) {
      const carriers = typeof carriedBy === "object" ? carriedBy as ReadonlyArray<PathKind.LinkCarrier> : []
      for (const carrier of carriers) assert.strictEqual<string>(PathKind.ofLink(carrier), kind)
    }
  })

  it("has a way to send for each kind of leg", () => {
    expectTypeOf<Leg["kind"]>().toEqualTypeOf<PathKind.LegKind>()
  })
})
