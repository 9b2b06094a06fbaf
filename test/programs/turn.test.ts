/** The relay's TURN as other people's clients use it: coturn's `turnutils_uclient`, and libjuice inside node-datachannel. */
import { RpcClient } from "@effect/rpc"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Redacted, Scope } from "effect"
import { spawn } from "node:child_process"
import { createSocket } from "node:dgram"
import { statSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { RelaySignalingRpcs } from "../../src/actors/signaling/RelaySignalingRpcs.ts"
import * as Enrol from "../../src/roles/Enrol.ts"
import * as Run from "../../src/roles/Run.ts"
import type { Running } from "../../src/roles/Running.ts"
import { decode, type RelayConfig } from "../../src/services/config/Config.ts"
import * as Directory from "../../src/services/directory/Directory.ts"
import { layerNodeIdentity, NodeIdentity } from "../../src/services/identity/Keys.ts"
import * as OpenMetrics from "../../src/services/telemetry/OpenMetrics.ts"
import * as RpcOverLink from "../../src/session/RpcOverLink.ts"
import * as LinkClient from "../../src/transport/link/LinkClient.ts"
import * as TurnProxy from "../../src/transport/webrtc/TurnProxy.ts"
import * as World from "../e2e/support/World.ts"
import * as TurnWorld from "../suite/support/TurnWorld.ts"
import { HANG_MS } from "../support/Hang.ts"
import { freePort } from "../support/Ports.ts"
import { parse, sum } from "../unit/support/OpenMetricsParser.ts"

interface Ran {
  readonly code: number | null
  readonly output: string
}

/** Ends by itself: each test gives a count of messages. */
const uclient = (args: ReadonlyArray<string>) => run("turnutils_uclient", args)
const run = (program: string, args: ReadonlyArray<string>) =>
  Effect.async<Ran>((resume) => {
    const child = spawn(program, args, { timeout: HANG_MS })
    let output = ""
    child.stdout.on("data", (chunk: Buffer) => output += chunk.toString())
    child.stderr.on("data", (chunk: Buffer) => output += chunk.toString())
    child.on("close", (code) => resume(Effect.succeed({ code, output })))
    return Effect.sync(() => child.kill())
  })

/** Sends every datagram back. */
const echo = Effect.acquireRelease(
  Effect.async<{ readonly port: number; readonly close: () => void }>((resume) => {
    const socket = createSocket("udp4")
    socket.on("message", (bytes, from) => socket.send(bytes, from.port, from.address))
    socket.bind(
      0,
      TurnWorld.HOST,
      () => resume(Effect.succeed({ port: socket.address().port, close: () => socket.close() }))
    )
  }),
  ({ close }) => Effect.sync(close)
)

/** What it counts at its end. */
const totals = (output: string) => ({
  sent: Number(/tot_send_msgs=(\d+)/g.exec(output.slice(output.lastIndexOf("tot_send_msgs")))?.[1]),
  received: Number(/tot_recv_msgs=(\d+)/g.exec(output.slice(output.lastIndexOf("tot_recv_msgs")))?.[1])
})

const MESSAGES = 200
const signedIn = ({ password, username }: { readonly username: string; readonly password: string }, port: number) => [
  "-u",
  username,
  "-w",
  password,
  "-p",
  String(port)
]
const peerAt = (port: number, host = TurnWorld.HOST) => ["-e", host, "-r", String(port)]
/** Two clients, no RTCP, 1000 bytes every 5 ms. The server's address comes last. */
const load = (messages: number) => ["-n", String(messages), "-m", "2", "-c", "-l", "1000", "-z", "5", TurnWorld.HOST]

describe("TURN by turnutils_uclient", () => {
  for (const transport of ["udp", "tcp"] as const) {
    for (const [way, flags] of [["channels", []], ["Send and Data indications", ["-s"]]] as const) {
      it.scoped(`carries datagrams both ways over ${transport}, by ${way}`, () =>
        Effect.gen(function*() {
          const turn = yield* TurnWorld.start({ allowPeers: [TurnWorld.HOST] })
          const peer = yield* echo
          const port = transport === "udp" ? turn.udpPort : turn.tcpPort
          const ran = yield* uclient([
            ...(transport === "tcp" ? ["-t"] : []),
            ...flags,
            ...signedIn(turn.issue("node-1"), port),
            ...peerAt(peer.port),
            ...load(MESSAGES)
          ])
          assert.strictEqual(ran.code, 0, ran.output)
          assert.deepStrictEqual(totals(ran.output), { sent: 2 * MESSAGES, received: 2 * MESSAGES }, ran.output)
        }))
    }
  }
})

describe("what TURN refuses, by turnutils_uclient", () => {
  interface Asked {
    readonly user?: (turn: TurnWorld.Turn) => TurnWorld.Login
    readonly settings?: TurnWorld.Settings
    readonly peer?: string
    /** In the client's words. */
    readonly told: RegExp
    readonly code: number
    readonly made: number
  }
  const refuses = (what: string, { code, made, peer, settings, told, user }: Asked) =>
    it.scoped(`${what}: ${code}`, () =>
      Effect.gen(function*() {
        const turn = yield* TurnWorld.start(settings)
        const login = user?.(turn) ?? turn.issue("node-1")
        const ran = yield* uclient([...signedIn(login, turn.udpPort), ...peerAt(9, peer), ...load(1)])
        assert.notStrictEqual(ran.code, 0, ran.output)
        assert.match(ran.output, told)
        const { allocations, refused, toPeers } = turn.server.stats
        assert.isAtLeast(refused[code] ?? 0, 1)
        assert.deepStrictEqual([allocations.made, toPeers.packets], [made, 0])
      }))
  const told = /Cannot complete Allocation/ // after it has answered one 401 with credentials, and got the next
  refuses("a wrong password", {
    user: (turn) => ({ ...turn.issue("node-1"), password: "wrong" }),
    told,
    code: 401,
    made: 0
  })
  refuses("expired credentials", { user: (turn) => turn.issue("node-1", -1), told, code: 401, made: 0 })
  refuses("a private peer", { peer: "10.1.2.3", told: /error 403/, code: 403, made: 2 })
  refuses("a loopback peer", { peer: "127.0.0.2", told: /error 403/, code: 403, made: 2 })
  refuses("more allocations than the node's quota", {
    settings: { limits: { perUser: 1 } },
    told: /error 486/,
    code: 486,
    made: 1
  })
})

describe("TURN by node-datachannel", () => {
  it.scoped("joins two peers by relayed candidates of one server", () =>
    Effect.gen(function*() {
      const turn = yield* TurnWorld.start({ alsoAt: ["::1"] })
      const { password, username } = turn.issue("node-1")
      const peers = fileURLToPath(new URL("support/RelayedPeer.mjs", import.meta.url))
      const ran = yield* run(process.execPath, [peers, String(turn.udpPort), username, password, "100"])
      assert.strictEqual(ran.code, 0, `${ran.output} ${JSON.stringify(turn.server.stats)}`)
      const seen = JSON.parse(ran.output) as { received: number; pairs: Array<string>; candidates: Array<string> }
      assert.deepStrictEqual([seen.received, seen.pairs], [100, ["relay relay", "relay relay"]])
      assert.isTrue(seen.candidates.every((candidate) => candidate.includes("typ relay")))
      assert.isAbove(turn.server.stats.toClients.bytes, 2 * 100 * 1000)
    }))

  it.scoped("joins two peers that reach the server over TCP only", () =>
    Effect.gen(function*() {
      const turn = yield* TurnWorld.start()
      const { password, username } = turn.issue("node-1")
      const server = { host: TurnWorld.HOST, port: turn.tcpPort, transport: "tcp" } as const
      const proxy = yield* Effect.acquireRelease(
        Effect.promise(() => TurnProxy.TurnProxy.open(server, new TurnProxy.AgentPasswords())),
        (it) => Effect.sync(() => it.close())
      )
      const peers = fileURLToPath(new URL("support/RelayedPeer.mjs", import.meta.url))
      const args = [peers, String(proxy.at.port), username, password, "100", TurnWorld.HOST]
      const ran = yield* run(process.execPath, args)
      assert.strictEqual(ran.code, 0, `${ran.output} ${JSON.stringify(turn.server.stats)}`)
      const seen = JSON.parse(ran.output) as { received: number; pairs: Array<string> }
      assert.deepStrictEqual([seen.received, seen.pairs], [100, ["relay relay", "relay relay"]])
      assert.strictEqual(proxy.sockets, 2, "one for each peer")
    }))
})

describe("credentials by signaling, of a relay as it runs", () => {
  it.scopedLive("work for an enrolled node, and end with it", () =>
    Effect.gen(function*() {
      const dir = yield* World.temporaryDir
      const config = (yield* decode({
        role: "relay",
        name: "relay",
        stateDir: "relay",
        listen: { https: "127.0.0.1:0", udp: "127.0.0.1:0" },
        advertise: { host: TurnWorld.HOST },
        turn: {
          udp: `127.0.0.1:${yield* Effect.promise(freePort)}`,
          tcp: "127.0.0.1:0",
          publicAddress: TurnWorld.HOST,
          allowPeers: [TurnWorld.HOST]
        }
      }, { baseDir: dir })) as RelayConfig
      const telemetry = { format: "json", level: "None", otlp: null, sample: 1, serviceName: "test" } as const
      const life = yield* Scope.make()
      const start: Effect.Effect<Running, unknown, Scope.Scope> = Run.start(config, telemetry, {
        localDoor: false,
        newIdentity: true
      })
      const relay: Running = yield* Scope.extend(start, life)
      assert.strictEqual(statSync(join(config.stateDir, "turn.key")).mode & 0o777, 0o600)
      const https = Number(relay.listen["https"]?.split(":").at(-1))
      const token = Redacted.make(yield* World.createToken(config, https, "client", "laptop", null))
      const stateDir = join(dir, "laptop")
      const { relay: known } = yield* Enrol.ensure({ role: "client", name: "laptop", stateDir, token, carrier: "auto" })
      const { link } = yield* LinkClient.connect({
        host: known.host,
        port: known.httpsPort,
        trust: known.tls,
        carrier: "auto",
        purpose: "signal",
        identity: yield* Effect.provide(NodeIdentity, layerNodeIdentity({ stateDir }))
      })
      const protocol = yield* RpcOverLink.makeClient(link)
      const signaling = yield* RpcClient.make(RelaySignalingRpcs).pipe(
        Effect.provideService(RpcClient.Protocol, protocol)
      )
      const { password, urls, username } = yield* signaling.TurnCredentials()
      assert.match(username, /^\d{10}:laptop$/)
      const ports = urls.map((url) => /^turn:127\.0\.0\.1:(\d+)\?transport=(udp|tcp)$/.exec(url)?.[1])
      const login = { username, password: Redacted.value(password) }
      const peer = yield* echo
      const ask = uclient([...signedIn(login, Number(ports[0])), ...peerAt(peer.port), ...load(5)])
      assert.deepStrictEqual(totals((yield* ask).output), { sent: 10, received: 10 })
      const metrics = parse(OpenMetrics.render(yield* relay.supervisor.metrics))
      assert.isAtLeast(sum(metrics, "sallyport_turn_allocations_made_total"), 2)
      assert.strictEqual(sum(metrics, "sallyport_turn_packets_total", { direction: "to_peers" }), 10)
      assert.isAtLeast(sum(metrics, "sallyport_turn_bytes_total", { direction: "to_clients" }), 10 * 1000)
      assert.isAtLeast(sum(metrics, "sallyport_turn_refusals_total", { code: "401" }), 2)
      yield* Effect.flatMap(Directory.Directory, (directory) => directory.removeNode("laptop")).pipe(
        Effect.provide(Directory.layer({ stateDir: config.stateDir }))
      )
      // The relay looks at its directory a few times a second.
      const refused = yield* ask.pipe(Effect.repeat({ until: ({ code }) => code !== 0, times: 10 }))
      assert.match(refused.output, /Cannot complete Allocation/)
      yield* Scope.close(life, Exit.void)
      yield* start
      assert.match((yield* ask).output, /Cannot complete Allocation/, "a relay that starts anew has forgotten nobody")
    }))
})
