import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Stun from "../../src/protocol/nat/Stun.ts"
import * as StunPlaces from "../../src/protocol/nat/StunPlaces.ts"
import * as RelaySockets from "../../src/transport/relay/RelaySockets.ts"
import { makeStats } from "../../src/transport/relay/RelayStats.ts"
import { StunServer } from "../../src/transport/relay/StunServer.ts"
import * as NetCheck from "../../src/transport/udp/NetCheck.ts"
import { freePort } from "../support/Ports.ts"

/** Only Linux has all of 127/8. */
const SECOND = process.platform === "linux" ? "127.0.0.2" : null

/** A relay's STUN part on loopback. */
const serve = Effect.fnUntraced(
  function*(options: { host: string | null; port: number } | null, mayAnswer = () => true) {
    const stats = makeStats()
    const server = new StunServer({ mayAnswer, stats, now: () => performance.now(), allowLonger: false })
    const host = "127.0.0.1"
    const sockets = yield* RelaySockets.make({
      server: {
        stun: server,
        onUdp: (bytes, from, socket) => server.onUdp(bytes, from, socket),
        setPort: (number, socket) => server.setSocket(number, socket, null),
        dropSocket: (number) => server.dropSocket(number)
      },
      host,
      port: 0,
      alternate: options,
      segment: 1200,
      onError: (cause) => assert.fail(cause.message),
      now: () => performance.now()
    })
    return { address: { host, port: sockets.port() }, stats }
  }
)

describe("NetCheck", () => {
  it.scopedLive.skipIf(SECOND === null)(
    "names everything against a server with two addresses",
    () =>
      Effect.gen(function*() {
        const { address, stats } = yield* serve({ host: SECOND, port: yield* Effect.promise(freePort) })
        const { direct, ipv4, ipv6 } = yield* NetCheck.run("here", [address])
        assert.isNull(ipv6)
        assert.strictEqual(ipv4?.udp, "works")
        assert.isFalse(ipv4?.translated)
        assert.deepStrictEqual(ipv4?.mapping, { value: "endpoint-independent", reason: null })
        assert.deepStrictEqual(ipv4?.filtering, { value: "endpoint-independent", reason: null })
        assert.strictEqual(ipv4?.hairpin.value, "not-needed")
        assert.strictEqual(ipv4?.ports.value, "preserving")
        assert.isNumber(ipv4?.rttMs)
        assert.strictEqual(direct.expected, "yes")
        assert.isAtLeast(stats.answered.stun, 15)
        assert.strictEqual(stats.drops.tooShort, 0)
      })
  )

  it.scopedLive("uses the next port as the second one", () =>
    Effect.gen(function*() {
      const { address } = yield* serve(null)
      const { ipv4 } = yield* NetCheck.run("here", [address])
      assert.strictEqual(ipv4?.mapping.value, "endpoint-independent")
      assert.strictEqual(ipv4?.filtering.value, "unknown")
      assert.match(ipv4?.filtering.reason ?? "", /no second address/)
    }))

  it.scopedLive("finds UDP blocked where nothing answers", () =>
    Effect.gen(function*() {
      const { address, stats } = yield* serve(null, () => false)
      const { direct, ipv4 } = yield* NetCheck.run("here", [address])
      assert.strictEqual(ipv4?.udp, "blocked")
      assert.strictEqual(direct.expected, "no")
      assert.isAbove(stats.drops.overRate, 5)
    }))

  it.live("says so where there is no way to the server", () =>
    Effect.gen(function*() {
      const { direct, ipv4, ipv6 } = yield* NetCheck.run("nowhere", [])
      assert.deepStrictEqual([ipv4, ipv6, direct.expected], [null, null, "no"])
    }))
})

describe("StunServer", () => {
  it("never answers with more bytes, or 420 without a socket", () => {
    const sent: Array<Uint8Array> = []
    const output = {
      send: (bytes: Uint8Array, offset: number, length: number) => void sent.push(bytes.slice(offset, offset + length))
    }
    const stats = makeStats()
    const server = new StunServer({ mayAnswer: () => true, stats, now: () => 0, allowLonger: false })
    const from = { address: "2001:db8::1", port: 7 }
    server.setSocket(0, output, { host: "2001:db8::2", port: 1 }, { port: 1, address: 2, both: 3 })
    server.setSocket(3, output, { host: "2001:db8::3", port: 2 })
    const change = { address: true, port: true }
    for (let bytes = 28; bytes <= 120; bytes += 4) {
      for (const asked of [undefined, change, { address: false, port: true }]) {
        sent.length = 0
        const request = Stun.encodeRequest({ txId: new Uint8Array(12), bytes, change: asked })
        server.onUdp(request, from, 0)
        assert.isAtMost(sent[0]?.length ?? 0, request.length)
        if (sent[0] === undefined) assert.isBelow(request.length, 60)
      }
    }
    assert.isAbove(stats.drops.tooShort, 0)
    const ask = (asked: Stun.Change) => {
      sent.length = 0
      server.onUdp(Stun.encodeRequest({ txId: new Uint8Array(12), change: asked }), from, 0)
      const reply = Stun.decode(sent[0] ?? new Uint8Array())
      return reply._tag === "Right" ? reply.right : null
    }
    const obeyed = ask(change)
    assert.deepStrictEqual(obeyed?._tag === "Success" ? obeyed.origin : null, { host: "2001:db8::3", port: 2 })
    const refused = ask({ address: true, port: false })
    assert.strictEqual(refused?._tag === "Error" ? refused.code : 0, 420)
  })

  it("answers to another port of the asking address", () => {
    const sent: Array<{ readonly length: number; readonly to: string }> = []
    const output = {
      send: (_: Uint8Array, __: number, length: number, port: number, host: string) =>
        void sent.push({ length, to: `${host} ${port}` })
    }
    const server = new StunServer({ mayAnswer: () => true, stats: makeStats(), now: () => 0, allowLonger: false })
    server.setSocket(0, output, { host: "192.0.2.2", port: 1 })
    const from = { address: "192.0.2.1", port: 7 }
    const txId = new Uint8Array(12)
    const request = Stun.encodeRequest({ txId, responsePort: 9 })
    server.onUdp(request, from, 0)
    server.onUdp(Stun.encodeRequest({ txId, responsePort: 9, change: { address: true, port: true } }), from, 0)
    assert.deepStrictEqual(sent.map(({ to }) => to), ["192.0.2.1 9", "192.0.2.1 7"])
    assert.isAtMost(sent[0]!.length, request.length)
  })
})

describe("StunPlaces", () => {
  const pairs = (hosts: ReadonlyArray<string>, wanted: string | null = null) =>
    Object.fromEntries(StunPlaces.pairs(hosts, wanted))

  it("pairs public addresses of one family", () => {
    const two = ["127.0.0.1", "10.0.0.1", "203.0.113.10", "172.17.0.1", "203.0.113.11", "2001:db8::1", "::1", "fd00::1"]
    assert.deepStrictEqual(pairs(two), { "203.0.113.10": "203.0.113.11", "203.0.113.11": "203.0.113.10" })
    assert.deepStrictEqual(
      pairs(["10.0.0.1", "10.0.0.2", "192.168.0.1", "192.168.0.2", "100.64.0.1", "100.64.0.2"]),
      {}
    )
  })

  it("takes the address that was asked for, whatever it is", () => {
    assert.deepStrictEqual(pairs(["10.0.0.1", "::1", "10.0.0.2"], "10.0.0.2"), {
      "10.0.0.1": "10.0.0.2",
      "10.0.0.2": "10.0.0.1"
    })
  })
})
