import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Effect, Exit, Fiber, Layer, Option, Scope, Stream, TestClock } from "effect"
import { createSocket } from "node:dgram"
import * as Igd from "../../src/protocol/nat/Igd.ts"
import * as Gateway from "../../src/services/network/portmap/Gateway.ts"
import * as GatewayUdp from "../../src/services/network/portmap/GatewayUdp.ts"
import * as IgdClient from "../../src/services/network/portmap/IgdClient.ts"
import * as PortMapper from "../../src/services/network/portmap/PortMapper.ts"
import * as FakeGateway from "./FakeGateway.ts"
import { someTurns, turnsUntil } from "./support/Turns.ts"

const PORT = 41_000

const mapperFor = (
  fake: FakeGateway.FakeGateway,
  gateway: Effect.Effect<string | null> = Effect.succeed(FakeGateway.HOST)
) =>
  Effect.map(
    Layer.build(PortMapper.layerFrom({
      gateway,
      port: fake.port,
      ssdpPort: fake.ssdpPort,
      announcePort: fake.announcePort
    })),
    (context) => Context.get(context, PortMapper.PortMapper)
  )

/** The next state that is a mapping. */
const mapped = (mapper: typeof PortMapper.PortMapper.Service) =>
  mapper.changes.pipe(
    Stream.filter((it) => it !== null),
    Stream.runHead,
    Effect.map(Option.getOrThrow)
  )
/** Lets virtual time pass, on the gateway's clock, too. */
const passed = (fake: FakeGateway.FakeGateway, ms: number) =>
  Effect.gen(function*() {
    fake.bornMs -= ms
    yield* TestClock.adjust(ms)
    yield* someTurns
  })
/** Lets virtual time pass in small steps, as requests without an answer need it, until a sleep of `ms` has begun. */
const nextSleep = (ms: number) =>
  Effect.gen(function*() {
    while (true) {
      yield* someTurns
      const now = yield* Clock.currentTimeMillis
      const sleeps = Array.from(yield* TestClock.sleeps())
      if (sleeps.includes(now + ms)) return
      yield* TestClock.adjust("50 millis")
    }
  })

describe("PortMapper", () => {
  for (
    const [speaks, protocol, port] of [
      [["pcp", "nat-pmp", "upnp"], "pcp", PORT + 1000],
      [["nat-pmp", "upnp"], "nat-pmp", PORT + 1000],
      [["upnp"], "upnp", PORT]
    ] as const
  ) {
    it.scopedLive(`maps by ${protocol} where the gateway speaks ${speaks.join(", ")}`, () =>
      Effect.gen(function*() {
        const fake = yield* FakeGateway.make
        fake.speaks = speaks
        const scope = yield* Scope.make()
        const mapper = yield* Scope.extend(mapperFor(fake), scope)
        yield* mapper.follow(PORT)
        assert.deepStrictEqual(yield* mapped(mapper), { protocol, external: { host: "198.51.100.7", port } })
        yield* Scope.close(scope, Exit.void)
        assert.include(fake.asked[0], `${protocol} map ${PORT} 600`)
        assert.strictEqual(fake.asked.at(-1), `${protocol} unmap ${PORT}`)
        assert.lengthOf(fake.asked, 2)
      }))
  }

  it.scoped("renews at half of each lifetime, by the same nonce", () =>
    Effect.gen(function*() {
      const fake = yield* FakeGateway.make
      const mapper = yield* mapperFor(fake)
      const halfMs = fake.lifetimeS * 500
      yield* mapper.follow(PORT)
      for (let period = 1; period <= 4; period++) {
        yield* turnsUntil(() => fake.asked.length === period)
        yield* nextSleep(halfMs) // the answer has arrived
        yield* passed(fake, halfMs - 1)
        assert.lengthOf(fake.asked, period)
        yield* passed(fake, 1)
      }
      yield* turnsUntil(() => fake.asked.length === 5)
      assert.strictEqual(fake.nonces.size, 1)
    }))

  it.scoped("asks less often the longer no gateway answers", () =>
    Effect.gen(function*() {
      const fake = yield* FakeGateway.make
      fake.speaks = []
      const mapper = yield* mapperFor(fake)
      yield* mapper.follow(PORT)
      for (const seconds of [15, 30, 60, 120, 240, 480, 900, 900, 900]) {
        yield* nextSleep(seconds * 1000)
        yield* passed(fake, seconds * 1000)
      }
      fake.speaks = ["pcp"]
      yield* nextSleep(fake.lifetimeS * 500)
      assert.deepStrictEqual(fake.asked, [`pcp map ${PORT} 600`])
    }))

  it.scopedLive("maps again when the gateway restarted", () =>
    Effect.gen(function*() {
      const fake = yield* FakeGateway.make
      const mapper = yield* mapperFor(fake)
      yield* mapper.follow(PORT)
      yield* mapped(mapper)
      fake.external = "198.51.100.9"
      yield* FakeGateway.restart(fake)
      yield* turnsUntil(() => fake.asked.length === 2)
      const now = mapper.changes.pipe(Stream.filter((it) => it?.external.host === "198.51.100.9"), Stream.runHead)
      assert.isTrue(Option.isSome(yield* now))
    }))

  it.scopedLive("moves the mapping with the port", () =>
    Effect.gen(function*() {
      const fake = yield* FakeGateway.make
      const mapper = yield* mapperFor(fake)
      yield* mapper.follow(PORT)
      yield* mapped(mapper)
      yield* mapper.follow(PORT + 1)
      yield* turnsUntil(() => fake.asked.length === 3)
      assert.deepStrictEqual(fake.asked, [`pcp map ${PORT} 600`, `pcp unmap ${PORT}`, `pcp map ${PORT + 1} 600`])
    }))

  it.scopedLive("withdraws the address when the gateway is gone", () =>
    Effect.gen(function*() {
      const fake = yield* FakeGateway.make
      let gateway: string | null = FakeGateway.HOST
      const mapper = yield* mapperFor(fake, Effect.sync(() => gateway))
      yield* mapper.follow(PORT)
      yield* mapped(mapper)
      gateway = null
      yield* mapper.look
      const none = mapper.changes.pipe(Stream.filter((it) => it === null), Stream.runHead)
      yield* none
      gateway = FakeGateway.HOST
      yield* mapper.look
      yield* mapped(mapper)
    }))

  it.scopedLive("takes another port or a permanent lease with UPnP", () =>
    Effect.gen(function*() {
      const fake = yield* FakeGateway.make
      fake.speaks = ["upnp"]
      fake.addCodes = [725, 718, 0]
      const mapper = yield* mapperFor(fake)
      yield* mapper.follow(PORT)
      const { external } = yield* mapped(mapper)
      assert.notStrictEqual(external.port, PORT)
      assert.deepStrictEqual(fake.asked, [
        `upnp map ${PORT} 600 to 127.0.0.1`,
        `upnp map ${PORT} 0 to 127.0.0.1`,
        `upnp map ${external.port} 0 to 127.0.0.1`
      ])
    }))

  it.scopedLive("offers nothing where the gateway itself has no address", () =>
    Effect.gen(function*() {
      const fake = yield* FakeGateway.make
      fake.external = "0.0.0.0"
      const mapper = yield* mapperFor(fake)
      yield* mapper.follow(PORT)
      yield* turnsUntil(() => fake.asked.some((it) => it.startsWith("upnp")))
      assert.isNull(Option.getOrThrow(yield* Stream.runHead(mapper.changes)))
    }))

  it.scopedLive("probes in parallel, and is done though all are silent", () =>
    Effect.gen(function*() {
      const fake = yield* FakeGateway.make
      const mapper = yield* mapperFor(fake)
      assert.deepStrictEqual(yield* mapper.probe, {
        gateway: FakeGateway.HOST,
        protocols: ["pcp", "nat-pmp", "upnp"],
        external: "198.51.100.7"
      })
      fake.speaks = []
      const silent = yield* mapper.probe
      assert.deepStrictEqual(silent, { gateway: FakeGateway.HOST, protocols: [], external: null })
      assert.deepStrictEqual(fake.asked, [])
    }))
})

describe("a silent gateway", () => {
  /** A UDP socket at the gateway's address that answers nothing, and what it got. */
  const silent = Effect.gen(function*() {
    const got: Array<string> = []
    const socket = yield* Effect.acquireRelease(
      Effect.async<ReturnType<typeof createSocket>>((resume) => {
        const socket = createSocket("udp4", (bytes) => void got.push(String(bytes)))
        socket.bind(0, FakeGateway.HOST, () => resume(Effect.succeed(socket)))
      }),
      (socket) => Effect.sync(() => void socket.close())
    )
    return { got, port: socket.address().port }
  })
  /** Asks, and asks again after each gap except the last, which is the wait for an answer. */
  const asks = Effect.fnUntraced(function*(
    ask: Effect.Effect<unknown, { readonly reason: string }>,
    got: ReadonlyArray<string>,
    gapsMs: ReadonlyArray<number>
  ) {
    const before = got.length
    const asking = yield* Effect.fork(Effect.flip(ask))
    for (const [sent, gapMs] of gapsMs.entries()) {
      yield* turnsUntil(() => got.length - before === sent + 1)
      yield* TestClock.adjust(gapMs - 1)
      yield* someTurns
      assert.strictEqual(got.length - before, sent + 1)
      assert.isNull(asking.unsafePoll())
      yield* TestClock.adjust(1)
    }
    assert.strictEqual((yield* Fiber.join(asking)).reason, "Silent")
    assert.strictEqual(got.length - before, gapsMs.length)
  })

  it.scoped("is asked three times by PCP and NAT-PMP", () =>
    Effect.gen(function*() {
      const { got, port } = yield* silent
      const question = { protocol: "pcp", host: FakeGateway.HOST, port, read: () => null } as const
      for (let period = 1; period <= 4; period++) {
        const bytes = () => Buffer.from(`question ${period}`)
        yield* asks(GatewayUdp.ask({ ...question, bytes }), got, [150, 250, 500])
        assert.deepStrictEqual(got.slice(-3), Array.from({ length: 3 }, () => `question ${period}`))
      }
    }))

  it.scoped("is searched twice by UPnP", () =>
    Effect.gen(function*() {
      const { got, port } = yield* silent
      for (let period = 1; period <= 4; period++) {
        yield* asks(IgdClient.externalHost({ gateway: FakeGateway.HOST, ssdpPort: port }), got, [300, 900])
      }
      assert.deepStrictEqual(new Set(got), new Set([Igd.SEARCH]))
    }))
})

describe("the default gateway", () => {
  it("is the one of the lowest metric in /proc/net/route", () => {
    const table = [
      "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT",
      "wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0",
      "eth0\t00000000\t0114140A\t0003\t0\t0\t100\t00000000\t0\t0\t0",
      "tun0\t00000000\t00000000\t0001\t0\t0\t50\t00000000\t0\t0\t0",
      "eth0\t0014140A\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0"
    ].join("\n")
    assert.strictEqual(Gateway.fromProc(table), "10.20.20.1")
    assert.isNull(Gateway.fromProc(""))
    assert.isNull(Gateway.fromProc("Iface\nnonsense \0 x"))
  })

  it("is read from ip and from netstat", () => {
    assert.strictEqual(Gateway.fromIpRoute("192.0.2.1 via 10.20.0.1 dev eth0 src 10.20.0.10 uid 0"), "10.20.0.1")
    assert.isNull(Gateway.fromIpRoute("192.0.2.1 dev wg0 src 10.9.0.2"))
    const table =
      "Internet:\nDestination  Gateway  Flags Netif\ndefault  link#12  UCSIg  bridge100\ndefault  192.168.1.1  UGScg  en0\n"
    assert.strictEqual(Gateway.fromNetstat(table), "192.168.1.1")
    assert.isNull(Gateway.fromNetstat("default  fe80::1%en0  UGcg  en0"))
  })
})
