import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { readFileSync } from "node:fs"
import type { NetworkInterfaceInfo } from "node:os"
import * as LocalAddresses from "../../src/services/network/LocalAddresses.ts"
import * as ListenSockets from "../../src/transport/udp/ListenSockets.ts"
import * as UdpPort from "../../src/transport/udp/UdpPort.ts"

const info = (address: string): NetworkInterfaceInfo => ({
  address,
  family: "IPv4",
  netmask: "",
  mac: "",
  internal: false,
  cidr: null
})
const seen = (...hosts: ReadonlyArray<string>): LocalAddresses.Seen => ({
  interfaces: { eth0: hosts.map(info) },
  source: "netlink"
})

/** All of 127.0.0.0/8 can be bound on Linux, so they stand for addresses that come and go. */
const [A, B, C] = ["127.1.0.1", "127.1.0.2", "127.1.0.3"] as const

const setup = Effect.fnUntraced(
  function*(
    first: LocalAddresses.Seen,
    options: { host?: string; port?: number } = {},
    refused: ReadonlyArray<readonly [string, string]> = []
  ) {
    const world = { seen: first, now: 0, refused: new Map<string, string>(refused) }
    const log = { tries: new Array<string>(), dropped: new Array<number>(), skipped: new Array<string>(), changes: 0 }
    const sockets = yield* ListenSockets.make({
      host: "0.0.0.0",
      port: 0,
      ...options,
      numbers: new ListenSockets.Numbers(),
      required: true,
      open: (place) => {
        log.tries.push(place.host)
        const code = world.refused.get(place.host)
        return code === undefined
          ? UdpPort.openScoped({ ...place, segment: 1200, onMessage: () => {}, onError: () => {} })
          : Effect.fail(new UdpPort.UdpOpenError({ host: place.host, port: place.port, code, message: code }))
      },
      onDropped: (number) => log.dropped.push(number),
      onChange: () => log.changes++,
      onSkipped: ({ code, host }) => Effect.sync(() => void log.skipped.push(`${host} ${code}`)),
      now: () => world.now,
      see: () => world.seen
    })
    const lookAt = (now: number) => Effect.suspend(() => ((world.now = now), sockets.look))
    const hosts = () => sockets.held().map(({ host, number }) => `${number} ${host}`)
    return { hosts, log, lookAt, sockets, world }
  }
)

describe.skipIf(process.platform !== "linux")("ListenSockets", () => {
  it.scopedLive("serves an address that comes later, at the same port", () =>
    Effect.gen(function*() {
      const { hosts, lookAt, sockets, world } = yield* setup(seen(A))
      world.seen = seen(A, B)
      yield* lookAt(1000)
      assert.deepStrictEqual(hosts(), [`0 ${A}`, `1 ${B}`])
      assert.deepStrictEqual(sockets.held().map(({ socket }) => socket.address().port), [
        sockets.port(),
        sockets.port()
      ])
    }))

  it.scopedLive("starts without any address", () =>
    Effect.gen(function*() {
      const { hosts, lookAt, world } = yield* setup(seen(), { port: 0 })
      assert.deepStrictEqual(hosts(), [])
      world.seen = seen(B)
      yield* lookAt(1000)
      assert.deepStrictEqual(hosts(), [`0 ${B}`])
    }))

  it.scopedLive("keeps a socket through a flap, but not much longer", () =>
    Effect.gen(function*() {
      const { hosts, log, lookAt, world } = yield* setup(seen(A, B))
      world.seen = seen(A)
      yield* lookAt(1000)
      yield* lookAt(ListenSockets.KEEP_MS)
      world.seen = seen(A, B)
      yield* lookAt(ListenSockets.KEEP_MS + 2000)
      assert.deepStrictEqual([hosts(), log.dropped], [[`0 ${A}`, `1 ${B}`], []])
      world.seen = seen(A)
      yield* lookAt(100_000)
      yield* lookAt(100_000 + ListenSockets.KEEP_MS)
      assert.deepStrictEqual([hosts(), log.dropped], [[`0 ${A}`], [1]])
      world.seen = seen(A, C)
      yield* lookAt(200_000)
      assert.deepStrictEqual(hosts(), [`0 ${A}`, `1 ${C}`])
    }))

  it.scopedLive("skips an address that cannot be bound, and retries", () =>
    Effect.gen(function*() {
      const world0 = seen(A)
      const { hosts, log, lookAt, sockets, world } = yield* setup(world0)
      world.refused.set(B, "EADDRNOTAVAIL")
      world.seen = seen(A, B)
      for (let now = 1000; now <= 60_000; now += 1000) yield* lookAt(now)
      assert.deepStrictEqual([hosts(), log.skipped], [[`0 ${A}`], [`${B} EADDRNOTAVAIL`]])
      assert.deepStrictEqual(sockets.skipped(), [{ host: B, code: "EADDRNOTAVAIL" }])
      assert.isBelow(log.tries.filter((host) => host === B).length, 8, "the gaps grow")
      world.refused.clear()
      yield* lookAt(120_000)
      assert.deepStrictEqual([hosts(), sockets.skipped()], [[`0 ${A}`, `1 ${B}`], []])
    }))

  it.scopedLive("waits for its one address if it is missing", () =>
    Effect.gen(function*() {
      const port = 45_123
      const { hosts, log, lookAt, sockets, world } = yield* setup(seen(B), { host: A, port }, [[A, "EADDRNOTAVAIL"]])
      assert.deepStrictEqual([hosts(), log.skipped, sockets.port()], [[], [`${A} EADDRNOTAVAIL`], port])
      assert.deepStrictEqual(sockets.skipped(), [{ host: A, code: "EADDRNOTAVAIL" }])
      yield* lookAt(1000)
      world.refused.clear()
      yield* lookAt(4000)
      assert.deepStrictEqual([hosts(), log.skipped, sockets.skipped()], [[`0 ${A}`], [`${A} EADDRNOTAVAIL`], []])
    }))

  it.scopedLive("fails if its one address is taken", () =>
    Effect.gen(function*() {
      const failed = setup(seen(A), { host: A, port: 45_123 }, [[A, "EADDRINUSE"]])
      assert.strictEqual((yield* Effect.flip(failed)).code, "EADDRINUSE")
    }))

  it.scopedLive("fails at the start where every address is taken", () =>
    Effect.gen(function*() {
      const { sockets } = yield* setup(seen(A))
      const error = yield* Effect.flip(setup(seen(A), { port: sockets.port() }))
      assert.strictEqual(error.code, "EADDRINUSE")
    }))

  it.scopedLive("uses a wildcard socket if addresses cannot be seen", () =>
    Effect.gen(function*() {
      const { hosts, sockets } = yield* setup({ interfaces: {}, source: "unseen" })
      assert.isTrue(sockets.blind)
      assert.deepStrictEqual(hosts(), ["0 0.0.0.0"])
    }))
})

describe("LocalAddresses", () => {
  const refuse = () => {
    throw Object.assign(new Error("uv_interface_addresses returned Unknown system error 97"), { errno: 97 })
  }
  const TRIE = `Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 192.0.2.0
        /24 link UNICAST
     |-- 192.0.2.2
        /32 host LOCAL
Local:
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 192.0.2.2
        /32 host LOCAL
     |-- 192.0.2.255
        /32 link BROADCAST
`
  const INET6 = `20010db8000000000000000000000002 04 40 00 80     eth0
20010db8000000000000000000000003 04 40 00 c0     eth0
20010db8000000000000000000000004 04 40 00 88     eth0
00000000000000000000000000000001 01 80 10 80       lo
`

  it("are read from /proc without netlink", () => {
    const { interfaces, source } = LocalAddresses.see({
      netlink: refuse,
      file: (path) => (path.endsWith("fib_trie") ? TRIE : INET6)
    })
    assert.strictEqual(source, "proc")
    const all = Object.values(interfaces).flatMap((infos) => infos?.map(({ address }) => address) ?? [])
    assert.sameMembers(all, ["127.0.0.1", "192.0.2.2", "2001:db8::2", "::1"])
  })

  it("are offered to peers without those that cannot be used", () => {
    const listed = ["192.0.2.2", "2001:db8::2", "2001:db8::3", "2001:db8::4"].map(
      (address): NetworkInterfaceInfo =>
        address.includes(":")
          ? { address, family: "IPv6", netmask: "", mac: "", internal: false, cidr: null, scopeid: 0 }
          : info(address)
    )
    const offered = (file: LocalAddresses.Ways["file"]) =>
      LocalAddresses.interfaces({ netlink: () => ({ eth0: listed }), file })["eth0"]?.map(({ address }) => address)
    assert.deepStrictEqual(offered(() => INET6), ["192.0.2.2", "2001:db8::2"])
    assert.deepStrictEqual(offered(refuse), listed.map(({ address }) => address))
  })

  it("are unseen where neither can be read", () => {
    assert.strictEqual(LocalAddresses.see({ netlink: refuse, file: refuse }).source, "unseen")
  })

  it("agree with what netlink says on this machine", () => {
    const byNetlink = LocalAddresses.see()
    if (process.platform !== "linux" || byNetlink.source !== "netlink") return
    const byProc = LocalAddresses.see({ netlink: refuse, file: (path) => readFileSync(path, "utf8") })
    const hosts = ({ interfaces }: LocalAddresses.Seen) =>
      new Set(Object.values(interfaces).flatMap((infos) => infos?.map(({ address }) => address) ?? []))
    for (const host of hosts(byNetlink)) assert.include([...hosts(byProc)], host)
  })
})
