import { RpcTest } from "@effect/rpc"
import { assert, describe, it } from "@effect/vitest"
import {
  Chunk,
  Clock,
  Deferred,
  Effect,
  Either,
  Fiber,
  Layer,
  Mailbox,
  Option,
  Stream,
  SubscriptionRef,
  TestClock
} from "effect"
import { StreamMux } from "../../src/actors/mux/StreamMuxRpcs.ts"
import * as Self from "../../src/actors/runtime/actor/Self.ts"
import * as LifetimeSearch from "../../src/actors/stun/LifetimeSearch.ts"
import * as StunActor from "../../src/actors/stun/StunActor.ts"
import {
  type ControlDatagram,
  type NetworkChange,
  StunRpcs,
  StunTimeout,
  StunUnavailable,
  UdpControlRpcs
} from "../../src/actors/stun/StunRpcs.ts"
import type { SocketAddr } from "../../src/protocol/bytes/SocketAddr.ts"
import type { Lifetime } from "../../src/protocol/nat/MappingLifetime.ts"
import type { PortMapping } from "../../src/protocol/nat/PortMapping.ts"
import * as Stun from "../../src/protocol/nat/Stun.ts"
import * as Crypto from "../../src/services/host/Crypto.ts"
import * as NetworkWatch from "../../src/services/network/NetworkWatch.ts"
import * as PortMapper from "../../src/services/network/portmap/PortMapper.ts"
import * as LifetimeProbe from "../../src/transport/udp/LifetimeProbe.ts"
import * as FakePeers from "./FakePeers.ts"

const server = { host: "192.0.2.1", port: 3478 }
const mapped = { host: "198.51.100.7", port: 40123 }
const eth0: NetworkWatch.InterfaceAddress = {
  name: "eth0",
  host: "10.0.0.2",
  family: 4,
  loopback: false,
  hasMac: true,
  isTun: false,
  isInnerBridge: false
}
const lo: NetworkWatch.InterfaceAddress = { ...eth0, name: "lo", host: "127.0.0.1", loopback: true }

/** This host with one address that leads out, or none. */
const at = (address: NetworkWatch.InterfaceAddress | null): NetworkWatch.NetworkState => ({
  addresses: address === null ? [lo] : [lo, address],
  outward: { v4: address?.host ?? null, v6: null },
  wakes: 0
})

type Sent = { readonly atMs: number; readonly to: SocketAddr; readonly bytes: Uint8Array }
type Ports = { v4?: number; missed?: ReadonlyArray<{ family: 4 | 6; port: number; code: string }> }
/** `free`: the configured port, once no other program has it. */
type Setup = { ports: Ports; free?: number; answer: (sent: Sent) => ReadonlyArray<ControlDatagram> }

/** A data plane with one socket, and what the network answers. */
const setup = Effect.fnUntraced(function*(
  portsKnown: Effect.Effect<void> = Effect.void,
  mapperLayer: Layer.Layer<PortMapper.PortMapper> = PortMapper.layerOff,
  towards: ReadonlyArray<string> = []
) {
  const startedAt = Number(yield* Clock.currentTimeNanos) / 1e6
  const sent: Array<Sent> = []
  const incoming = yield* Mailbox.make<ControlDatagram>()
  const network = yield* SubscriptionRef.make(at(eth0))
  const rebound: Array<ReadonlyArray<4 | 6>> = []
  /** Searches for the lifetime of idle mappings, and what they find in 30 s. */
  const searches: Array<{ readonly atMs: number; readonly servers: ReadonlyArray<SocketAddr>; ended: boolean }> = []
  const lifetimes: Array<Lifetime | null> = []
  const probe = LifetimeProbe.layerTest(Effect.fnUntraced(function*(servers) {
    const search = { atMs: Number(yield* Clock.currentTimeNanos) / 1e6 - startedAt, servers, ended: false }
    searches.push(search)
    yield* Effect.sleep("30 seconds")
    search.ended = true
    return lifetimes.shift() ?? null
  }))
  const world: Setup = { ports: { v4: 5000 }, answer: () => [] }
  const handlers = UdpControlRpcs.toLayer({
    SendControl: Effect.fnUntraced(function*({ bytes, to }) {
      const entry = { atMs: Number(yield* Clock.currentTimeNanos) / 1e6 - startedAt, to, bytes }
      sent.push(entry)
      yield* incoming.offerAll(world.answer(entry))
    }),
    ControlDatagrams: () => Mailbox.toStream(incoming),
    RebindSockets: ({ families }) =>
      Effect.sync(() => {
        rebound.push(families)
        world.ports = { v4: world.ports.v4! + 1 }
      }),
    TakeConfiguredPort: () =>
      Effect.sync(() => {
        if (world.free === undefined) return false
        world.ports = { v4: world.free }
        return true
      }),
    LocalPorts: () => Effect.zipRight(portsKnown, Effect.sync(() => world.ports))
  })
  const layer = StunActor.layer.pipe(
    Layer.provide(FakePeers.layer(FakePeers.make(StreamMux, UdpControlRpcs, handlers))),
    Layer.provide(NetworkWatch.layerTest(network, Effect.succeed(towards))),
    Layer.provide(Crypto.layer),
    Layer.provide(probe),
    Layer.provide(mapperLayer),
    Layer.provide(Self.layerTest("stun"))
  )
  const client = yield* Effect.provide(RpcTest.makeClient(StunRpcs), yield* Layer.build(layer))
  yield* TestClock.adjust(0)
  const snapshot = Effect.map(Stream.runHead(client.Candidates()), (it) => (it._tag === "Some" ? it.value : null))
  return { client, sent, world, network, rebound, snapshot, searches, lifetimes }
})

/** In steps: within one, a chain of timers does not get further than its first. */
const advance = (seconds: number) => Effect.repeatN(TestClock.adjust("1 seconds"), seconds - 1)

const success = (sent: Sent, address = mapped): ControlDatagram => ({
  from: sent.to,
  bytes: Stun.encodeSuccess({ txId: sent.bytes.slice(8, 20), mapped: address })
})
const hosts = (it: { candidates: ReadonlyArray<{ kind: string; address: SocketAddr }> } | null) =>
  it?.candidates.map((c) => `${c.kind} ${c.address.host}:${c.address.port}`)

describe("StunActor", () => {
  it.scoped("offers nothing before it knows the sockets", () =>
    Effect.gen(function*() {
      const known = yield* Deferred.make<void>()
      const { snapshot } = yield* setup(Deferred.await(known))
      const reading = yield* Effect.fork(snapshot)
      yield* advance(2)
      assert.isTrue(Option.isNone(yield* Fiber.poll(reading)))
      yield* Deferred.succeed(known, undefined)
      assert.deepStrictEqual(hosts(yield* Fiber.join(reading)), ["host 10.0.0.2:5000"])
    }))

  it.scoped("asks on the schedule, then fails with StunTimeout", () =>
    Effect.gen(function*() {
      const { client, sent } = yield* setup()
      const asking = yield* Effect.fork(client.Discover({ server }))
      yield* TestClock.adjust("1499 millis")
      assert.isNull(yield* Effect.map(Fiber.poll(asking), (it) => (it._tag === "None" ? null : it)))
      yield* TestClock.adjust("1 millis")
      const error = yield* Effect.flip(Fiber.join(asking))
      assert.instanceOf(error, StunTimeout)
      assert.deepStrictEqual(sent.map((s) => s.atMs), [0, 100, 300, 700])
    }))

  it.scoped("ignores stray answers, also from another address", () =>
    Effect.gen(function*() {
      const { client, sent, world } = yield* setup()
      world.answer = (it) => [
        { from: it.to, bytes: new Uint8Array([1, 2, 3]) },
        { from: it.to, bytes: Stun.encodeSuccess({ txId: new Uint8Array(12), mapped }) },
        { ...success(it, { host: "6.6.6.6", port: 6 }), from: { host: "192.0.2.66", port: 3478 } },
        success(it)
      ]
      const found = yield* client.Discover({ server })
      assert.deepStrictEqual(found.mapped, mapped)
      yield* TestClock.adjust("1 minute")
      assert.lengthOf(sent, 1)
    }))

  it.scoped("refuses at once without a socket of that IP version", () =>
    Effect.gen(function*() {
      const { client } = yield* setup()
      for (const host of ["2001:db8::1", "stun.example.org"]) {
        const error = yield* Effect.flip(client.Discover({ server: { host, port: 3478 } }))
        assert.instanceOf(error, StunUnavailable)
      }
    }))

  it.scoped("offers interfaces at once, and reflexive addresses when they come", () =>
    Effect.gen(function*() {
      const { client, snapshot, world } = yield* setup()
      assert.deepStrictEqual(hosts(yield* snapshot), ["host 10.0.0.2:5000"])
      world.answer = (it) => [success(it)]
      yield* client.SetServers({ servers: [server], relayHost: "192.0.2.1" })
      yield* TestClock.adjust("10 millis")
      const now = yield* snapshot
      assert.deepStrictEqual(hosts(now), ["host 10.0.0.2:5000", "srflx 198.51.100.7:40123"])
      assert.strictEqual(now?.udp, "works")
    }))

  it.scoped("offers the default route's address beside 20 container bridges", () =>
    Effect.gen(function*() {
      const { client, network, sent, snapshot, world } = yield* setup()
      world.answer = (it) => [success(it)]
      yield* client.SetServers({ servers: [server], relayHost: null })
      yield* TestClock.adjust("10 millis")
      const changes: Array<NetworkChange> = []
      yield* Effect.forkScoped(
        Stream.runForEach(client.NetworkChanges(), (it) => Effect.sync(() => void changes.push(it)))
      )
      yield* TestClock.adjust("10 millis")
      const asked = sent.length
      const home = at(eth0)
      const bridges = Array.from(
        { length: 20 },
        (_, i) => ({ ...eth0, name: `br-${i}`, host: `172.${17 + i}.0.1`, isInnerBridge: true })
      )
      yield* SubscriptionRef.set(network, { ...home, addresses: [...bridges, ...home.addresses] })
      yield* TestClock.adjust("10 millis")
      const now = yield* snapshot
      assert.deepStrictEqual(hosts(now)?.slice(0, 2), ["host 10.0.0.2:5000", "srflx 198.51.100.7:40123"])
      assert.deepStrictEqual([now?.candidates.length, now?.leftOut.length], [4, 18])
      assert.deepStrictEqual([changes, sent.length], [[], asked], "nothing is proved again for a container's bridge")
      yield* SubscriptionRef.set(network, at({ ...eth0, host: "10.0.0.3" }))
      yield* TestClock.adjust("10 millis")
      assert.lengthOf(changes, 1)
    }))

  it.scoped("offers another VPN's address only if the relay uses it", () =>
    Effect.gen(function*() {
      const wg0 = { ...eth0, name: "wg0", host: "10.77.0.1", hasMac: false }
      const home = at(eth0)
      for (const [towards, offered] of [[[], 1], [["10.77.0.1"], 2]] as const) {
        const { client, network, snapshot } = yield* setup(Effect.void, PortMapper.layerOff, towards)
        yield* SubscriptionRef.set(network, { ...home, addresses: [...home.addresses, wg0] })
        yield* client.SetServers({ servers: [server], relayHost: null })
        yield* TestClock.adjust("10 millis")
        assert.lengthOf((yield* snapshot)?.candidates ?? [], offered)
      }
    }))

  it.scoped("offers loopback, last, where the relay was reached by it", () =>
    Effect.gen(function*() {
      const { client, snapshot } = yield* setup()
      yield* client.SetServers({ servers: [], relayHost: "127.0.0.1" })
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(hosts(yield* snapshot), ["host 10.0.0.2:5000", "host 127.0.0.1:5000"])
    }))

  it.scoped("offers the mapped address until the gateway withdraws it", () =>
    Effect.gen(function*() {
      const state = yield* SubscriptionRef.make<PortMapping | null>(null)
      const followed: Array<number | null> = []
      let looks = 0
      const { client, network, snapshot } = yield* setup(
        Effect.void,
        Layer.succeed(PortMapper.PortMapper, {
          follow: (port) => Effect.sync(() => void followed.push(port)),
          look: Effect.sync(() => void looks++),
          changes: state.changes,
          probe: Effect.succeed(null)
        })
      )
      assert.deepStrictEqual(followed.at(-1), 5000)
      yield* SubscriptionRef.set(state, { protocol: "pcp" as const, external: mapped })
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(hosts(yield* snapshot), ["host 10.0.0.2:5000", "port-mapped 198.51.100.7:40123"])
      const before = looks
      yield* SubscriptionRef.set(network, at({ ...eth0, host: "10.0.0.3" }))
      yield* TestClock.adjust("10 millis")
      assert.strictEqual(looks, before + 1)
      yield* SubscriptionRef.set(state, null)
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(hosts(yield* snapshot), ["host 10.0.0.3:5001"])
      yield* client.MapPort({ wanted: false })
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(followed.at(-1), null, "no port is mapped while only relays are used")
      yield* SubscriptionRef.set(network, at({ ...eth0, host: "10.0.0.4" }))
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(followed.at(-1), null, "nor after a change of the network")
      yield* client.MapPort({ wanted: true })
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(followed.at(-1), 5002)
    }))

  it.scoped("says that UDP is blocked when no server answers", () =>
    Effect.gen(function*() {
      const { client, snapshot } = yield* setup()
      yield* client.SetServers({ servers: [server, { ...server, port: 3479 }], relayHost: null })
      yield* TestClock.adjust("1400 millis")
      assert.strictEqual((yield* snapshot)?.udp, "unknown")
      yield* TestClock.adjust("200 millis")
      assert.strictEqual((yield* snapshot)?.udp, "blocked")
    }))

  it.scoped("asks again every 20 to 26 s, only with sessions", () =>
    Effect.gen(function*() {
      const { client, sent, world } = yield* setup()
      world.answer = (it) => [success(it)]
      yield* client.SetServers({ servers: [server], relayHost: null })
      yield* advance(300)
      assert.lengthOf(sent, 1)
      yield* client.SetActiveSessions({ count: 1, flowing: 0 })
      yield* advance(300)
      const gaps = sent.slice(2).map((it, i) => it.atMs - sent[i + 1]!.atMs)
      assert.isAtLeast(gaps.length, 10)
      for (const gap of gaps) assert.isTrue(gap >= 20_000 && gap <= 26_100, `${gap}`)
      yield* client.SetActiveSessions({ count: 0, flowing: 0 })
      const before = sent.length
      yield* advance(300)
      assert.lengthOf(sent, before)
    }))

  const held: Lifetime = { heldMs: 8_500, lostMs: 29_000, reason: null }
  it.scoped("searches the mapping lifetime once, and again after a move", () =>
    Effect.gen(function*() {
      const { client, lifetimes, network, searches, snapshot } = yield* setup()
      lifetimes.push(held, { ...held, heldMs: 28_500 })
      yield* client.SetServers({ servers: [server], relayHost: null })
      yield* advance(34)
      assert.isUndefined((yield* snapshot)?.lifetime)
      yield* advance(2)
      assert.deepStrictEqual((yield* snapshot)?.lifetime, held)
      yield* client.SetServers({ servers: [server], relayHost: null })
      yield* advance(200)
      assert.deepStrictEqual(searches.map(({ servers }) => servers), [[server]])
      yield* SubscriptionRef.set(network, at({ ...eth0, host: "10.0.0.3" }))
      yield* advance(2)
      assert.isUndefined((yield* snapshot)?.lifetime)
      yield* advance(36)
      assert.strictEqual((yield* snapshot)?.lifetime?.heldMs, 28_500)
      assert.lengthOf(searches, 2)
    }))

  it.scoped("ends the lifetime search when a flow opens", () =>
    Effect.gen(function*() {
      const { client, lifetimes, searches, snapshot } = yield* setup()
      lifetimes.push(held)
      yield* client.SetActiveSessions({ count: 1, flowing: 1 })
      yield* client.SetServers({ servers: [server], relayHost: null })
      yield* advance(100)
      assert.lengthOf(searches, 0)
      yield* client.SetActiveSessions({ count: 1, flowing: 0 })
      yield* advance(6)
      assert.lengthOf(searches, 1)
      yield* client.SetActiveSessions({ count: 2, flowing: 1 })
      yield* advance(10)
      yield* client.SetActiveSessions({ count: 2, flowing: 0 })
      yield* advance(100)
      assert.deepStrictEqual(searches.map(({ ended }) => ended), [false, true])
      assert.approximately(searches[1]!.atMs - searches[0]!.atMs, LifetimeSearch.AGAIN_MS, 100)
      assert.deepStrictEqual((yield* snapshot)?.lifetime, held)
    }))

  it.scoped("repeats the search after a NAT forgets, and unlearns nothing", () =>
    Effect.gen(function*() {
      const { client, lifetimes, searches, snapshot } = yield* setup()
      lifetimes.push(held, { ...held, heldMs: 28_500 })
      yield* client.SetServers({ servers: [server], relayHost: null })
      yield* advance(20)
      yield* client.MappingChanged()
      yield* advance(16)
      assert.deepStrictEqual(searches.map(({ ended }) => ended), [true])
      yield* client.MappingChanged()
      yield* advance(2)
      assert.deepStrictEqual((yield* snapshot)?.lifetime, held)
      yield* advance(70)
      assert.strictEqual((yield* snapshot)?.lifetime?.heldMs, 28_500)
      assert.lengthOf(searches, 2)
    }))

  it.scoped("on a move reopens sockets, reports it, and asks again", () =>
    Effect.gen(function*() {
      const { client, network, rebound, world } = yield* setup()
      world.answer = (it) => [success(it)]
      yield* client.SetServers({ servers: [server], relayHost: null })
      yield* TestClock.adjust("10 millis")
      const told = yield* Effect.fork(Stream.runCollect(Stream.take(client.Candidates(), 4)))
      const changes: Array<unknown> = []
      yield* Effect.forkScoped(
        Stream.runForEach(client.NetworkChanges(), (it) => Effect.sync(() => void changes.push([it, rebound.length])))
      )
      yield* TestClock.adjust("10 millis")
      world.answer = (it) => [success(it, { host: "198.51.100.8", port: 41000 })]
      yield* SubscriptionRef.set(network, at({ ...eth0, name: "wlan0", host: "192.168.1.9" }))
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(rebound, [[4]])
      assert.deepStrictEqual(changes, [[{ reason: "addresses", hosts: ["127.0.0.1", "192.168.1.9"], lost: [4] }, 1]])
      const lists = Chunk.toReadonlyArray(yield* Fiber.join(told)).map(hosts)
      assert.deepStrictEqual(lists[0], ["host 10.0.0.2:5000", "srflx 198.51.100.7:40123"])
      assert.deepStrictEqual(lists[1], ["host 192.168.1.9:5000"], "its new port is not known yet")
      assert.deepStrictEqual(lists.at(-1), ["host 192.168.1.9:5001", "srflx 198.51.100.8:41000"])
    }))

  it.scoped("keeps the sockets when the same address returns", () =>
    Effect.gen(function*() {
      const { client, network, rebound } = yield* setup()
      const changes: Array<unknown> = []
      yield* Effect.forkScoped(
        Stream.runForEach(client.NetworkChanges(), ({ lost }) => Effect.sync(() => void changes.push(lost)))
      )
      yield* TestClock.adjust("10 millis")
      yield* SubscriptionRef.set(network, at(null))
      yield* TestClock.adjust("10 millis")
      yield* SubscriptionRef.set(network, at(eth0))
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(changes, [[4], []])
      assert.deepStrictEqual(rebound, [])
    }))

  it.scoped("reports a new NAT mapping as a change", () =>
    Effect.gen(function*() {
      const { client, sent, world } = yield* setup()
      world.answer = (it) => [success(it)]
      yield* client.SetServers({ servers: [server], relayHost: null })
      yield* TestClock.adjust("10 millis")
      const changes: Array<unknown> = []
      yield* Effect.forkScoped(
        Stream.runForEach(client.NetworkChanges(), ({ reason }) => Effect.sync(() => void changes.push(reason)))
      )
      yield* TestClock.adjust("10 millis")
      const before = sent.length
      yield* client.MappingChanged()
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(changes, ["mapping"])
      assert.isAbove(sent.length, before)
    }))

  it.scoped("takes the configured port when it is free", () =>
    Effect.gen(function*() {
      const known = yield* Deferred.make<void>()
      const { client, snapshot, world } = yield* setup(Deferred.await(known))
      world.ports = { v4: 5000, missed: [{ family: 4, port: 41_641, code: "EADDRINUSE" }] }
      yield* Deferred.succeed(known, undefined)
      const changes: Array<unknown> = []
      yield* Effect.forkScoped(
        Stream.runForEach(client.NetworkChanges(), ({ reason }) => Effect.sync(() => void changes.push(reason)))
      )
      yield* advance(100)
      assert.deepStrictEqual([hosts(yield* snapshot), changes], [["host 10.0.0.2:5000"], []])
      world.free = 41_641
      yield* advance(31)
      assert.deepStrictEqual([hosts(yield* snapshot), changes], [["host 10.0.0.2:41641"], ["route"]])
      yield* advance(100)
      assert.deepStrictEqual(changes, ["route"], "it is not tried again")
    }))

  it.scoped("refuses more questions than it can hold", () =>
    Effect.gen(function*() {
      const { client } = yield* setup()
      const asking = yield* Effect.fork(
        Effect.forEach(Array.from({ length: 70 }), () => Effect.either(client.Discover({ server })), {
          concurrency: "unbounded"
        })
      )
      yield* TestClock.adjust("2 seconds")
      const results = yield* Fiber.join(asking)
      const refused = results.filter((it) => Either.isLeft(it) && it.left instanceof StunUnavailable)
      assert.lengthOf(refused, 6)
    }))
})
