import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Stream, TestClock } from "effect"
import * as Os from "node:os"
import * as NetworkInterfaces from "../../src/services/NetworkInterfaces.ts"

const info = (address: string): Os.NetworkInterfaceInfo => ({
  address,
  family: address.includes(":") ? "IPv6" : "IPv4",
  internal: false,
  mac: "",
  netmask: "",
  cidr: null,
  scopeid: 0
})

type Interfaces = ReturnType<NetworkInterfaces.Read>

const setup = Effect.gen(function*() {
  const world = { read: (): Interfaces => ({ eth0: [info("10.0.0.2")] }), reads: 0 }
  const read = () => {
    world.reads++
    return world.read()
  }
  const context = yield* Layer.build(NetworkInterfaces.layerFrom(read))
  const service = yield* Effect.provide(NetworkInterfaces.NetworkInterfaces, context)
  const told: Array<ReadonlyArray<string>> = []
  yield* Effect.forkScoped(
    Stream.runForEach(service.changes, (list) => Effect.sync(() => void told.push(list.map((it) => it.host))))
  )
  yield* TestClock.adjust("1 millis")
  return { world, told, service }
})
const advance = (ms: number) => Effect.repeatN(TestClock.adjust("10 millis"), ms / 10 - 1)

describe("NetworkInterfaces", () => {
  it("leaves out what can't be used, and keeps loopback", () => {
    const list = NetworkInterfaces.addressesOf({
      eth0: [info("10.0.0.2"), info("fe80::1"), info("2001:db8::2"), info("169.254.3.4")],
      lo: [info("127.0.0.1"), info("::1")],
      down0: undefined
    })
    assert.deepStrictEqual(list.map((it) => it.host), ["10.0.0.2", "2001:db8::2", "127.0.0.1", "::1"])
    assert.deepStrictEqual(list.map((it) => it.loopback), [false, false, true, true])
  })

  it.scoped("tells a change within 200 ms, and nothing while all is as it was", () =>
    Effect.gen(function*() {
      const { service, told, world } = yield* setup
      yield* advance(2_000)
      assert.deepStrictEqual(told, [["10.0.0.2"]])
      assert.isAtLeast(world.reads, 15)
      world.read = () => ({ eth0: [info("10.0.0.9")] })
      yield* advance(200)
      assert.deepStrictEqual(told, [["10.0.0.2"], ["10.0.0.9"]])
      assert.deepStrictEqual((yield* service.current).map((it) => it.host), ["10.0.0.9"])
    }))

  it.scoped("tells one change, not two, where an address goes and another one comes", () =>
    Effect.gen(function*() {
      const { told, world } = yield* setup
      world.read = () => ({})
      yield* advance(110)
      world.read = () => ({ wlan0: [info("192.168.1.9")] })
      yield* advance(400)
      assert.deepStrictEqual(told, [["10.0.0.2"], ["192.168.1.9"]])
    }))

  it.scoped("does not tell a flicker that is over by the second look", () =>
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
      assert.lengthOf(yield* service.current, 1)
      assert.deepStrictEqual(told, [["10.0.0.2"]])
    }))

  it.scoped("reads this machine", () =>
    Effect.gen(function*() {
      const context = yield* Layer.build(NetworkInterfaces.layer)
      const service = yield* Effect.provide(NetworkInterfaces.NetworkInterfaces, context)
      assert.deepStrictEqual(yield* service.current, NetworkInterfaces.addressesOf(Os.networkInterfaces()))
    }))
})
