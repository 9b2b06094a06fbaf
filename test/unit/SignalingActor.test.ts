/** A node's link to its relay, in virtual time: each is followed by the next, the fourth as the first. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger, PubSub, Stream, TestClock } from "effect"
import * as Self from "../../src/actors/runtime/actor/Self.ts"
import * as SignalingActor from "../../src/actors/signaling/SignalingActor.ts"
import { type NetworkChange, Stun, StunRpcs } from "../../src/actors/stun/StunRpcs.ts"
import { HostClock } from "../../src/services/host/HostClock.ts"
import * as LinkClient from "../../src/transport/link/LinkClient.ts"
import * as FakePeers from "../sim/FakePeers.ts"
import { someTurns, turnsUntil } from "./support/Turns.ts"
import * as VirtualHub from "./support/VirtualHub.ts"

const TIMES = 4
const GO_AWAY_MS = 4000

const start = Effect.gen(function*() {
  const { hub, links, opener, send, stateDir } = yield* VirtualHub.make({ role: "client", isWatched: true })
  const changes = yield* PubSub.unbounded<NetworkChange>()
  const unasked = () => Effect.die("not asked here")
  const stun = StunRpcs.toLayer({
    NetworkChanges: () => Stream.fromPubSub(changes),
    SetServers: unasked,
    MappingChanged: unasked,
    MapPort: unasked,
    Candidates: unasked,
    Discover: unasked,
    Servers: unasked,
    Local: unasked,
    NetCheck: unasked,
    SetActiveSessions: unasked
  })
  const peers = Layer.merge(FakePeers.layer(FakePeers.make(Stun, StunRpcs, stun)), Self.layerTest())
  const warnings: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => {
    if (logLevel._tag === "Warning") warnings.push(String(message))
  })
  /** Whether connections are made. Otherwise they wait for ever. */
  const way = { isOpen: true, tries: 0 }
  const connect: LinkClient.LinkOpener["Type"]["connect"] = () =>
    Effect.suspend(() => {
      way.tries += 1
      return way.isOpen ? opener.connect() : Effect.never
    })
  yield* SignalingActor.actor.start({ stateDir, carrier: "auto" }).pipe(
    Effect.provide(yield* Layer.build(peers)),
    Effect.provideService(HostClock, yield* VirtualHub.hostClock),
    Effect.provideService(LinkClient.LinkOpener, { connect }),
    Effect.provide(Logger.replace(Logger.defaultLogger, logger))
  )
  yield* turnsUntil(() => hub.signIns === 1)
  yield* someTurns
  /** Passes `ms`, with the turns that links need between. */
  const pass = (ms: number) => Effect.zipRight(TestClock.adjust(ms), someTurns)
  return { changes, hub, links, pass, send, warnings, way }
})

describe("every time a node signs in again", () => {
  it.scoped("after a lost link", () =>
    Effect.gen(function*() {
      const { hub, links, pass } = yield* start
      for (let time = 1; time <= TIMES; time++) {
        links.at(-1)?.destroy("lost")
        yield* someTurns
        while (hub.signIns === time) yield* pass(200)
        assert.deepStrictEqual([hub.signIns, links.length], [1 + time, 1 + time])
      }
    }), 60_000)

  it.scoped("when its relay says so", () =>
    Effect.gen(function*() {
      const { hub, pass, send, warnings } = yield* start
      for (let time = 1; time <= TIMES; time++) {
        yield* send({ _tag: "GoAway", reconnectAfterMs: GO_AWAY_MS })
        yield* someTurns
        assert.match(warnings.at(-1) ?? "", /the relay asked this node to connect again/)
        yield* pass(GO_AWAY_MS - 1)
        assert.strictEqual(hub.signIns, time)
        yield* pass(1)
        yield* turnsUntil(() => hub.signIns === 1 + time)
        yield* someTurns
      }
    }), 60_000)

  it.scoped("when this host has left the link's address", () =>
    Effect.gen(function*() {
      const { changes, hub, pass, warnings } = yield* start
      for (let time = 1; time <= TIMES; time++) {
        yield* PubSub.publish(changes, { reason: "addresses", hosts: ["127.0.0.1"], lost: [] })
        yield* pass(1000)
        assert.strictEqual(hub.signIns, time, "the address is still there")
        yield* PubSub.publish(changes, { reason: "addresses", hosts: ["192.0.2.7"], lost: [] })
        yield* someTurns
        assert.match(warnings.at(-1) ?? "", /this host no longer has the address of its connection/)
        yield* pass(100)
        yield* turnsUntil(() => hub.signIns === 1 + time)
        yield* someTurns
      }
    }), 60_000)

  it.scoped("when the network changes while it connects", () =>
    Effect.gen(function*() {
      const { changes, hub, links, pass, warnings, way } = yield* start
      for (let time = 1; time <= TIMES; time++) {
        way.isOpen = false
        const before = way.tries
        links.at(-1)?.destroy("lost")
        yield* someTurns
        while (way.tries === before) yield* pass(200)
        way.isOpen = true
        yield* PubSub.publish(changes, { reason: "addresses", hosts: ["192.0.2.7"], lost: [] })
        yield* someTurns
        assert.match(warnings.at(-1) ?? "", /network changed while the connection to the relay was being made/)
        yield* pass(100)
        yield* turnsUntil(() => hub.signIns === 1 + time)
        yield* someTurns
      }
    }), 60_000)
})
