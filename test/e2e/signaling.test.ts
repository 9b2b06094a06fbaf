/** What the relay tells and allows those who are enrolled, asked by its own RPCs: who was removed meanwhile, and how much is too much. */
import { RpcClient } from "@effect/rpc"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted, type Scope, Stream } from "effect"
import { join } from "node:path"
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
import { parse, sum } from "../unit/support/OpenMetricsParser.ts"
import * as World from "./support/World.ts"

const QUIET = { format: "json", level: "None", otlp: null, sample: 1, serviceName: "test" } as const

const portOf = ({ listen }: Running) => Number(listen["https"]?.split(":").at(-1))

/** A node as nobody of ours is: it has a key and is let in, and asks what it likes. */
const enrol = Effect.fnUntraced(function*(relay: RelayConfig, https: number, name: string) {
  const token = Redacted.make(yield* World.createToken(relay, https, "client", name, null))
  const stateDir = join(relay.stateDir, "..", `raw-${name}`)
  const { relay: known } = yield* Enrol.ensure({ role: "client", name, stateDir, token, carrier: "auto" })
  const identity = yield* Effect.provide(NodeIdentity, layerNodeIdentity({ stateDir }))
  const connect = (httpsPort: number) =>
    Effect.gen(function*() {
      const { link } = yield* LinkClient.connect({
        host: known.host,
        port: httpsPort,
        trust: known.tls,
        carrier: "auto",
        purpose: "signal",
        identity
      })
      const protocol = yield* RpcOverLink.makeClient(link)
      return yield* RpcClient.make(RelaySignalingRpcs).pipe(Effect.provideService(RpcClient.Protocol, protocol))
    })
  return { key: identity.key, connect }
})

describe("the relay's signaling", () => {
  it.scopedLive("notifies nodes that connect later who was removed", () =>
    Effect.gen(function*() {
      const dir = yield* World.temporaryDir
      const config = (yield* decode({
        role: "relay",
        name: "relay",
        stateDir: "relay",
        listen: { https: "127.0.0.1:0", udp: "127.0.0.1:0" },
        advertise: { host: "127.0.0.1" }
      }, { baseDir: dir })) as RelayConfig
      const start: Effect.Effect<Running, unknown, Scope.Scope> = Run.start(
        config,
        QUIET,
        { localDoor: false, newIdentity: true }
      )
      const [gone, left] = yield* Effect.scoped(Effect.gen(function*() {
        const https = portOf(yield* start)
        return [yield* enrol(config, https, "laptop"), yield* enrol(config, https, "tablet")] as const
      }))
      yield* Effect.flatMap(Directory.Directory, (directory) => directory.removeNode("laptop")).pipe(
        Effect.provide(Directory.layer({ stateDir: config.stateDir }))
      )
      const https = portOf(yield* start)
      const signaling = yield* left.connect(https)
      const [, told] = yield* Stream.runCollect(Stream.take(signaling.Watch(), 2))
      assert.deepStrictEqual(told, { _tag: "Revoked", node: gone.key })
    }))

  it.scopedLive("limits how many sessions a client may ask for", () =>
    Effect.gen(function*() {
      const resources = [{ name: "web", address: "127.0.0.1", tcp: [80], allowLoopback: true }]
      const world = yield* World.make({ resources, access: [{ clients: ["*"], resources: ["*"] }] })
      const https = portOf(world.relay)
      const loud = yield* enrol(world.relayConfig, https, "loud")
      const signaling = yield* loud.connect(https)
      const dial = (port: number) =>
        Effect.match(signaling.Dial({ target: { host: "web", port, protocol: "tcp" }, exclude: [] }), {
          onFailure: (error) => error._tag === "DialRefused" ? error.code : error._tag,
          onSuccess: () => "accepted"
        })
      const codes: Array<string> = []
      const count = (wanted: string) => codes.filter((code) => code === wanted).length
      // The relay permits some dials each second. On a slow machine it takes more of them to exceed that.
      while (count("overloaded") < 20) {
        codes.push(...yield* Effect.forEach(Array.from({ length: 200 }), () => dial(80), { concurrency: 64 }))
      }
      // On a busy machine the connector answers some of the permitted ones too late.
      assert.isAtLeast(codes.length - count("overloaded"), 100)
      // What it may not dial is answered all the same.
      assert.strictEqual(yield* dial(81), "port_not_listed")
      const session = yield* Effect.eventually(
        Effect.delay(signaling.Dial({ target: { host: "web", port: 80, protocol: "tcp" }, exclude: [] }), "300 millis")
      )
      const box = new Uint8Array(40)
      yield* Effect.forEach(
        Array.from({ length: 5000 }),
        () => signaling.Forward({ session: session.session, box }),
        { concurrency: 50, discard: true }
      )
      const metrics = parse(OpenMetrics.render(yield* world.relay.supervisor.metrics))
      const messages = (outcome: string) => sum(metrics, "sallyport_signaling_messages_total", { outcome })
      assert.isAtLeast(messages("passed"), 4000)
      assert.isAtLeast(messages("too_often"), 1)
      assert.isAtLeast(sum(metrics, "sallyport_signaling_dials_total", { code: "overloaded" }), 20)
      // The others do not notice: the resource itself refuses, since nobody listens there.
      const refused = yield* Effect.flip(world.dial("web", 80))
      assert.match(refused.message, /SOCKS5 reply 5/)
    }))
})
