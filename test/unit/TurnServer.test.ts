import { assert, describe, it } from "@effect/vitest"
import { Either, Redacted } from "effect"
import type { SocketAddr } from "../../src/protocol/bytes/SocketAddr.ts"
import * as Stun from "../../src/protocol/nat/Stun.ts"
import * as Turn from "../../src/protocol/relay/Turn.ts"
import * as TurnAllocations from "../../src/protocol/relay/TurnAllocations.ts"
import * as TurnPeers from "../../src/protocol/relay/TurnPeers.ts"
import * as Crypto from "../../src/services/host/Crypto.ts"
import * as TurnCredentials from "../../src/services/identity/TurnCredentials.ts"
import { NONCE_PERIOD_MS, signerOf, TurnAuth } from "../../src/transport/turn/TurnAuth.ts"
import { type Client, type RelaySocket, TurnServer } from "../../src/transport/turn/TurnServer.ts"

const HOST = "198.51.100.1"
const PEER = { host: "8.8.8.8", port: 4000 }

/** A server whose sockets are lists and whose time stands still. */
class World {
  nowMs = 0
  epoch = 2_000_000_000
  /** What left by the relayed addresses: from port, to, bytes. */
  readonly out: Array<{ from: number; to: string; bytes: Uint8Array }> = []
  readonly arrive = new Map<number, (bytes: Uint8Array, from: { address: string; port: number }) => void>()
  readonly secret = Redacted.make(Crypto.randomBytes(32))
  answering = true
  readonly server: TurnServer

  constructor(limits: Partial<TurnAllocations.Limits> = {}, ports = { from: 50_000, to: 50_999 }) {
    this.server = new TurnServer({
      auth: new TurnAuth({ secret: this.secret, epochSeconds: () => this.epoch + Math.floor(this.nowMs / 1000) }),
      limits: { ...TurnAllocations.DEFAULT_LIMITS, ...limits },
      relayedHost: HOST,
      mayRelayTo: TurnPeers.make({ allowed: [], own: [HOST] }),
      ports,
      open: async (port, onMessage): Promise<RelaySocket> => {
        this.arrive.set(port, onMessage)
        return {
          send: (bytes, offset, length, to, address) =>
            this.out.push({ from: port, to: `${address}:${to}`, bytes: bytes.slice(offset, offset + length) }),
          close: () => this.arrive.delete(port)
        }
      },
      mayAnswer: () => this.answering,
      now: () => this.nowMs,
      answerShort: false
    })
  }

  issue(name: string) {
    const username = `${this.epoch + Math.floor(this.nowMs / 1000) + TurnCredentials.LIFETIME_SECONDS}:${name}`
    return { username, password: TurnCredentials.passwordOf(this.secret, username) }
  }

  client(login = this.issue("alice"), host = "203.0.113.5", stream = false) {
    return new TestClient(this, login, host, stream)
  }
}

let clients = 0
class TestClient {
  readonly got: Array<Uint8Array> = []
  readonly address: Client
  nonce = ""
  realm = ""
  algorithms: Uint8Array | null = null

  readonly world: World
  login: { username: string; password: string }

  constructor(world: World, login: { username: string; password: string }, host: string, stream: boolean) {
    this.world = world
    this.login = login
    const port = 10_000 + clients++
    this.address = {
      tuple: `${port} ${host}`,
      host,
      port,
      stream,
      send: (bytes) => this.got.push(Uint8Array.from(bytes))
    }
  }

  /** The answer to bytes as they are; null where there is none. */
  async raw(bytes: Uint8Array): Promise<Turn.Message | null> {
    const before = this.got.length
    this.world.server.onMessage(bytes, this.address)
    await new Promise((resolve) => setImmediate(resolve))
    const reply = this.got[before]
    return reply === undefined ? null : Either.getOrThrow(Turn.decode(reply))
  }

  async challenge(padding = "x".repeat(40)): Promise<Turn.Message | null> {
    const realm = padding === "" ? {} : { realm: padding }
    const bytes = Turn.encode(Turn.Method.allocate, 0, Crypto.randomBytes(12), { transport: Turn.UDP, ...realm })
    const reply = await this.raw(bytes)
    if (reply !== null) {
      this.nonce = reply.nonce ?? ""
      this.realm = reply.realm ?? ""
      this.algorithms = reply.passwordAlgorithms
    }
    return reply
  }

  request(
    method: number,
    fields: Turn.Fields,
    kind: "md5" | "sha256" = "md5",
    txId = Crypto.randomBytes(12)
  ): Uint8Array {
    const { password, username } = this.login
    const credentials = `${username}:${this.realm}:${password}`
    const modern = kind === "sha256"
    const signer = signerOf(modern ? Crypto.sha256(credentials) : Crypto.md5(credentials), modern)
    const chosen = modern
      ? { passwordAlgorithms: this.algorithms!, passwordAlgorithm: Turn.PasswordAlgorithm.sha256 }
      : {}
    return Turn.encode(method, 0, txId, { ...fields, ...chosen, username, realm: this.realm, nonce: this.nonce }, {
      signer
    })
  }

  /** The error's code, 0 for success. */
  async ask(method: number, fields: Turn.Fields): Promise<number> {
    const reply = await this.raw(this.request(method, fields))
    return reply === null ? -1 : reply.error?.code ?? 0
  }

  async allocate(fields: Turn.Fields = {}): Promise<SocketAddr> {
    await this.challenge()
    const reply = await this.raw(this.request(Turn.Method.allocate, { transport: Turn.UDP, ...fields }))
    assert.strictEqual(reply?.error ?? null, null)
    return reply!.relayed!
  }

  permit(host: string): Promise<number> {
    return this.ask(Turn.Method.createPermission, { peers: [{ host, port: 0 }] })
  }

  bind(channel: number, peer: SocketAddr): Promise<number> {
    return this.ask(Turn.Method.channelBind, { channel, peers: [peer] })
  }

  send(peer: SocketAddr, data: Uint8Array): void {
    const bytes = Turn.encode(Turn.Method.send, Turn.Class.indication, Crypto.randomBytes(12), { peers: [peer], data })
    this.world.server.onMessage(bytes, this.address)
  }
}

const data = Uint8Array.of(1, 2, 3)
const { allocate, channelBind, createPermission, refresh } = Turn.Method

describe("TurnServer, who asks", () => {
  it("challenges with no more bytes than it received", async () => {
    const world = new World()
    for (let length = 0; length <= 60; length++) {
      const client = world.client()
      const reply = await client.challenge("x".repeat(length))
      const sent = 28 + (length === 0 ? 0 : 4 + ((length + 3) & ~3))
      assert.isAtMost(client.got[0]?.length ?? 0, sent)
      assert.strictEqual(reply !== null, sent >= 52)
      if (reply !== null) assert.strictEqual(reply.error?.code, 401)
    }
    assert.strictEqual((await world.client(undefined, undefined, true).challenge(""))?.error?.code, 401)
    world.answering = false
    assert.isNull(await world.client().challenge())
  })

  it("answers MESSAGE-INTEGRITY-SHA256 with the same", async () => {
    const world = new World()
    const client = world.client()
    await client.challenge("x".repeat(80))
    assert.deepStrictEqual(client.algorithms && Uint8Array.from(client.algorithms), Turn.OFFERED_ALGORITHMS)
    const reply = await client.raw(client.request(allocate, { transport: Turn.UDP }, "sha256"))
    assert.strictEqual(reply?.class, Turn.Class.success)
    assert.isAbove(reply!.macs.sha256At, 0)
    client.algorithms = Uint8Array.of(0, 1, 0, 0) // somebody in between struck SHA-256 out
    assert.strictEqual((await client.raw(client.request(refresh, {}, "sha256")))?.error?.code, 400)
  })

  it("refuses wrong, altered, foreign and expired credentials with 401", async () => {
    const world = new World()
    const good = world.issue("alice")
    const client = world.client(good)
    await client.challenge()
    for (
      const login of [
        { ...good, password: "wrong" },
        { ...good, username: good.username.replace("alice", "bob") },
        { username: "nobody", password: "" }
      ]
    ) {
      client.login = login
      assert.strictEqual(await client.ask(allocate, { transport: Turn.UDP }), 401)
    }
    client.login = good
    world.nowMs = TurnCredentials.LIFETIME_SECONDS * 1000
    await client.challenge()
    assert.strictEqual(await client.ask(allocate, { transport: Turn.UDP }), 401)
  })

  it("lets credentials keep their allocation for a limited time", async () => {
    const world = new World()
    const client = world.client()
    await client.allocate({ lifetime: 3600 })
    for (let hour = 1; hour < 12; hour++) {
      world.nowMs = hour * 3_600_000 - 1000
      await client.challenge()
      assert.strictEqual(await client.ask(refresh, { lifetime: 3600 }), 0)
    }
    world.nowMs = 12 * 3_600_000
    await client.challenge()
    assert.strictEqual(await client.ask(refresh, { lifetime: 3600 }), 401)
  })

  it("keeps an allocation through lives of its credentials", async () => {
    const world = new World()
    const client = world.client()
    const { port } = await client.allocate()
    /** As a client does: asks again with the nonce that replaces a stale one. */
    let nonces = 0
    const keep = async (method: number, fields: Turn.Fields) => {
      let reply = await client.raw(client.request(method, fields))
      if (reply?.error?.code === 438) {
        nonces++
        client.nonce = reply.nonce ?? ""
        reply = await client.raw(client.request(method, fields))
      }
      assert.strictEqual(reply?.class, Turn.Class.success)
    }
    for (let life = 1; life <= 4; life++) {
      const login = world.issue("bob")
      for (let second = 0; second < TurnCredentials.LIFETIME_SECONDS; second += 10) {
        if (second % 240 === 0) {
          await keep(refresh, {})
          await keep(channelBind, { channel: 0x4001, peers: [PEER] })
        }
        world.server.onMessage(Turn.encodeChannelData(0x4001, data, false), client.address)
        assert.deepStrictEqual(world.out.splice(0), [{ from: port, to: "8.8.8.8:4000", bytes: data }])
        world.nowMs += 10_000
        world.server.tick()
      }
      const late = world.client(login)
      await late.challenge()
      assert.strictEqual(await late.ask(allocate, { transport: Turn.UDP }), 401)
      await world.client(world.issue("bob")).allocate()
      assert.strictEqual(world.server.allocations, 2, "bob's allocation of the life before is over")
    }
    assert.isAtLeast(nonces, 3)
    for (let period = 1; period <= 3; period++) {
      await world.client(world.issue("carol")).allocate()
      world.nowMs += 600_000
      world.server.tick()
      assert.deepStrictEqual([world.server.allocations, world.arrive.size], [0, 0], "nobody kept them")
    }
  })

  it("refuses an old or foreign nonce with 438", async () => {
    const world = new World()
    const client = world.client()
    await client.allocate({ lifetime: 3600 })
    const other = world.client()
    await other.challenge()
    const { nonce } = client
    client.nonce = other.nonce
    assert.strictEqual(await client.ask(refresh, {}), 438)
    client.nonce = nonce
    world.nowMs = 2 * NONCE_PERIOD_MS - 1
    assert.strictEqual(await client.ask(refresh, {}), 0)
    world.nowMs = 2 * NONCE_PERIOD_MS
    const stale = await client.raw(client.request(refresh, {}))
    assert.strictEqual(stale?.error?.code, 438)
    client.nonce = stale!.nonce!
    assert.strictEqual(await client.ask(refresh, {}), 0)
  })

  it("ends what a removed node has, and refuses its credentials", async () => {
    const world = new World()
    const client = world.client()
    const { port } = await client.allocate()
    world.server.revoke("alice", world.epoch)
    assert.deepStrictEqual([world.server.allocations, world.arrive.has(port)], [0, false])
    assert.strictEqual(await client.ask(allocate, { transport: Turn.UDP }), 401)
    world.nowMs = 1000
    await world.client(world.issue("alice")).allocate()
  })
})

describe("TurnServer, allocations", () => {
  it("answers each mistake with its code", async () => {
    const world = new World({ permissions: 2, channels: 1 })
    const client = world.client()
    await client.challenge()
    assert.strictEqual(await client.ask(refresh, {}), 437)
    assert.strictEqual(await client.permit(PEER.host), 437)
    assert.strictEqual(await client.ask(allocate, {}), 400)
    assert.strictEqual(await client.ask(allocate, { transport: 6 }), 442)
    assert.strictEqual(await client.ask(allocate, { transport: Turn.UDP, family: 6 }), 440)
    assert.strictEqual(await client.ask(allocate, { transport: Turn.UDP, evenPort: { reserve: true } }), 508)
    await client.allocate()
    assert.strictEqual(await client.ask(allocate, { transport: Turn.UDP }), 437)
    for (const host of ["10.0.0.1", "127.0.0.1", "169.254.1.1", "224.0.0.1"]) {
      assert.strictEqual(await client.permit(host), 403)
      assert.strictEqual(await client.bind(0x4001, { host, port: 1 }), 403)
    }
    assert.strictEqual(await client.permit("2606:4700::1"), 443)
    assert.strictEqual(await client.ask(createPermission, {}), 400)
    assert.strictEqual(await client.ask(channelBind, { channel: 0x3fff, peers: [PEER] }), 400)
    assert.strictEqual(await client.bind(0x4000, PEER), 0)
    assert.strictEqual(await client.bind(0x4000, { ...PEER, port: 1 }), 400)
    assert.strictEqual(await client.bind(0x4001, PEER), 400)
    assert.strictEqual(await client.bind(0x4001, { ...PEER, port: 1 }), 508)
    assert.strictEqual(await client.permit("8.8.4.4"), 0)
    assert.strictEqual(await client.permit("1.1.1.1"), 508)
    client.login = world.issue("bob")
    assert.strictEqual(await client.ask(refresh, {}), 441)
  })

  it("keeps quotas by node, by address and in total", async () => {
    const world = new World({ perUser: 2, perAddress: 3, total: 4 })
    const first = world.client()
    await first.allocate()
    await world.client().allocate()
    const third = world.client()
    await third.challenge()
    assert.strictEqual(await third.ask(allocate, { transport: Turn.UDP }), 486) // alice has two
    third.login = world.issue("bob")
    await third.allocate()
    const fourth = world.client(world.issue("carol"))
    await fourth.challenge()
    assert.strictEqual(await fourth.ask(allocate, { transport: Turn.UDP }), 486) // the address has three
    await world.client(world.issue("carol"), "203.0.113.6").allocate()
    const fifth = world.client(world.issue("dave"), "203.0.113.7")
    await fifth.challenge()
    assert.strictEqual(await fifth.ask(allocate, { transport: Turn.UDP }), 508) // there are four
    assert.strictEqual(await first.ask(refresh, { lifetime: 0 }), 0)
    await fifth.allocate()
    world.nowMs = 600_000
    world.server.tick()
    assert.deepStrictEqual([world.server.allocations, world.arrive.size], [0, 0])
  })

  it("answers 508 when no port is free", async () => {
    const world = new World({ perUser: 2 }, { from: 50_000, to: 50_000 })
    await world.client().allocate()
    const second = world.client()
    await second.challenge()
    for (let i = 0; i < 3; i++) assert.strictEqual(await second.ask(allocate, { transport: Turn.UDP }), 508)
    assert.strictEqual(world.server.allocations, 1)
  })

  it("answers a repeated Allocate with the same address", async () => {
    const client = new World().client()
    await client.challenge()
    const bytes = client.request(allocate, { transport: Turn.UDP })
    assert.deepStrictEqual((await client.raw(bytes))?.relayed, (await client.raw(bytes))?.relayed)
  })
})

describe("TurnServer, data", () => {
  it("passes datagrams both ways while a permission lasts", async () => {
    const world = new World()
    const client = world.client()
    const { port } = await client.allocate({ lifetime: 3600 })
    client.send(PEER, data)
    assert.deepStrictEqual(world.out, [])
    assert.strictEqual(await client.permit(PEER.host), 0)
    client.send(PEER, data)
    assert.deepStrictEqual(world.out.splice(0), [{ from: port, to: "8.8.8.8:4000", bytes: data }])
    const before = client.got.length
    world.arrive.get(port)!(data, { address: "8.8.4.4", port: 4000 })
    assert.strictEqual(client.got.length, before)
    world.arrive.get(port)!(data, { address: PEER.host, port: 4001 })
    const indication = Either.getOrThrow(Turn.decode(client.got.at(-1)!))
    assert.deepStrictEqual([indication.method, indication.peers], [Turn.Method.data, [{ ...PEER, port: 4001 }]])
    assert.strictEqual(await client.bind(0x4123, PEER), 0)
    world.server.onMessage(Turn.encodeChannelData(0x4123, data, false), client.address)
    world.server.onMessage(Turn.encodeChannelData(0x4124, data, false), client.address)
    assert.deepStrictEqual(world.out.splice(0), [{ from: port, to: "8.8.8.8:4000", bytes: data }])
    world.arrive.get(port)!(data, { address: PEER.host, port: PEER.port })
    assert.deepStrictEqual(Turn.decodeChannelData(client.got.at(-1)!), { channel: 0x4123, data })
    world.nowMs = TurnAllocations.PERMISSION_MS
    world.server.onMessage(Turn.encodeChannelData(0x4123, data, false), client.address)
    assert.deepStrictEqual(world.out, [])
  })

  it("joins two allocations without a socket", async () => {
    const world = new World()
    const [left, right] = [world.client(), world.client()]
    const [leftAt, rightAt] = [await left.allocate(), await right.allocate()]
    assert.strictEqual(await left.permit(HOST), 0)
    const before = right.got.length
    left.send(rightAt, data)
    assert.strictEqual(right.got.length, before) // the other side has not permitted it
    assert.strictEqual(await right.permit(HOST), 0)
    left.send(rightAt, data)
    assert.deepStrictEqual(Either.getOrThrow(Turn.decode(right.got.at(-1)!)).peers, [leftAt])
    left.send({ host: HOST, port: 443 }, data)
    assert.deepStrictEqual(world.out, [])
  })

  it("holds a node to its rate", async () => {
    const world = new World({ bytesPerSecond: 1000 })
    const client = world.client()
    await client.allocate()
    await client.permit(PEER.host)
    for (let i = 0; i < 20; i++) client.send(PEER, new Uint8Array(100))
    assert.strictEqual(world.out.length, 10)
  })

  it("answers Binding, too", async () => {
    const client = new World().client()
    client.world.server.onMessage(Stun.encodeRequest({ txId: Crypto.randomBytes(12) }), client.address)
    const reply = Either.getOrThrow(Stun.decode(client.got[0]!))
    assert.deepStrictEqual(reply._tag === "Success" ? reply.mapped.host : "", client.address.host)
  })
})
