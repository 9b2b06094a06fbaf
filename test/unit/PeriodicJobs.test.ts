/** Jobs that run period after period: in virtual time each works in its fourth period as in its first, on the state of that moment. */
import { FetchHttpClient } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber, Logger, Mailbox, Option, Redacted, Stream, TestClock } from "effect"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Board from "../../src/actors/hub/Board.ts"
import * as NetworkDesk from "../../src/actors/hub/desks/NetworkDesk.ts"
import * as Self from "../../src/actors/runtime/actor/Self.ts"
import type { SignalingEvent } from "../../src/actors/signaling/RelaySignalingRpcs.ts"
import * as TimeKeeper from "../../src/actors/signaling/TimeKeeper.ts"
import type * as NodeReport from "../../src/protocol/relay/NodeReport.ts"
import type { NodeKey } from "../../src/protocol/trust/NodeKey.ts"
import * as Reporting from "../../src/roles/Reporting.ts"
import type { Peer } from "../../src/roles/Running.ts"
import * as Keys from "../../src/services/identity/Keys.ts"
import * as Pki from "../../src/services/identity/Pki.ts"
import * as RelayTls from "../../src/services/identity/RelayTls.ts"
import * as Metrics from "../../src/services/telemetry/Metrics.ts"
import * as Telemetry from "../../src/services/telemetry/Telemetry.ts"
import * as RpcOverLink from "../../src/session/RpcOverLink.ts"
import * as ServiceManager from "../../src/transport/ServiceManager.ts"
import { MemoryLink } from "./support/MemoryLink.ts"
import { someTurns, turnsUntil } from "./support/Turns.ts"

const PERIODS = 4

const tempDir = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "sallyport-periods-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true }))
)

const reportOf = (path: "direct" | "relay-udp"): NodeReport.NodeReport => ({
  version: "0.1.0",
  runtime: "v20.19.0",
  platform: "linux-x64",
  peers: [{ name: "office", path, reason: "relay_first", rttMs: 1, pathAgeSeconds: 1 }],
  peersInAll: 1,
  flows: {}
})

describe("every period", () => {
  it.scoped("the relay renews its TLS certificate before it ends", () =>
    Effect.gen(function*() {
      const stateDir = yield* Effect.acquireRelease(
        Effect.promise(() => mkdtemp(join(tmpdir(), "sallyport-periods-"))),
        (path) => Effect.promise(() => rm(path, { recursive: true }))
      )
      yield* TestClock.setTime(Date.parse("2026-03-01T12:00:00Z"))
      yield* Keys.loadOrCreate(join(stateDir, RelayTls.TLS_KEY_FILE))
      yield* Effect.gen(function*() {
        const service = yield* RelayTls.RelayTls
        for (let period = 1; period <= PERIODS; period++) {
          const before = yield* service.current
          const next = yield* Effect.fork(
            Stream.runHead(Stream.filter(service.changes, ({ cert }) => cert !== before.cert))
          )
          yield* TestClock.adjust("170 hours")
          const after = Option.getOrThrow(yield* Fiber.join(next))
          assert.isAbove(after.notAfter, before.notAfter, `period ${period}`)
          assert.isAbove(before.notAfter, yield* Clock.currentTimeMillis, `period ${period}`)
        }
      }).pipe(Effect.provide(RelayTls.layer({ stateDir, host: "relay.example.com", tls: null })))
    }))

  it.scoped("a node asks for the directory's time and follows it", () =>
    Effect.gen(function*() {
      const clock = yield* Effect.clock
      let directoryMs = 0 // what the directory's clock is ahead of this host's
      let asked = 0
      const keeper = yield* TimeKeeper.make({
        hostMs: () => clock.unsafeCurrentTimeMillis(),
        onLearned: () => Effect.void
      })
      const ask = Effect.sync(() => {
        asked++
        return clock.unsafeCurrentTimeMillis() + directoryMs
      })
      yield* Effect.forkScoped(keeper.keep(ask, Stream.never))
      for (let period = 1; period <= PERIODS; period++) {
        directoryMs = period * 60_000
        const before = asked
        yield* TestClock.adjust("6 minutes")
        assert.isAbove(asked, before, `period ${period}`)
        assert.closeTo(keeper.learned?.offsetMs ?? 0, directoryMs, 1, `period ${period}`)
      }
    }))

  it.scoped("the relay reads the operator's certificate from its file", () =>
    Effect.gen(function*() {
      const dir = yield* tempDir
      const { privateKey: issuer } = yield* Keys.loadOrCreate(join(dir, RelayTls.TLS_KEY_FILE))
      const files = { cert: join(dir, "cert.pem"), key: join(dir, "key.pem") }
      const write = Effect.gen(function*() {
        const leaf = yield* Pki.issueLeaf({ issuer, host: "relay.example.com", nowMs: yield* Clock.currentTimeMillis })
        yield* Effect.promise(() =>
          Promise.all([
            writeFile(files.cert, leaf.cert),
            writeFile(files.key, Redacted.value(leaf.key))
          ])
        )
        return leaf
      })
      yield* TestClock.setTime(Date.parse("2026-03-01T12:00:00Z"))
      yield* write
      yield* Effect.gen(function*() {
        const service = yield* RelayTls.RelayTls
        for (let period = 1; period <= PERIODS; period++) {
          const leaf = yield* write
          const taken = yield* Effect.fork(
            Stream.runHead(Stream.filter(service.changes, ({ cert }) => cert === leaf.cert))
          )
          yield* TestClock.adjust("1 minute")
          yield* Fiber.join(taken)
        }
      }).pipe(Effect.provide(RelayTls.layer({ stateDir: dir, host: "relay.example.com", tls: files })))
    }), 60_000)

  it.scoped("the relay counts how its nodes are connected now", () =>
    Effect.gen(function*() {
      const board = Board.make()
      const desk = yield* NetworkDesk.make({ board, directory: { listNodes: Effect.succeed([]) } as never })
      const key = "A".repeat(43) as NodeKey
      const events = yield* Mailbox.make<SignalingEvent>({ capacity: 16, strategy: "dropping" })
      const member = { key, name: "laptop", shown: "laptop", role: "client", network: null } as const
      board.join({ member, isBrowser: false, since: 0, events, cut: () => {} })
      yield* desk.onLink(key)
      for (let period = 1; period <= PERIODS; period++) {
        const path = period % 2 === 0 ? "direct" : "relay-udp"
        yield* desk.report(key, JSON.stringify(reportOf(path)))
        yield* TestClock.adjust("1 minute")
        const { samples } = yield* desk.overview({ find: "", after: "", limit: 1 })
        const { direct, total } = samples.at(-1) ?? { direct: -1, total: -1 }
        assert.deepStrictEqual({ direct, total }, { direct: path === "direct" ? 1 : 0, total: 1 }, `period ${period}`)
        assert.strictEqual(samples.length, period + 1)
      }
    }).pipe(Effect.provide(Self.layerTest())))

  it.scoped("a node reports the paths that it uses now", () =>
    Effect.gen(function*() {
      const reports: Array<NodeReport.NodeReport> = []
      const peer: Peer = {
        name: "office",
        path: "relay-udp",
        relay: null,
        rttMs: 1,
        reason: "relay_first",
        flows: 0,
        bytesIn: 0,
        bytesOut: 0
      }
      let peers: ReadonlyArray<Peer> = []
      const client = { Report: ({ text }: { text: string }) => Effect.sync(() => void reports.push(JSON.parse(text))) }
      const signaling = { ask: (call: (it: typeof client) => unknown) => call(client), subscribe: () => Stream.never }
      yield* Reporting.start({
        decisions: Stream.never,
        status: Effect.sync(() => ({ peers })),
        supervisor: { ref: () => signaling, metrics: Effect.succeed([]), events: Stream.never } as never
      })
      for (let period = 1; period <= PERIODS; period++) {
        const path = period % 2 === 0 ? "direct" : "relay-udp"
        peers = [{ ...peer, path }]
        const before = reports.length
        yield* TestClock.adjust("33 seconds")
        assert.isAbove(reports.length, before, `period ${period}`)
        assert.deepStrictEqual(reports.at(-1)?.peers.map((it) => it.path), [path], `period ${period}`)
      }
    }))

  it.scoped("the collector gets current metrics, also after a failure", () =>
    Effect.gen(function*() {
      const bodies: Array<string> = []
      let status = 200
      let flows = 0
      const fetch: typeof globalThis.fetch = async (input, init) => {
        bodies.push(await new Request(input, init).text())
        return new Response(null, { status })
      }
      const read = Effect.sync(
        () => [Metrics.gauge({ name: "flows_now", help: "Flows." }, [{ labels: {}, value: flows }])]
      )
      const settings = { otlp: "http://collector.example.com", serviceName: "test" } as Telemetry.Settings
      yield* Effect.provideService(Telemetry.exportMetrics(settings, read), FetchHttpClient.Fetch, fetch)
      for (let period = 1; period <= PERIODS; period++) {
        flows = 1000 + period
        status = period === 2 ? 503 : 200
        yield* TestClock.adjust("15 seconds")
        yield* turnsUntil(() => bodies.length >= period)
        assert.include(bodies[period - 1], String(flows), `period ${period}`)
        yield* someTurns // the answer is taken before the next period begins
      }
    }), 60_000)

  it.scoped.each(["client", "server"] as const)(
    "a link is kept until its %s is silent",
    (silent) =>
      Effect.gen(function*() {
        const [client, server] = MemoryLink.pair()
        const rpc = yield* RpcOverLink.makeServer({ silenceLimit: "30 seconds" })
        yield* Effect.forkScoped(rpc.serve(server, "A".repeat(43) as NodeKey))
        yield* RpcOverLink.makeClient(client, { pingEvery: "10 seconds" })
        const pass = Effect.gen(function*() {
          for (let second = 0; second < 30; second += 5) {
            yield* TestClock.adjust("5 seconds")
            yield* someTurns // a ping and its answer
          }
        })
        for (let period = 1; period <= PERIODS; period++) {
          yield* pass
          assert.deepStrictEqual([client.end, server.end], [null, null], `period ${period}`)
        }
        const mute = silent === "client" ? client : server
        mute.isMute = true
        yield* pass
        yield* pass
        if (silent === "client") assert.strictEqual(server.end?.reason, "silent")
        else assert.strictEqual(client.end?.reason, "the relay no longer answers")
      })
  )

  it.scoped("systemd hears only from a healthy service", () => {
    // Each ping fails, because nobody listens there, and that is logged.
    const env = { NOTIFY_SOCKET: "/nonexistent/notify", WATCHDOG_USEC: "30000000" }
    let pings = 0
    const logger = Logger.make(() => void pings++)
    return Effect.gen(function*() {
      let isHealthy = false
      yield* ServiceManager.make(env).watch(Effect.sync(() => isHealthy))
      yield* TestClock.adjust("1 second") // the first look is at once
      for (let period = 1; period <= PERIODS; period++) {
        isHealthy = period % 2 === 1
        const before = pings
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(pings - before, isHealthy ? 1 : 0, `period ${period}`)
      }
    }).pipe(Effect.provide(Logger.replace(Logger.defaultLogger, logger)))
  })
})
