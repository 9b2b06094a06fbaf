/** Periodic jobs of a relay's actors: in virtual time each works in its fourth period as in its first, on the state of that moment. */
import { SqlError } from "@effect/sql"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Fiber, Layer, Stream, TestClock } from "effect"
import { join } from "node:path"
import { vi } from "vitest"
import { RelayForwarder, RelayForwarderRpcs } from "../../src/actors/forwarder/RelayForwarderRpcs.ts"
import * as SignalingHubActor from "../../src/actors/hub/SignalingHubActor.ts"
import * as RelayMemberActor from "../../src/actors/member/RelayMemberActor.ts"
import * as Self from "../../src/actors/runtime/actor/Self.ts"
import type { NodeKey } from "../../src/protocol/trust/NodeKey.ts"
import * as Directory from "../../src/services/directory/Directory.ts"
import * as DirectoryDb from "../../src/services/directory/DirectoryDb.ts"
import { type Asked, DirectoryError, DirectoryStore } from "../../src/services/directory/DirectoryStore.ts"
import * as RelayKeys from "../../src/services/directory/RelayKeys.ts"
import { HostClock } from "../../src/services/host/HostClock.ts"
import * as LinkClient from "../../src/transport/link/LinkClient.ts"
import * as FakePeers from "../sim/FakePeers.ts"
import { someTurns, turnsUntil } from "./support/Turns.ts"
import * as VirtualHub from "./support/VirtualHub.ts"

const PERIODS = 4

/** What the directory's store refuses now. */
const refused = vi.hoisted(() => ({ reads: false, writes: false }))
vi.mock(import("../../src/services/directory/LibsqlStore.ts"), async (original) => {
  const store = await original()
  const unless = <A>(isRefused: () => boolean, asked: Asked<A>): Asked<A> =>
    Effect.suspend(() => isRefused() ? new DirectoryError({ reason: "unusable", message: "refused" }) : asked)
  const layer: typeof store.layer = (options) =>
    Layer.effect(
      DirectoryStore,
      Effect.map(DirectoryStore, (open) =>
        DirectoryStore.of({
          ...open,
          latestAuditId: unless(() => refused.reads, open.latestAuditId),
          keepTime: (ms) => unless(() => refused.writes, open.keepTime(ms))
        }))
    ).pipe(Layer.provide(store.layer(options)))
  return { ...store, layer }
})

/** A forwarder that keeps what it is told. Its UDP port is the test's to change. */
const forwarder = () => {
  const told = { udp: 3478, revoked: new Array<NodeKey>(), offsets: new Array<number>(), reached: new Array<boolean>() }
  const handlers = RelayForwarderRpcs.toLayer({
    AwaitListening: () => Effect.sync(() => ({ udp: told.udp, turn: null })),
    AttachLink: () => Effect.void,
    Revoke: ({ nodeKey }) => Effect.sync(() => void told.revoked.push(nodeKey)),
    RevokeTurn: () => Effect.void,
    SetReach: ({ reached }) => Effect.sync(() => void told.reached.push(reached)),
    SetTime: ({ offsetMs }) => Effect.sync(() => void told.offsets.push(offsetMs)),
    Addresses: () => Effect.die("not asked here"),
    Stats: () => Effect.succeed({})
  })
  const incarnations = Stream.concat(Stream.make(1), Stream.never)
  const peers = FakePeers.layer(FakePeers.make(RelayForwarder, RelayForwarderRpcs, handlers, incarnations))
  return { told, layer: Layer.merge(peers, Self.layerTest()) }
}

/** A directory with a relay's keys, and the hub over it. */
const startHub = Effect.gen(function*() {
  yield* TestClock.setTime(VirtualHub.START)
  const stateDir = yield* VirtualHub.folder
  yield* RelayKeys.init(stateDir)
  const directory = yield* Effect.provide(Directory.Directory, yield* Layer.build(Directory.layer({ stateDir })))
  const { layer, told } = forwarder()
  const start = SignalingHubActor.actor.start({
    stateDir,
    https: { host: "127.0.0.1", port: 0 },
    gate: null,
    advertise: { host: "127.0.0.1", httpsPort: 0, udpPort: 0 },
    tls: null,
    turn: false,
    app: false,
    policy: { resources: [], access: [] }
  }).pipe(
    Effect.provide(yield* Layer.build(layer)),
    Effect.provideService(HostClock, yield* VirtualHub.hostClock)
  )
  return { directory, start, told }
})

/** Enrolled nodes, one for each period. */
const enrolled = (directory: typeof Directory.Directory.Service) =>
  Effect.forEach(Array.from({ length: PERIODS }, (_, n) => `laptop-${n}`), (name) =>
    Effect.gen(function*() {
      const token = yield* directory.createToken({ role: "client", name, network: null, ttl: Duration.hours(1) })
      const { publicKey: nodeKey } = VirtualHub.newKey()
      yield* directory.enrol({ tokenId: token.id, secret: token.secret, nodeKey, onlyAs: null })
      return { name, nodeKey }
    }))

describe("every period the hub", () => {
  it.scoped("revokes the nodes that another process has removed by then", () =>
    Effect.gen(function*() {
      const { directory, start, told } = yield* startHub
      const nodes = yield* enrolled(directory)
      yield* start
      for (const [period, { name, nodeKey }] of nodes.entries()) {
        yield* directory.removeNode(name)
        while (told.revoked.length === period) {
          yield* TestClock.adjust("200 millis")
          yield* someTurns
        }
        assert.deepStrictEqual(told.revoked.slice(period), [nodeKey], `period ${period}`)
      }
    }), 60_000)

  it.scoped("stores the directory's time as it is now", () =>
    Effect.gen(function*() {
      const { directory, start } = yield* startHub
      yield* start
      for (let period = 1; period <= PERIODS; period++) {
        const before = yield* Clock.currentTimeMillis
        yield* TestClock.adjust("20 seconds")
        while ((yield* directory.latestTime) < before + 20_000) yield* someTurns
        assert.strictEqual(yield* directory.latestTime, yield* Clock.currentTimeMillis, `period ${period}`)
      }
    }), 60_000)
})

describe("a directory that is refused period after period", () => {
  it.scoped("is read again: removed nodes are revoked", () =>
    Effect.gen(function*() {
      const { directory, start, told } = yield* startHub
      const nodes = yield* enrolled(directory)
      yield* start
      for (const [period, { name, nodeKey }] of nodes.entries()) {
        refused.reads = true
        yield* directory.removeNode(name)
        for (let poll = 0; poll < 5; poll++) yield* Effect.zipRight(TestClock.adjust("200 millis"), someTurns)
        assert.strictEqual(told.revoked.length, period, `period ${period}`)
        refused.reads = false
        while (told.revoked.length === period) yield* Effect.zipRight(TestClock.adjust("200 millis"), someTurns)
        assert.deepStrictEqual(told.revoked.slice(period), [nodeKey], `period ${period}`)
      }
    }))

  it.scoped("is written again: it has the current time", () =>
    Effect.gen(function*() {
      const { directory, start } = yield* startHub
      yield* start
      for (let period = 1; period <= PERIODS; period++) {
        refused.writes = true
        const before = yield* directory.latestTime
        yield* Effect.zipRight(TestClock.adjust("21 seconds"), someTurns)
        assert.strictEqual(yield* directory.latestTime, before, `period ${period}`)
        refused.writes = false
        const since = yield* Clock.currentTimeMillis
        while ((yield* directory.latestTime) < since) yield* Effect.zipRight(TestClock.adjust("1 second"), someTurns)
      }
    }))

  it.scoped("is tried again while another process has locked it", () =>
    Effect.gen(function*() {
      const db = yield* DirectoryDb.make(join(yield* VirtualHub.folder, "directory.db"))
      let tries = 0
      const locked = new SqlError.SqlError({ cause: { code: "SQLITE_BUSY" }, message: "locked" })
      /** Reads, and passes its pauses until it is over. */
      const read = (tillFree: number) =>
        Effect.gen(function*() {
          tries = 0
          const body = () => Effect.suspend(() => ++tries > tillFree ? Effect.succeed("read") : locked)
          const reading = yield* Effect.fork(Effect.exit(db.read(body)))
          for (let period = 1; period <= tillFree; period++) {
            yield* turnsUntil(() => tries === period)
            yield* someTurns
            assert.strictEqual(tries, period, "it waits before it tries again")
            yield* TestClock.adjust("25 millis")
          }
          return yield* Effect.flatten(Fiber.join(reading))
        })
      assert.strictEqual(yield* read(PERIODS), "read")
      const error = yield* Effect.flip(read(PERIODS + 1))
      assert.deepStrictEqual([error.reason, tries], ["busy", PERIODS + 1])
    }))
})

/** A relay that has joined, and the directory's hub. */
const startMember = Effect.gen(function*() {
  const { hub, links, opener, stateDir } = yield* VirtualHub.make({ role: "relay", isWatched: false })
  const { layer, told } = forwarder()
  yield* RelayMemberActor.actor.start({ stateDir, name: "second", host: "127.0.0.1", port: 0 }).pipe(
    Effect.provide(yield* Layer.build(layer)),
    Effect.provideService(HostClock, yield* VirtualHub.hostClock),
    Effect.provideService(LinkClient.LinkOpener, opener)
  )
  yield* turnsUntil(() => hub.listed.length === 1)
  return { hub, links, told }
})

describe("every period a relay that has joined", () => {
  it.scoped("lists the current port, and judges by the current time", () =>
    Effect.gen(function*() {
      const { hub, links, told } = yield* startMember
      for (let period = 1; period <= PERIODS; period++) {
        told.udp = 3478 + period
        hub.aheadMs = period * 60_000
        // The time is asked for every four minutes, and the link's pings need turns between them.
        for (let seconds = 0; seconds < 300; seconds += 10) {
          yield* TestClock.adjust("10 seconds")
          yield* someTurns
        }
        yield* turnsUntil(() => hub.listed.at(-1)?.port === told.udp)
        assert.closeTo(told.offsets.at(-1) ?? 0, hub.aheadMs, 1, `period ${period}`)
        assert.deepStrictEqual([hub.listed.length, links.length], [1 + period, 1], `period ${period}`)
      }
    }), 60_000)

  it.scoped("lists itself again after each lost link", () =>
    Effect.gen(function*() {
      const { hub, links, told } = yield* startMember
      for (let period = 1; period <= PERIODS; period++) {
        assert.strictEqual(told.reached.at(-1), true)
        links.at(-1)?.destroy("lost")
        while (hub.listed.length === period) {
          yield* TestClock.adjust("200 millis")
          yield* someTurns
        }
        assert.deepStrictEqual([hub.listed.length, links.length], [1 + period, 1 + period])
        yield* turnsUntil(() => told.reached.length === 1 + 2 * period)
        assert.deepStrictEqual(told.reached.slice(-2), [false, true])
      }
    }), 60_000)
})
