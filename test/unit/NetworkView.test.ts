import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Schema } from "effect"
import * as Board from "../../src/actors/hub/Board.ts"
import * as NetworkDesk from "../../src/actors/hub/desks/NetworkDesk.ts"
import { NetworkView, type Now, pageOf, pairsOf, summaryOf } from "../../src/actors/hub/NetworkView.ts"
import { Network } from "../../src/actors/hub/SignalingHubRpcs.ts"
import * as Self from "../../src/actors/runtime/actor/Self.ts"
import * as NodeReport from "../../src/protocol/relay/NodeReport.ts"
import type { NodeKey } from "../../src/protocol/trust/NodeKey.ts"
import { clean } from "../../src/roles/Reporting.ts"

const NODE = "A".repeat(43) as NodeKey
const at = (ms: number): Now => ({ epochMs: 1_800_000_000_000 + ms, ms })
const peer = (name: string, path: NodeReport.PeerReport["path"] = "direct", reason = "direct_proved") => ({
  name,
  path,
  reason,
  rttMs: 12.5,
  pathAgeSeconds: 60
})
const report = (...peers: ReadonlyArray<NodeReport.PeerReport>): NodeReport.NodeReport => ({
  version: "0.1.0",
  runtime: "v20.19.0",
  platform: "linux-x64",
  peers,
  peersInAll: peers.length,
  flows: { accepted: 3, port_not_listed: 1 }
})
const joined = (): NetworkView => {
  const view = new NetworkView()
  view.onLink(NODE, at(0))
  return view
}
const answerOf = (view: NetworkView, value: unknown, now = at(0)): string => {
  const text = typeof value === "string" ? value : JSON.stringify(value)
  return Either.match(view.onReport(NODE, text, now), { onLeft: ({ code }) => code, onRight: () => "taken" })
}
const many = (count: number) =>
  Array.from(
    { length: count },
    (_, index) => ({
      ...peer("a".repeat(61) + String(index).padStart(2, "0"), "relay-tcp"),
      rttMs: 599_999.9,
      reason: "direct_slower_than_relay"
    })
  )

describe("the network", () => {
  it.scoped("shows names of nodes and peers as written", () =>
    Effect.gen(function*() {
      const [office, alice] = ["A".repeat(43) as NodeKey, "B".repeat(43) as NodeKey]
      const node = (key: NodeKey, name: string, shown: string, role: "client" | "connector") => (
        { key, name, shown, role, network: null, createdAt: 0 }
      )
      const enrolled = [
        node(office, "xn--bro-hoa", "Büro", "connector"),
        node(alice, "alice.local", "Alice.local", "client")
      ]
      const board = Board.make()
      const desk = yield* NetworkDesk.make({ board, directory: { listNodes: Effect.succeed(enrolled) } as never })
      yield* desk.onLink(alice)
      yield* desk.report(alice, JSON.stringify(report(peer("xn--bro-hoa"))))
      const answer = yield* desk.overview({ find: "", after: "", limit: 10 })
      const { nodes } = yield* Schema.decodeUnknown(Network)(JSON.parse(JSON.stringify(answer)))
      assert.deepStrictEqual(nodes.map(({ name, report }) => [name, report?.peers[0]?.name]), [
        ["Alice.local", "Büro"],
        ["Büro", undefined]
      ])
      const why = yield* Effect.flip(desk.examine("ALICE.local"))
      assert.include(why.message, "ALICE.local is not connected")
    }).pipe(Effect.provide(Self.layerTest())))
})

describe("what a node reports", () => {
  it("is kept until another report, a return or a removal", () => {
    const view = joined()
    assert.isNull(view.of(NODE))
    assert.strictEqual(answerOf(view, report(peer("office"))), "taken")
    assert.strictEqual(answerOf(view, report(), at(10)), "taken")
    assert.deepStrictEqual(view.of(NODE), { report: report(), at: at(10).epochMs })
    view.onLink(NODE, at(20))
    assert.isNull(view.of(NODE), "the new process may have no consent")
    assert.strictEqual(answerOf(view, report(), at(30)), "taken")
    view.onRemoved(NODE)
    assert.isNull(view.of(NODE))
    assert.strictEqual(answerOf(view, report(), at(40)), "unknown_node")
    assert.isNull(view.of(NODE), "a link that is about to be cut brings nothing back")
  })

  it("is refused if too frequent, and accepted again later", () => {
    const view = joined()
    const answers = Array.from({ length: 20 }, () => {
      view.onLink(NODE, at(0))
      return answerOf(view, report())
    })
    assert.strictEqual(answers.filter((answer) => answer === "taken").length, 5)
    assert.strictEqual(answers.at(-1), "too_often")
    assert.strictEqual(answerOf(view, report(), at(1000)), "taken")
  })

  const bad: ReadonlyArray<readonly [string, unknown]> = [
    ["no JSON", "{"],
    ["no report", { hello: 1 }],
    ["too many peers", report(...many(NodeReport.MAX_PEERS + 1))],
    ["an address for a name", report(peer("192.0.2.7"))],
    ["a path that there is not", report({ ...peer("office"), path: "pigeon" as "direct" })],
    ["a sentence for a reason", report(peer("office", "direct", "because of 192.0.2.7"))],
    ["what moves a terminal's cursor", report(peer("office", "direct", "\u001B[2J"))],
    ["a round trip below zero", report({ ...peer("office"), rttMs: -1 })],
    ["half a flow", { ...report(), flows: { accepted: 0.5 } }],
    ["codes without end", {
      ...report(),
      flows: Object.fromEntries(Array.from({ length: 33 }, (_, i) => [`c${i}`, 1]))
    }],
    ["a long version", { ...report(), version: "1".repeat(41) }]
  ]
  it.each(bad)("is refused whole: %s", (_, value) => {
    const view = joined()
    assert.strictEqual(answerOf(view, value), "invalid")
    assert.isNull(view.of(NODE))
  })

  it("is refused unread if too long", () => {
    const view = joined()
    assert.strictEqual(answerOf(view, " ".repeat(NodeReport.MAX_CHARS + 1)), "too_long")
    assert.strictEqual(answerOf(view, report(...many(NodeReport.MAX_PEERS))), "taken")
    const text = "\"".repeat(NodeReport.MAX_TEXT_CHARS)
    const finding = { severity: "broken", code: "c".repeat(40), what: text, remedy: text }
    const findings = JSON.stringify(Array.from({ length: NodeReport.MAX_FINDINGS }, () => finding))
    assert.isTrue(Either.isRight(view.read(NODE, findings, NodeReport.FindingsText, at(0))))
  })

  it("may have unknown fields from a newer node", () => {
    const view = joined()
    assert.strictEqual(answerOf(view, { ...report(), mood: "good" }), "taken")
    assert.notProperty(view.of(NODE)?.report, "mood")
  })

  it("has texts without addresses and control characters", () => {
    const what = clean(`cannot reach 192.0.2.7:443 or [2001:db8::7]:443\n\u001B[31m${"x".repeat(500)}`)
    assert.notMatch(what, /192\.0|2001/)
    const findings = JSON.stringify([{ severity: "poor", code: "leg_by_tls", what, remedy: "" }])
    assert.isTrue(Either.isRight(joined().read(NODE, findings, NodeReport.FindingsText, at(0))))
  })
})

describe("the network", () => {
  it("counts each pair of nodes once, by its client's word", () => {
    const pairs = pairsOf([
      { name: "laptop", role: "client", report: report(peer("office"), peer("lab", "relay-udp", "udp_blocked")) },
      {
        name: "office",
        role: "connector",
        report: report(peer("laptop", "relay-udp", "probing"), peer("phone", "relay-tcp", "udp_blocked"))
      },
      { name: "phone", role: "client", report: null }
    ])
    assert.deepStrictEqual(summaryOf(pairs), {
      paths: { "direct": 1, "relay-udp": 1, "relay-tcp": 1 },
      relayed: [{ reason: "udp_blocked", count: 2 }]
    })
  })

  it("remembers a day, and forgets what is older", () => {
    const view = new NetworkView()
    const pairs = [{ path: "direct", reason: "direct_proved" }, { path: "relay-udp", reason: "probing" }] as const
    for (let minute = 0; minute < 1500; minute++) view.sample(minute, pairs)
    assert.strictEqual(view.samples.length, 1440)
    assert.deepStrictEqual([view.samples[0], view.samples.at(-1)?.at], [{ at: 60, direct: 1, total: 2 }, 1499])
  })
})

describe("a page of nodes", () => {
  const row = (
    name: string,
    since: number | null,
    told: NodeReport.NodeReport | null,
    role: "client" | "relay" = "client"
  ) => ({ name, role, since, report: told })
  const all = [
    row("phone-2", 5, null),
    row("Phone-1", 5, report()),
    row("office", null, null),
    row("relay-2", 5, null, "relay")
  ]
  const page = (wanted: Partial<Parameters<typeof pageOf>[1]>) => {
    const { counts, next, nodes } = pageOf(all, { find: "", after: "", limit: 10, ...wanted })
    return { counts, next, names: nodes.map(({ name }) => name) }
  }

  it("lists those found by name, with figures of all", () => {
    assert.deepStrictEqual(page({}), {
      counts: { enrolled: 4, connected: 3, reporting: 1, silent: 1, found: 4 },
      next: null,
      names: ["Phone-1", "office", "phone-2", "relay-2"]
    })
    assert.deepStrictEqual(page({ find: "PHONE" }).names, ["Phone-1", "phone-2"])
    assert.deepStrictEqual(page({ find: "PHONE" }).counts.enrolled, 4)
    assert.deepStrictEqual([page({ find: "x" }).names, page({ find: "x" }).counts.found], [[], 0])
  })

  it("goes on after the last one until the end", () => {
    const first = page({ limit: 3 })
    assert.deepStrictEqual([first.names.length, first.next], [3, "phone-2"])
    assert.deepStrictEqual(page({ limit: 3, after: "phone-2" }), { ...first, names: ["relay-2"], next: null })
    assert.isNull(page({ limit: 4 }).next)
  })
})
