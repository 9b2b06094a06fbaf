import { RpcTest } from "@effect/rpc"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Layer, Mailbox, PubSub, Stream, SubscriptionRef, TestClock } from "effect"
import { StreamMux } from "../../src/actors/mux/StreamMuxRpcs.ts"
import * as PathProberActor from "../../src/actors/path/PathProberActor.ts"
import { PathDriverRpcs, type PathEvent, PathProberRpcs } from "../../src/actors/path/PathProberRpcs.ts"
import * as Self from "../../src/actors/runtime/actor/Self.ts"
import { type LocalCandidates, type NetworkChange, Stun, StunRpcs } from "../../src/actors/stun/StunRpcs.ts"
import * as Candidate from "../../src/protocol/candidate/Candidate.ts"
import { direct, keyOf, type PathRef, RELAY, type Role } from "../../src/protocol/path/PathRef.ts"
import * as Crypto from "../../src/services/host/Crypto.ts"
import * as FakePeers from "./FakePeers.ts"

const session = "0123456789abcdef0123456789abcdef"
const mine = { host: "198.51.100.1", port: 4001 }
const theirs = { host: "203.0.113.2", port: 4002 }

type Call =
  | { readonly call: "SendPing"; readonly atMs: number; readonly path: PathRef; readonly txId: string }
  | {
    readonly call: "SendCandidates"
    readonly atMs: number
    readonly seq: number
    readonly list: ReadonlyArray<unknown>
  }
  | { readonly call: "SelectPath"; readonly atMs: number; readonly path: PathRef; readonly reason: string }
  | { readonly call: "RequestSwitch"; readonly atMs: number; readonly reason: string }

/** A data plane whose paths answer or do not, as `rttMs` says (by path key; absent: silent). */
const setup = Effect.gen(function*() {
  const startedAt = Number(yield* Clock.currentTimeNanos) / 1e6
  const nowMs = Effect.map(Clock.currentTimeNanos, (ns) => Number(ns) / 1e6 - startedAt)
  const calls: Array<Call> = []
  const rttMs = new Map<string, number>([["relay", 40]])
  const events = yield* Mailbox.make<PathEvent>()
  const local = yield* SubscriptionRef.make<LocalCandidates>({
    candidates: [Candidate.make("srflx", mine)],
    leftOut: [],
    udp: "works"
  })
  const active: Array<number> = []
  const network = yield* PubSub.unbounded<NetworkChange>()
  const mux = PathDriverRpcs.toLayer({
    PathEvents: () => Mailbox.toStream(events),
    SendPing: Effect.fnUntraced(function*({ path, txId }) {
      calls.push({ call: "SendPing", atMs: yield* nowMs, path, txId })
      const rtt = rttMs.get(keyOf(path))
      if (rtt === undefined) return
      const pong: PathEvent = { _tag: "Pong", session, path, txId, rttMs: rtt, observed: null }
      yield* Effect.forkDaemon(Effect.delay(events.offer(pong), rtt))
    }),
    AskRead: () => events.offer({ _tag: "SocketsRead", session }),
    SendCandidates: Effect.fnUntraced(function*({ list, seq }) {
      calls.push({ call: "SendCandidates", atMs: yield* nowMs, seq, list })
      yield* events.offer({ _tag: "CandidatesAcked", session, seq })
    }),
    SetPacketSize: () => Effect.void,
    KeepPath: () => Effect.void,
    SelectPath: Effect.fnUntraced(function*({ path, reason }) {
      calls.push({ call: "SelectPath", atMs: yield* nowMs, path, reason })
    }),
    SampleGuess: () => Effect.void,
    OpenGuess: () => Effect.void,
    CloseGuess: () => Effect.void,
    SendGuesses: () => Effect.void,
    TellOpened: () => Effect.void,
    RequestSwitch: Effect.fnUntraced(function*({ reason }) {
      calls.push({ call: "RequestSwitch", atMs: yield* nowMs, reason })
    })
  })
  const stun = StunRpcs.toLayer({
    Candidates: () => local.changes,
    Discover: () => Effect.die("not asked here"),
    SetServers: () => Effect.void,
    Servers: () => Effect.succeed([]),
    Local: () => Effect.die("not asked here"),
    NetCheck: () => Effect.never,
    SetActiveSessions: ({ count }) => Effect.sync(() => void active.push(count)),
    NetworkChanges: () => Stream.fromPubSub(network),
    MappingChanged: () => Effect.die("not told here"),
    MapPort: () => Effect.die("not told here")
  })
  const layer = PathProberActor.layer.pipe(
    Layer.provide(
      FakePeers.layer(FakePeers.make(StreamMux, PathDriverRpcs, mux), FakePeers.make(Stun, StunRpcs, stun))
    ),
    Layer.provide(Crypto.layer),
    Layer.provide(Self.layerTest("pathProber"))
  )
  const client = yield* Effect.provide(RpcTest.makeClient(PathProberRpcs), yield* Layer.build(layer))
  yield* TestClock.adjust(0)
  const up = (role: Role = "client", path: PathRef = RELAY) =>
    events.offer({ _tag: "SessionUp", session, role, peer: "peer", path, active: true })
  const only = Effect.map(client.Paths(), (paths) => paths[0]!)
  return { client, calls, rttMs, events, local, network, active, up, only }
})

/** In steps: within one, a chain of timers does not get further than its first. */
const advance = (ms: number) => {
  const stepMs = ms > 4_000 ? 100 : 20
  return Effect.repeatN(TestClock.adjust(stepMs), ms / stepMs - 1)
}

const offered: PathEvent = { _tag: "PeerCandidates", session, seq: 1, list: [Candidate.make("srflx", theirs)] }

describe("PathProberActor", () => {
  it.scoped("offers candidates, probes, and selects the direct path that answers", () =>
    Effect.gen(function*() {
      const { calls, client, events, only, rttMs, up } = yield* setup
      rttMs.set(keyOf(direct(theirs)), 10)
      yield* up()
      yield* TestClock.adjust("1 millis")
      const offers = calls.filter((c) => c.call === "SendCandidates")
      assert.lengthOf(offers, 1)
      assert.deepStrictEqual(offers[0]!.list, [Candidate.make("srflx", mine)])
      yield* events.offer(offered)
      yield* advance(100)
      const selects = calls.filter((c) => c.call === "SelectPath")
      assert.deepStrictEqual(selects.map((c) => c.path), [direct(theirs)])
      assert.isAtMost(selects[0]!.atMs, 90)
      const shown = yield* only
      assert.deepStrictEqual(shown.path, direct(theirs))
      assert.include(["direct_proved", "direct_faster"], shown.reason)
      assert.strictEqual(shown.rttMs, 10)
      const decisions = yield* client.Decisions({ session })
      assert.strictEqual(decisions.at(-1)?.moved, true)
      assert.strictEqual(decisions.length, shown.decisions)
    }))

  it.scoped("returns to the relay when the path dies", () =>
    Effect.gen(function*() {
      const { calls, events, only, rttMs, up } = yield* setup
      rttMs.set(keyOf(direct(theirs)), 10)
      yield* up()
      yield* events.offer(offered)
      yield* advance(3000)
      rttMs.delete(keyOf(direct(theirs)))
      yield* advance(1000)
      const last = calls.findLast((c) => c.call === "SelectPath")!
      assert.deepStrictEqual([last.path, last.reason], [RELAY, "path_blackholed"])
      assert.isAtMost(last.atMs, 4_000)
      assert.strictEqual((yield* only).reason, "path_blackholed")
    }))

  it.scoped("as a connector asks for a move and never selects", () =>
    Effect.gen(function*() {
      const { calls, events, rttMs, up } = yield* setup
      rttMs.set(keyOf(direct(theirs)), 10)
      yield* up("connector")
      yield* events.offer(offered)
      yield* events.offer({ _tag: "PeerSelected", session, path: direct(theirs) })
      yield* advance(2000)
      rttMs.delete(keyOf(direct(theirs)))
      yield* advance(1000)
      assert.isTrue(calls.some((c) => c.call === "RequestSwitch" && c.reason === "path_blackholed"))
      assert.isFalse(calls.some((c) => c.call === "SelectPath"))
    }))

  it.scoped("says why a session is relayed", () =>
    Effect.gen(function*() {
      const { events, local, only, up } = yield* setup
      yield* up()
      yield* advance(1000)
      assert.strictEqual((yield* only).reason, "relay_first")
      yield* advance(2000)
      assert.strictEqual((yield* only).reason, "no_candidates")
      yield* events.offer(offered)
      yield* advance(1000)
      assert.strictEqual((yield* only).reason, "probing")
      yield* advance(10000)
      assert.strictEqual((yield* only).reason, "probes_unanswered")
      yield* SubscriptionRef.update(local, (it) => ({ ...it, udp: "blocked" as const, candidates: [] }))
      yield* advance(1000)
      assert.strictEqual((yield* only).reason, "udp_blocked")
    }))

  it.scoped("resumes from the snapshot with its path, and newer candidates", () =>
    Effect.gen(function*() {
      const { calls, only, rttMs, up } = yield* setup
      rttMs.set(keyOf(direct(theirs)), 10)
      yield* TestClock.setTime(1_795_395_600_000)
      yield* up("client", direct(theirs))
      yield* advance(1000)
      assert.isFalse(calls.some((c) => c.call === "SelectPath"))
      assert.strictEqual((yield* only).reason, "resumed")
      const first = calls.find((c) => c.call === "SendCandidates")
      assert.isAbove(first?.call === "SendCandidates" ? first.seq : 0, 100_000_000)
    }))

  it.scoped("forgets a session that is down, and notifies the StunActor", () =>
    Effect.gen(function*() {
      const { active, calls, client, events, up } = yield* setup
      yield* up()
      yield* advance(1000)
      assert.lengthOf(yield* client.Paths(), 1)
      assert.strictEqual(active.at(-1), 1)
      yield* events.offer({ _tag: "SessionDown", session })
      yield* advance(1000)
      assert.lengthOf(yield* client.Paths(), 0)
      assert.strictEqual(active.at(-1), 0)
      const before = calls.length
      yield* advance(10_000)
      assert.lengthOf(calls, before)
      assert.deepStrictEqual(yield* client.Decisions({ session }), [])
    }))

  it.scoped("proves all again when this host's addresses change", () =>
    Effect.gen(function*() {
      const { calls, events, network, only, rttMs, up } = yield* setup
      rttMs.set(keyOf(direct(theirs)), 10)
      yield* up()
      yield* events.offer(offered)
      yield* advance(3000)
      rttMs.delete(keyOf(direct(theirs)))
      yield* PubSub.publish(network, { reason: "route", hosts: ["192.168.1.9"], lost: [] })
      yield* advance(200)
      const last = calls.findLast((c) => c.call === "SelectPath")!
      assert.deepStrictEqual([last.path, last.reason], [RELAY, "network_changed"])
      assert.isAtMost(last.atMs, 3_150)
      assert.deepStrictEqual((yield* only).path, RELAY)
    }))

  it.scoped("uses a rebound relay when its path lost the address", () =>
    Effect.gen(function*() {
      const { calls, events, network, rttMs, up } = yield* setup
      rttMs.set(keyOf(direct(theirs)), 10)
      yield* up()
      yield* events.offer(offered)
      yield* advance(3000)
      rttMs.clear() // nothing answers, the relay neither
      yield* PubSub.publish(network, { reason: "addresses", hosts: ["192.168.1.9"], lost: [4] })
      yield* advance(40)
      assert.notStrictEqual(calls.findLast((c) => c.call === "SelectPath")?.reason, "network_changed")
      yield* events.offer({ _tag: "RelayLeg", kind: "relay-udp" })
      yield* TestClock.adjust("5 millis")
      const last = calls.findLast((c) => c.call === "SelectPath")!
      assert.deepStrictEqual([last.path, last.reason], [RELAY, "network_changed"])
    }))

  it.scoped("ignores events of sessions that it does not know", () =>
    Effect.gen(function*() {
      const { calls, client, events } = yield* setup
      yield* events.offer(offered)
      yield* events.offer({ _tag: "Activity", session, active: true })
      yield* advance(1000)
      assert.lengthOf(calls, 0)
      assert.deepStrictEqual(yield* client.Paths(), [])
    }))
})
