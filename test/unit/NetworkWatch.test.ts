import { assert, describe, it } from "@effect/vitest"
import { type Clock, Effect, Layer, Stream, TestClock } from "effect"
import { mkdirSync, mkdtempSync, rmSync } from "node:fs"
import * as Os from "node:os"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as NetworkWatch from "../../src/services/network/NetworkWatch.ts"

const info = (address: string): Os.NetworkInterfaceInfo => ({
  address,
  family: address.includes(":") ? "IPv6" : "IPv4",
  internal: false,
  mac: "",
  netmask: "",
  cidr: null,
  scopeid: 0
})

const ETH0 = { name: "eth0", loopback: false, hasMac: true, isTun: false, isInnerBridge: false }

type Interfaces = ReturnType<NetworkWatch.Read>

const setup = Effect.gen(function*() {
  let asleepMs = 0
  const clock = yield* Effect.clock
  const wallMs = Effect.map(clock.currentTimeMillis, (now) => now + asleepMs)
  const world = {
    read: (): Interfaces => ({ eth0: [info("10.0.0.2")] }),
    reads: 0,
    /** Interfaces that the kernel was asked about. */
    asked: [] as Array<string>,
    outward: { v4: "10.0.0.2", v6: null } as NetworkWatch.Outward,
    hint: () => {},
    /** Makes the wall clock jump, as it does during a sleep. */
    sleep: (ms: number) => void (asleepMs += ms),
    watching: (isWatching: boolean): unknown => isWatching
  }
  const read = () => {
    world.reads++
    return world.read()
  }
  const hints = (look: () => void, watching: (isWatching: boolean) => void) => {
    world.hint = look
    world.watching = watching
    return Effect.never
  }
  const device = (name: string) => {
    world.asked.push(name)
    return { isTun: false, isInnerBridge: false }
  }
  const outward = Effect.sync(() => world.outward)
  const source = (host: string) => Effect.succeed(host.startsWith("10.9.") ? "10.9.0.1" : world.outward.v4)
  const context = yield* Layer.build(NetworkWatch.layerFrom({ busyMs: () => 0, read, device, outward, source, hints }))
    .pipe(Effect.withClock(Object.assign(Object.create(clock) as Clock.Clock, { currentTimeMillis: wallMs })))
  const service = yield* Effect.provide(NetworkWatch.NetworkWatch, context)
  const told: Array<ReadonlyArray<string>> = []
  const states: Array<NetworkWatch.NetworkState> = []
  yield* Effect.forkScoped(
    Stream.runForEach(service.changes, (state) =>
      Effect.sync(() => {
        states.push(state)
        told.push(state.addresses.map((it) => it.host))
      }))
  )
  yield* TestClock.adjust("1 millis")
  return { world, told, states, service }
})
const advance = (ms: number) => Effect.repeatN(TestClock.adjust("10 millis"), ms / 10 - 1)

describe("NetworkWatch", () => {
  it("leaves out what can't be used, and keeps loopback", () => {
    const list = NetworkWatch.addressesOf({
      eth0: [info("10.0.0.2"), info("fe80::1"), info("2001:db8::2"), info("169.254.3.4")],
      lo: [info("127.0.0.1"), info("::1")],
      down0: undefined
    })
    assert.deepStrictEqual(list.map((it) => it.host), ["10.0.0.2", "2001:db8::2", "127.0.0.1", "::1"])
    assert.deepStrictEqual(list.map((it) => it.loopback), [false, false, true, true])
  })

  it.scoped("reports a change within 200 ms, and nothing otherwise", () =>
    Effect.gen(function*() {
      const { service, told, world } = yield* setup
      yield* advance(2_000)
      assert.deepStrictEqual(told, [["10.0.0.2"]])
      assert.isAtLeast(world.reads, 15)
      world.read = () => ({ eth0: [info("10.0.0.9")] })
      yield* advance(200)
      assert.deepStrictEqual(told, [["10.0.0.2"], ["10.0.0.9"]])
      assert.deepStrictEqual((yield* service.current).addresses.map((it) => it.host), ["10.0.0.9"])
      assert.deepStrictEqual(world.asked, ["eth0"], "the kernel is asked once about each interface")
    }))

  it.scoped("looks period after period", () =>
    Effect.gen(function*() {
      const { states, world } = yield* setup
      const last = () => states.at(-1)
      for (let period = 1; period <= 4; period++) {
        const [address, route] = [`10.0.${period}.2`, `10.0.${period}.3`]
        world.read = () => ({ eth0: [info(address), info(route)] })
        yield* advance(200)
        assert.deepStrictEqual(last()?.addresses.map(({ host }) => host), [address, route], `period ${period}`)
        world.outward = { v4: route, v6: null }
        yield* advance(1_200) // only some looks ask for the route
        assert.strictEqual(last()?.outward.v4, route, `period ${period}`)
        const { reads } = world
        yield* advance(1_000)
        assert.strictEqual(world.reads - reads, 10, `period ${period}`)
        assert.strictEqual(states.length, 1 + 2 * period, "each change is reported once")
      }
    }))

  it.scoped("notices each sleep of its host", () =>
    Effect.gen(function*() {
      const { states, world } = yield* setup
      for (let period = 1; period <= 4; period++) {
        world.sleep(60_000)
        yield* advance(100)
        assert.strictEqual(states.at(-1)?.wakes, period)
        yield* advance(2_000)
        assert.strictEqual(states.at(-1)?.wakes, period)
      }
    }))

  it.scoped("looks rarely while the system reports changes", () =>
    Effect.gen(function*() {
      const { told, world } = yield* setup
      const readsIn = Effect.fnUntraced(function*(ms: number) {
        const before = world.reads
        yield* advance(ms)
        return world.reads - before
      })
      world.watching(true)
      assert.isAtMost(yield* readsIn(2_000), 5)
      world.read = () => ({ eth0: [info("10.0.0.9")] })
      world.hint()
      yield* advance(20)
      assert.deepStrictEqual(told, [["10.0.0.2"], ["10.0.0.9"]])
      world.watching(false)
      assert.isAtLeast(yield* readsIn(2_000), 15)
    }))

  it.scoped("reports a replaced address as one change", () =>
    Effect.gen(function*() {
      const { told, world } = yield* setup
      world.read = () => ({})
      yield* advance(110)
      world.read = () => ({ wlan0: [info("192.168.1.9")] })
      yield* advance(400)
      assert.deepStrictEqual(told, [["10.0.0.2"], ["192.168.1.9"]])
    }))

  it.scoped("ignores a flicker that is over by the second look", () =>
    Effect.gen(function*() {
      const { told, world } = yield* setup
      const good = world.read
      world.read = () => ({})
      yield* advance(110)
      world.read = good
      yield* advance(500)
      assert.deepStrictEqual(told, [["10.0.0.2"]])
    }))

  it.scoped("keeps the last good answer while the system refuses", () =>
    Effect.gen(function*() {
      const { service, told, world } = yield* setup
      world.read = () => {
        throw new Error("EMFILE")
      }
      yield* advance(1_000)
      assert.lengthOf((yield* service.current).addresses, 1)
      assert.deepStrictEqual(told, [["10.0.0.2"]])
    }))

  it.scoped("looks at once when notified, and reports bursts once", () =>
    Effect.gen(function*() {
      const { told, world } = yield* setup
      yield* advance(30)
      world.read = () => ({})
      world.hint()
      yield* TestClock.adjust("5 millis")
      world.read = () => ({ wlan0: [info("192.168.1.9")] })
      world.hint()
      yield* advance(30)
      assert.deepStrictEqual(told, [["10.0.0.2"], ["192.168.1.9"]])
    }))

  it.scoped("reports another default route's address within a second", () =>
    Effect.gen(function*() {
      const { states, world } = yield* setup
      world.read = () => ({ eth0: [info("10.0.0.2")], wlan0: [info("192.168.1.9")] })
      yield* advance(300)
      world.outward = { v4: "192.168.1.9", v6: null }
      yield* advance(1_200)
      assert.deepStrictEqual(states.map((state) => state.outward.v4), ["10.0.0.2", "10.0.0.2", "192.168.1.9"])
      const [first, wider, rerouted] = states as [
        NetworkWatch.NetworkState,
        NetworkWatch.NetworkState,
        NetworkWatch.NetworkState
      ]
      assert.strictEqual(NetworkWatch.reasonOf(first, wider), "addresses")
      assert.strictEqual(NetworkWatch.reasonOf(wider, rerouted), "route")
      assert.deepStrictEqual(NetworkWatch.lost(wider, rerouted), [], "the old address is still there")
    }))

  it("knows a sleep by either clock, and calls it that", () => {
    const before = { wallMs: 1_000_000, monotonicMs: 50_000, busyMs: 7_000 }
    const after = (wallMs: number, monotonicMs: number, busyMs = 0) =>
      NetworkWatch.hasSlept(before, {
        wallMs: before.wallMs + wallMs,
        monotonicMs: before.monotonicMs + monotonicMs,
        busyMs: before.busyMs + busyMs
      })
    assert.isFalse(after(100, 100))
    assert.isFalse(after(2_000, 2_000), "a busy machine")
    assert.isTrue(after(60_000, 100), "the monotonic clock stood still")
    assert.isTrue(after(60_000, 60_000), "nobody looked")
    assert.isFalse(after(-60_000, 100), "the wall clock was set back")
    assert.isFalse(after(20_000, 20_000, 19_000), "it waited for a processor")
    assert.isTrue(after(60_000, 60_000, 19_000), "it waited for a processor, and nobody looked")
    const state = { addresses: [], outward: { v4: null, v6: null }, wakes: 0 }
    assert.strictEqual(NetworkWatch.reasonOf(state, { ...state, wakes: 1 }), "woke")
  })

  it("requests new sockets when their address is gone", () => {
    const at = (v4: string | null, ...hosts: ReadonlyArray<string>): NetworkWatch.NetworkState => ({
      addresses: hosts.map((host) => Object.assign({}, ETH0, { host, family: 4 as const })),
      outward: { v4, v6: null },
      wakes: 0
    })
    const home = at("10.0.0.2", "10.0.0.2")
    assert.deepStrictEqual(NetworkWatch.lost(home, at(null)), [4])
    assert.deepStrictEqual(NetworkWatch.replaced(home.outward, at(null)), [], "nothing leads out now")
    assert.deepStrictEqual(
      NetworkWatch.replaced(home.outward, home),
      [],
      "it came back: translators still know the port"
    )
    assert.deepStrictEqual(NetworkWatch.replaced(home.outward, at("10.0.0.2", "10.0.0.2", "172.17.0.1")), [])
    const away = at("192.168.1.9", "192.168.1.9")
    assert.deepStrictEqual(NetworkWatch.replaced(home.outward, away), [4])
    assert.deepStrictEqual(NetworkWatch.firstOf(home.outward, away.outward, [4]), away.outward)
    assert.deepStrictEqual(NetworkWatch.firstOf(home.outward, away.outward, []), home.outward)
    assert.deepStrictEqual(NetworkWatch.firstOf({ v4: null, v6: null }, home.outward, []), home.outward)
  })

  it("counts a tunnel's address only on the default route", () => {
    const addresses = NetworkWatch.addressesOf({
      br0: [{ ...info("172.17.0.1"), mac: "02:00:00:00:00:02" }],
      eth0: [{ ...info("192.168.1.9"), mac: "02:00:00:00:00:01" }],
      lo: [{ ...info("127.0.0.1"), mac: "00:00:00:00:00:00" }],
      wg0: [{ ...info("10.77.0.1"), mac: "00:00:00:00:00:00" }, { ...info("2001:db8::77"), mac: "00:00:00:00:00:00" }]
    }, (name) => ({ isTun: false, isInnerBridge: name === "br0" }))
    const at = (v4: string | null, v6: string | null) =>
      NetworkWatch.hostsOf({ addresses, outward: { v4, v6 }, wakes: 0 }).map(({ host, use }) => `${host} ${use}`)
    const lo = "127.0.0.1 loopback"
    assert.deepStrictEqual(at("192.168.1.9", null), [
      "172.17.0.1 virtual",
      "192.168.1.9 outward",
      lo,
      "10.77.0.1 tunnel",
      "2001:db8::77 tunnel"
    ])
    assert.deepStrictEqual(at("10.77.0.1", "2001:db8::77"), [
      "172.17.0.1 virtual",
      "192.168.1.9 lan",
      lo,
      "10.77.0.1 outward",
      "2001:db8::77 outward"
    ])
    assert.deepStrictEqual(at("172.17.0.1", null)[0], "172.17.0.1 outward")
  })

  it("tells changes of containers and tunnels from those that matter", () => {
    const at = (v4: string, ...addresses: ReadonlyArray<NetworkWatch.InterfaceAddress>) => ({
      addresses,
      outward: { v4, v6: null },
      wakes: 0
    })
    const eth0 = { ...ETH0, host: "10.0.0.2", family: 4 } as const
    const wlan0 = { ...eth0, name: "wlan0", host: "10.1.0.2" }
    const docker0 = { ...eth0, name: "docker0", host: "172.17.0.1" }
    const before = at("10.0.0.2", eth0)
    const isInner = (now: NetworkWatch.NetworkState) => NetworkWatch.isInner(before, now, { prefer: [], exclude: [] })
    assert.isTrue(isInner(at("10.0.0.2", eth0, docker0)))
    assert.isFalse(isInner(at("10.0.0.2", eth0, wlan0)))
    assert.isFalse(isInner(at("10.0.0.9", { ...eth0, host: "10.0.0.9" })))
    assert.isFalse(isInner(at("172.17.0.1", eth0, docker0)), "another way out")
    assert.isFalse(isInner({ ...before, wakes: 1 }))
    const all = { prefer: ["docker*"], exclude: [] }
    assert.isFalse(NetworkWatch.isInner(before, at("10.0.0.2", eth0, docker0), all), "preferred")
  })

  it("tells a container bridge from a bridged network card", () => {
    const root = mkdtempSync(join(tmpdir(), "sys-"))
    const make = (...folders: ReadonlyArray<string>) => {
      for (const folder of folders) mkdirSync(join(root, folder), { recursive: true })
    }
    make(
      "docker9/bridge",
      "docker9/brif/veth1",
      "veth1",
      "lan9/bridge",
      "lan9/brif/enp1",
      "enp1/device",
      "tun9/tun_flags"
    )
    make("vlan9/bridge", "vlan9/brif/enp1.5", "enp1.5/lower_enp1", "empty9/bridge")
    const told = (name: string) => NetworkWatch.deviceOf(name, root)
    assert.deepStrictEqual(["docker9", "empty9", "lan9", "vlan9", "enp1", "none"].map((it) => told(it).isInnerBridge), [
      true,
      true,
      false,
      false,
      false,
      false
    ])
    assert.deepStrictEqual(["tun9", "enp1"].map((it) => told(it).isTun), [true, false])
    rmSync(root, { recursive: true })
  })

  it.scoped("reports once each source address for some hosts", () =>
    Effect.gen(function*() {
      const { service } = yield* setup
      const hosts = ["192.0.2.7", "10.9.0.5", "192.0.2.8"]
      assert.deepStrictEqual(yield* service.towards(hosts), ["10.0.0.2", "10.9.0.1"])
      assert.deepStrictEqual(yield* service.towards([]), [])
    }))

  it.scoped("reads this machine", () =>
    Effect.gen(function*() {
      const context = yield* Layer.build(NetworkWatch.layer)
      const service = yield* Effect.provide(NetworkWatch.NetworkWatch, context)
      assert.deepStrictEqual(yield* service.towards(["127.0.0.1"]), ["127.0.0.1"])
      assert.deepStrictEqual(
        (yield* service.current).addresses,
        NetworkWatch.addressesOf(Os.networkInterfaces(), (name) => NetworkWatch.deviceOf(name))
      )
    }))
})
