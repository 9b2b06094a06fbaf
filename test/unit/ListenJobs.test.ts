/**
 * Periodic jobs of servers that listen on all addresses of their machine. In virtual time each works in its fourth
 * period as in its first. The machine's addresses are the test's to change.
 */
import { RpcClient } from "@effect/rpc"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Fiber, Layer, Scope, Stream, TestClock } from "effect"
import { generateKeyPairSync } from "node:crypto"
import { readFileSync } from "node:fs"
import { mkdtemp, rm } from "node:fs/promises"
import { type NetworkInterfaceInfo, tmpdir } from "node:os"
import { join } from "node:path"
import { MessageChannel } from "node:worker_threads"
import { vi } from "vitest"
import * as RelayForwarderActor from "../../src/actors/forwarder/RelayForwarderActor.ts"
import { RelayForwarderRpcs } from "../../src/actors/forwarder/RelayForwarderRpcs.ts"
import * as MessagePortProtocol from "../../src/actors/runtime/port/MessagePortProtocol.ts"
import * as RelayWire from "../../src/protocol/relay/RelayWire.ts"
import * as Crypto from "../../src/services/host/Crypto.ts"
import { HostClock } from "../../src/services/host/HostClock.ts"
import * as Keys from "../../src/services/identity/Keys.ts"
import * as Pki from "../../src/services/identity/Pki.ts"
import * as Http3Front from "../../src/transport/http3/Http3Front.ts"
import { TurnServer } from "../../src/transport/turn/TurnServer.ts"
import { TurnTcp } from "../../src/transport/turn/TurnTcp.ts"
import * as FakePeers from "../sim/FakePeers.ts"
import * as World from "../suite/support/RelayWorld.ts"
import * as ShownMetrics from "./support/ShownMetrics.ts"
import { someTurns, turnsUntil } from "./support/Turns.ts"

const PERIODS = 4
/** All of 127.0.0.0/8 can be bound on Linux, so they stand for addresses that come and go. */
const address = (n: number) => `127.1.1.${n}`

const machine = vi.hoisted(() => ({
  hosts: new Array<string>(),
  /** Addresses that TURN's clients must not reach, as the server read them last. */
  turnOwn: new Array<string>()
}))
vi.mock(import("../../src/protocol/relay/TurnPeers.ts"), async (original) => {
  const real = await original()
  return { ...real, make: (options) => (machine.turnOwn = [...options.own], real.make(options)) }
})
vi.mock(import("node:os"), async (original) => ({
  ...await original(),
  networkInterfaces: (): NodeJS.Dict<Array<NetworkInterfaceInfo>> => ({
    eth0: machine.hosts.map((host) => ({
      address: host,
      family: "IPv4",
      netmask: "",
      mac: "",
      internal: false,
      cidr: null
    }))
  })
}))

const folder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "sallyport-listen-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true }))
)

const newKey = () => {
  const key = Keys.fromPrivateKey(generateKeyPairSync("ed25519").privateKey)
  if (key === null) throw new Error("no key")
  return key
}

/** Whether a socket has this UDP address. It only reads, because a bind of its own could be in the way of the server. */
const isServed = (host: string, port: number) => {
  const hex = (n: number, digits: number) => n.toString(16).toUpperCase().padStart(digits, "0")
  const reversed = host.split(".").map((part) => hex(Number(part), 2)).toReversed().join("")
  return readFileSync("/proc/net/udp", "latin1").includes(` ${reversed}:${hex(port, 4)} `)
}

/** Passes periods until it holds. A look at the addresses takes turns of the event loop before the next one is due. */
const periodsUntil = (done: () => boolean) =>
  Effect.repeat(Effect.zipRight(TestClock.adjust("1 second"), someTurns), { until: done })

/** A forwarder on all addresses of the machine, as its callers and its metrics show it. */
const startForwarder = Effect.gen(function*() {
  machine.hosts = [address(1)]
  yield* TestClock.setTime(Date.parse("2026-03-01T12:00:00Z"))
  const clock = yield* Effect.clock
  const place = { host: "0.0.0.0", port: 0 }
  const { layer, valueOf } = ShownMetrics.make()
  const incarnation = yield* RelayForwarderActor.actor.start({
    authorityKey: World.authority.key,
    name: "",
    udp: place,
    stunAlternate: null,
    turn: {
      stateDir: yield* folder,
      udp: place,
      tcp: null,
      publicAddress: "192.0.2.1",
      ports: { from: 49_152, to: 49_160 },
      allowPeers: [],
      answerShort: false,
      quotas: { total: 10, perUser: 10, perAddress: 10, bytesPerSecond: 1_000_000 }
    }
  }).pipe(
    Effect.provide(yield* Layer.build(Layer.merge(layer, FakePeers.layer()))),
    Effect.provideService(HostClock, { now: () => clock.unsafeCurrentTimeMillis() })
  )
  const { port1, port2 } = new MessageChannel()
  yield* incarnation.serve(port2)
  const { protocol } = yield* MessagePortProtocol.makeClient(port1)
  const client = yield* Effect.provideService(RpcClient.make(RelayForwarderRpcs), RpcClient.Protocol, protocol)
  return { client, sessions: () => valueOf("sallyport_relay_sessions") }
})

const isLinux = process.platform === "linux"

describe.skipIf(!isLinux)("every period the relay's forwarder", () => {
  it.scoped("serves nodes and TURN at a new address", () =>
    Effect.gen(function*() {
      const { client } = yield* startForwarder
      const { turn, udp } = yield* client.AwaitListening()
      const turnPort = turn?.udp ?? 0
      for (let period = 1; period <= PERIODS; period++) {
        const host = address(1 + period)
        assert.isFalse(isServed(host, udp) || isServed(host, turnPort))
        machine.hosts = [...machine.hosts, host]
        yield* periodsUntil(() => isServed(host, udp) && isServed(host, turnPort))
      }
    }))

  it.scoped("looks at TURN's allocations, connections and own addresses", () =>
    Effect.gen(function*() {
      const looks = { allocations: 0, connections: 0 }
      const allocations = vi.spyOn(TurnServer.prototype, "tick").mockImplementation(() => void looks.allocations++)
      const connections = vi.spyOn(TurnTcp.prototype, "tick").mockImplementation(() => void looks.connections++)
      yield* Effect.addFinalizer(() => Effect.sync(() => (allocations.mockRestore(), connections.mockRestore())))
      yield* startForwarder
      yield* someTurns // the first look is at once
      const first = { ...looks }
      for (let second = 1; second <= 10 * PERIODS; second++) {
        if (second % 10 === 5) machine.hosts = [...machine.hosts, address(second)]
        yield* TestClock.adjust("1 second")
        const expected = { allocations: first.allocations + second, connections: first.connections + second }
        assert.deepStrictEqual(looks, expected)
        if (second % 10 === 0) assert.include(machine.turnOwn, address(second - 5))
      }
    }))

  it.scoped("ends the sessions whose ticket has expired by then", () =>
    Effect.gen(function*() {
      const { client, sessions } = yield* startForwarder
      const identity = World.newIdentity()
      const { port1: link, port2: port } = new MessageChannel()
      yield* Effect.addFinalizer(() => Effect.sync(() => link.close()))
      yield* client.AttachLink({ nodeKey: identity.key, kind: "relay-tcp", port })
      for (let period = 1; period <= PERIODS; period++) {
        const at = Math.floor((yield* Clock.currentTimeMillis) / 1000)
        const { ticket } = World.ticket(identity, World.newIdentity(), { at, seconds: 3 })
        link.postMessage(RelayWire.encode({ _tag: "Open", nonce: Crypto.randomBytes(8), ticket }))
        yield* turnsUntil(() => sessions() === 1)
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(sessions(), 1, `period ${period}`)
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(sessions(), 0, `period ${period}`)
      }
    }))
})

describe.skipIf(!isLinux)("every period HTTP/3", () => {
  it.effect("is served at a new address", () =>
    Effect.gen(function*() {
      machine.hosts = [address(1)]
      const { privateKey: issuer } = newKey()
      const certificate = yield* Pki.issueLeaf({ issuer, host: "relay.example.com", nowMs: Date.now() })
      const scope = yield* Scope.make()
      const { port } = yield* Http3Front.make({
        host: "0.0.0.0",
        port: 0,
        certificate,
        changes: Stream.never,
        gate: "/nonexistent/gate",
        onError: () => undefined
      }).pipe(Scope.extend(scope))
      for (let period = 1; period <= PERIODS; period++) {
        const host = address(1 + period)
        assert.isFalse(isServed(host, port))
        machine.hosts = [...machine.hosts, host]
        yield* periodsUntil(() => isServed(host, port))
      }
      const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
      yield* TestClock.adjust("1 second") // the last packets leave
      yield* Fiber.join(closing)
    }))
})
