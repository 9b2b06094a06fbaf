import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { have } from "../programs/support/Programs.ts"
import * as Lab from "./Lab.ts"

/** A request that needs a new session, with the machine busy: a dial and a handshake, no waiting for probes or timeouts. */
const AT_ONCE_MS = 3_000
/** Bytes a second of a download that lasts over some moves. */
const RATE = 600_000
const HELLO = "hello from the resource\n"

const says = (lab: Lab.Lab, path: string) => Effect.map(lab.fetch(path), ({ body, code }) => [code, String(body)])

describe.skipIf(!Lab.isPossible)("paths between real NATs", () => {
  it.scopedLive("port-restricted on both sides: relayed at once, then direct", () =>
    Lab.use({}, (lab) =>
      Effect.gen(function*() {
        const first = yield* lab.fetch("/")
        assert.deepStrictEqual([first.code, String(first.body)], [0, HELLO])
        Lab.tell("firstAnswerMs", first.ms, AT_ONCE_MS)
        const early = yield* lab.peer
        assert.include(["relay-udp", "direct"], early.path)
        assert.strictEqual(early.name, "office")
        const direct = yield* lab.untilPeer(({ path }) => path === "direct")
        assert.isNotNull(direct.rttMs)
        assert.match(direct.reason, /^direct_(proved|faster)$/)
        const before = yield* lab.relayBytes
        const file = yield* lab.fetch("/file")
        assert.strictEqual(file.sha256, Lab.FILE_SHA256)
        assert.isBelow((yield* lab.relayBytes) - before, Lab.FILE_BYTES / 20, "the file did not cross the relay")
      })))

  it.scopedLive("path: relay and back by reload, under a download", () =>
    Lab.use({}, (lab) =>
      Effect.gen(function*() {
        yield* lab.fetch("/")
        yield* lab.untilPeer(({ path }) => path === "direct")
        const held = yield* lab.hold(RATE)
        for (const role of ["client", "connector"] as const) {
          yield* lab.reload(role, { path: "relay" })
          yield* lab.untilPeer(({ path }) => path === "relay-udp")
          yield* held.more
          yield* lab.reload(role, {})
          yield* lab.untilPeer(({ path }) => path === "direct")
          yield* held.more
        }
        assert.strictEqual((yield* held.finish).sha256, Lab.FILE_SHA256)
      })))

  for (const carrier of ["websocket", "webtransport"] as const) {
    it.scopedLive(`no UDP at the client: ${carrier} over TCP, with reason`, () =>
      Lab.use({ clientNat: "udp-blocked", carrier }, (lab) =>
        Effect.gen(function*() {
          const first = yield* lab.fetch("/")
          assert.deepStrictEqual([first.code, String(first.body)], [0, HELLO])
          Lab.tell("firstAnswerMs", first.ms, AT_ONCE_MS)
          assert.isTrue(lab.log("client").some((line) => line.includes("signaling is up") && line.includes(carrier)))
          assert.strictEqual((yield* lab.fetch("/file")).sha256, Lab.FILE_SHA256)
          const peer = yield* lab.untilPeer(({ reason }) => reason.includes("udp_blocked"))
          assert.strictEqual(peer.path, "relay-tcp")
          assert.include(peer.reason, "UDP")
        })))
  }

  it.scopedLive("only TCP port 443 leaves the client's network: relayed", () =>
    Lab.use({ clientNat: "tcp443" }, (lab) =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* says(lab, "/"), [0, HELLO])
        const peer = yield* lab.untilPeer(({ reason }) => reason.includes("udp_blocked"))
        assert.strictEqual(peer.path, "relay-tcp")
      })))

  it.scopedLive("only web traffic leaves the client's network: relayed over HTTP/3", () =>
    Lab.use({ clientNat: "web443", relay: { http3: true } }, (lab) =>
      Effect.gen(function*() {
        const first = yield* lab.fetch("/")
        assert.deepStrictEqual([first.code, String(first.body)], [0, HELLO])
        Lab.tell("firstAnswerMs", first.ms, AT_ONCE_MS)
        const file = yield* lab.fetch("/file")
        assert.strictEqual(file.sha256, Lab.FILE_SHA256)
        const peer = yield* lab.untilPeer(({ reason }) => reason.includes("udp_blocked"))
        assert.strictEqual(peer.path, "relay-h3")
      })))

  it.scopedLive("symmetric on both sides: stays relayed, says why, and works", () =>
    Lab.use({ clientNat: "symmetric", connectorNat: "symmetric" }, (lab) =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* says(lab, "/"), [0, HELLO])
        const peer = yield* lab.untilPeer(({ reason }) => reason === "symmetric_both")
        assert.strictEqual(peer.path, "relay-udp")
        const before = yield* lab.relayBytes
        const file = yield* lab.fetch("/file")
        assert.strictEqual(file.sha256, Lab.FILE_SHA256)
        assert.isAbove((yield* lab.relayBytes) - before, Lab.FILE_BYTES, "the file crossed the relay")
      })))

  for (
    const [what, options] of [
      ["public addresses on both sides", { clientNat: "none", connectorNat: "none" }],
      ["both behind one NAT", { sameNat: true }]
    ] as const
  ) {
    it.scopedLive(`${what}: direct`, () =>
      Lab.use(options, (lab) =>
        Effect.gen(function*() {
          assert.deepStrictEqual(yield* says(lab, "/"), [0, HELLO])
          yield* lab.untilPeer(({ path }) => path === "direct")
          assert.deepStrictEqual(yield* says(lab, "/"), [0, HELLO])
        })))
  }

  it.scopedLive("stays relayed behind a provider's NAT without hairpin", () =>
    Lab.use({ sharedCgn: "port-restricted" }, (lab) =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* says(lab, "/"), [0, HELLO])
        const peer = yield* lab.untilPeer(({ reason }) => reason === "probes_unanswered")
        assert.strictEqual(peer.path, "relay-udp")
        assert.strictEqual((yield* lab.fetch("/file")).sha256, Lab.FILE_SHA256)
      })))

  it.scopedLive.skipIf(!have({ program: "tayga", apt: "tayga" }))(
    "reaches the relay from IPv6 alone through a NAT64",
    () =>
      Lab.use({
        v6: true,
        before: [["family", "connector", "4"], ["nat64", "client"]]
      }, (lab) =>
        Effect.gen(function*() {
          assert.deepStrictEqual(yield* says(lab, "/"), [0, HELLO])
          yield* lab.untilPeer(({ path }) => path === "relay-udp")
          assert.strictEqual((yield* lab.fetch("/file")).sha256, Lab.FILE_SHA256)
        }))
  )
})
