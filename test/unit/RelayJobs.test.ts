/** Periodic jobs of a relay's actors: in virtual time each works in its fourth period as in its first, on the state of that moment. */
import { RpcServer } from "@effect/rpc"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Layer, Stream, TestClock } from "effect"
import { generateKeyPairSync } from "node:crypto"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { RelayForwarder, RelayForwarderRpcs } from "../../src/actors/forwarder/RelayForwarderRpcs.ts"
import * as SignalingHubActor from "../../src/actors/hub/SignalingHubActor.ts"
import * as RelayMemberActor from "../../src/actors/member/RelayMemberActor.ts"
import * as Self from "../../src/actors/runtime/actor/Self.ts"
import { RelaySignalingRpcs } from "../../src/actors/signaling/RelaySignalingRpcs.ts"
import type { RelayPoint } from "../../src/protocol/relay/RelayPoint.ts"
import type { NodeKey } from "../../src/protocol/trust/NodeKey.ts"
import * as Directory from "../../src/services/directory/Directory.ts"
import * as RelayKeys from "../../src/services/directory/RelayKeys.ts"
import { HostClock } from "../../src/services/host/HostClock.ts"
import * as Authority from "../../src/services/identity/Authority.ts"
import * as Enrolment from "../../src/services/identity/Enrolment.ts"
import * as Keys from "../../src/services/identity/Keys.ts"
import * as RpcOverLink from "../../src/session/RpcOverLink.ts"
import * as LinkClient from "../../src/transport/link/LinkClient.ts"
import * as FakePeers from "../sim/FakePeers.ts"
import { MemoryLink } from "./support/MemoryLink.ts"
import { someTurns, turnsUntil } from "./support/Turns.ts"

const PERIODS = 4
const START = Date.parse("2026-03-01T12:00:00Z")

const folder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "sallyport-relay-jobs-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true }))
)
const newKey = () => {
  const key = Keys.fromPrivateKey(generateKeyPairSync("ed25519").privateKey)
  if (key === null) throw new Error("no key")
  return key
}

/** A forwarder that keeps what it is told. Its UDP port is the test's to change. */
const forwarder = () => {
  const told = { udp: 3478, revoked: new Array<NodeKey>(), offsets: new Array<number>() }
  const handlers = RelayForwarderRpcs.toLayer({
    AwaitListening: () => Effect.sync(() => ({ udp: told.udp, turn: null })),
    AttachLink: () => Effect.void,
    Revoke: ({ nodeKey }) => Effect.sync(() => void told.revoked.push(nodeKey)),
    RevokeTurn: () => Effect.void,
    SetTime: ({ offsetMs }) => Effect.sync(() => void told.offsets.push(offsetMs)),
    Addresses: () => Effect.die("not asked here"),
    Stats: () => Effect.succeed({})
  })
  const incarnations = Stream.concat(Stream.make(1), Stream.never)
  const peers = FakePeers.layer(FakePeers.make(RelayForwarder, RelayForwarderRpcs, handlers, incarnations))
  return { told, layer: Layer.merge(peers, Self.layerTest()) }
}

/** The host's uptime is virtual, too. */
const hostClock = Effect.map(Effect.clock, (clock) => ({ now: () => clock.unsafeCurrentTimeMillis() }))

/** A directory with a relay's keys, and the hub over it. */
const startHub = Effect.gen(function*() {
  yield* TestClock.setTime(START)
  const stateDir = yield* folder
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
    Effect.provideService(HostClock, yield* hostClock)
  )
  return { directory, start, told }
})

describe("every period the hub", () => {
  it.scoped("revokes the nodes that another process has removed by then", () =>
    Effect.gen(function*() {
      const { directory, start, told } = yield* startHub
      const nodes = yield* Effect.forEach(Array.from({ length: PERIODS }, (_, n) => `laptop-${n}`), (name) =>
        Effect.gen(function*() {
          const token = yield* directory.createToken({ role: "client", name, network: null, ttl: Duration.hours(1) })
          const { publicKey: nodeKey } = newKey()
          yield* directory.enrol({ tokenId: token.id, secret: token.secret, nodeKey, onlyAs: null })
          return { name, nodeKey }
        }))
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

describe("every period a relay that has joined", () => {
  it.scoped("lists the current port, and judges by the current time", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(START)
      const clock = yield* Effect.clock
      const stateDir = yield* folder
      const authority = Authority.make(newKey())
      const { publicKey } = yield* Keys.loadOrCreate(join(stateDir, Keys.NODE_KEY_FILE))
      const fields = { nodeKey: publicKey, name: "second", role: "relay", network: null } as const
      const home = { host: "192.0.2.1", httpsPort: 443, tls: { _tag: "Ca" as const }, authorityKey: authority.key }
      yield* Enrolment.make(stateDir).save(publicKey, home, yield* authority.membership(fields))

      const listed: Array<RelayPoint> = []
      let aheadMs = 0 // how far the directory's clock is ahead of this host's
      const unasked = () => Effect.die("not asked here")
      const handlers = RelaySignalingRpcs.toLayer({
        Watch: () => Stream.never,
        Time: () => Effect.sync(() => clock.unsafeCurrentTimeMillis() + aheadMs),
        PlaceRelay: (point) => Effect.sync(() => void listed.push(point)),
        Dial: unasked,
        Ready: unasked,
        Decline: unasked,
        BrowsersLost: unasked,
        SessionsLost: unasked,
        Presence: unasked,
        Renew: unasked,
        TurnCredentials: unasked,
        Report: unasked,
        Findings: unasked,
        Resources: unasked,
        Forward: unasked
      })
      const rpc = yield* RpcOverLink.makeServer()
      yield* Effect.forkScoped(Layer.launch(
        RpcServer.layer(RelaySignalingRpcs).pipe(
          Layer.provide(handlers),
          Layer.provide(Layer.succeed(RpcServer.Protocol, rpc.protocol))
        )
      ))
      let links = 0
      const connect = Effect.gen(function*() {
        links++
        const [link, peer] = MemoryLink.pair()
        yield* Effect.forkScoped(rpc.serve(peer, publicKey))
        return { link, welcome: new Uint8Array(), localHost: "127.0.0.1" }
      })
      const { layer, told } = forwarder()
      yield* RelayMemberActor.actor.start({ stateDir, name: "second", host: "127.0.0.1", port: 0 }).pipe(
        Effect.provide(yield* Layer.build(layer)),
        Effect.provideService(HostClock, yield* hostClock),
        Effect.provideService(LinkClient.LinkOpener, { connect: () => connect })
      )
      yield* turnsUntil(() => listed.length === 1)
      for (let period = 1; period <= PERIODS; period++) {
        told.udp = 3478 + period
        aheadMs = period * 60_000
        // The time is asked for every four minutes, and the link's pings need turns between them.
        for (let seconds = 0; seconds < 300; seconds += 10) {
          yield* TestClock.adjust("10 seconds")
          yield* someTurns
        }
        yield* turnsUntil(() => listed.at(-1)?.port === told.udp)
        assert.closeTo(told.offsets.at(-1) ?? 0, aheadMs, 1, `period ${period}`)
        assert.deepStrictEqual([listed.length, links], [1 + period, 1], `period ${period}`)
      }
    }), 60_000)
})
