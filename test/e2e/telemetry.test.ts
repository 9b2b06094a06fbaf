import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { randomBytes } from "node:crypto"
import type { Socket } from "node:net"
import { join } from "node:path"
import type { Running } from "../../src/roles/Running.ts"
import * as OpenMetrics from "../../src/services/telemetry/OpenMetrics.ts"
import { parse, sum } from "../unit/support/OpenMetricsParser.ts"
import { keysIn } from "./support/Secrets.ts"
import * as World from "./support/World.ts"

const BYTES = 500_000
const echo = (socket: Socket) => void socket.pipe(socket)

const textOf = ({ supervisor }: Running) => Effect.map(supervisor.metrics, OpenMetrics.render)
const scrape = (running: Running) => Effect.map(textOf(running), parse)

/** Sends, and waits until as much is back. */
const roundTrip = (socket: Socket, bytes: number) =>
  Effect.async<void>((resume) => {
    let back = 0
    const onData = (part: Buffer) => {
      back += part.length
      if (back < bytes) return
      socket.off("data", onData)
      resume(Effect.void)
    }
    socket.on("data", onData)
    socket.write(randomBytes(bytes))
  })

describe("metrics of a flow", () => {
  it.scopedLive("show at all three which path a flow took", () =>
    Effect.gen(function*() {
      const port = yield* World.serve(echo)
      const closed = yield* Effect.scoped(World.serve(echo))
      const target = (name: string, at: number) => ({ name, address: "127.0.0.1", tcp: [at], allowLoopback: true })
      const world = yield* World.make({ resources: [target("echo", port), target("closed", closed)] })
      const socket = yield* world.dial("echo", port)
      yield* world.untilPath("direct")
      yield* roundTrip(socket, BYTES)
      yield* Effect.exit(Effect.scoped(world.dial("closed", closed)))
      yield* Effect.exit(Effect.scoped(world.dial("echo", 1)))
      const [client, connector, relay] = [
        yield* scrape(world.client),
        yield* scrape(world.connector),
        yield* scrape(world.relay)
      ]
      for (const [side, node] of Object.entries({ client, connector })) {
        for (const direction of ["receive", "transmit"]) {
          const all = sum(node, "sallyport_path_bytes_total", { direction })
          assert.isAbove(all, BYTES, `${side} ${direction}`)
          assert.isBelow(all, BYTES * 1.5, `${side} ${direction}`)
          assert.isAbove(sum(node, "sallyport_path_packets_total", { direction }), BYTES / 1500)
        }
        assert.strictEqual(sum(node, "sallyport_sessions", { path: "direct" }), 1, side)
        assert.strictEqual(sum(node, "sallyport_flow_opens_total", { code: "accepted" }), 1, side)
        assert.strictEqual(sum(node, "sallyport_flow_opens_total", { code: "refused" }), 1, side)
        assert.strictEqual(sum(node, "sallyport_flows"), 1, side)
        assert.isAbove(sum(node, "sallyport_path_rtt_seconds_count", { path: "direct" }), 0, side)
        assert.isAbove(sum(node, "sallyport_path_switches_total", { path: "direct" }), 0, side)
        assert.isAbove(sum(node, "sallyport_actor_message_wait_seconds_count", { actor: "pathProber" }), 0, side)
        assert.strictEqual(sum(node, "sallyport_actor_up"), 5, side)
        for (const direction of ["receive", "transmit"]) {
          assert.strictEqual(sum(node, "sallyport_resource_bytes_total", { resource: "echo", direction }), BYTES, side)
        }
        assert.strictEqual(sum(node, "sallyport_resource_bytes_total", { resource: "closed" }), 0, side)
        assert.strictEqual(sum(node, "sallyport_resource_flow_opens_total", { resource: "echo", code: "accepted" }), 1)
        assert.strictEqual(sum(node, "sallyport_resource_flow_opens_total", { resource: "closed", code: "refused" }), 1)
        assert.strictEqual(sum(node, "sallyport_signaling_up"), 1, side)
        assert.strictEqual(sum(node, "sallyport_signaling_connects_total"), 1, side)
        assert.strictEqual(sum(node, "sallyport_relay_leg_binds_total", { carrier: "udp" }), 1, side)
        assert.isAbove(sum(node, "sallyport_stun_questions_total", { result: "answered" }), 0, side)
      }
      assert.strictEqual(sum(client, "sallyport_flow_opens_total", { code: "port_not_listed" }), 1)
      assert.strictEqual(sum(client, "sallyport_flow_open_seconds_count"), 1)
      assert.isAbove(sum(connector, "sallyport_path_switches_total", { reason: "peer_selected" }), 0)
      assert.strictEqual(sum(relay, "sallyport_relay_bound_nodes"), 2)
      assert.strictEqual(sum(relay, "sallyport_relay_sessions"), 1)
      assert.isAbove(sum(relay, "sallyport_relay_forwarded_packets_total"), 0)
      assert.isAbove(sum(relay, "sallyport_relay_forwarded_bytes_total"), 0)
      assert.strictEqual(sum(relay, "sallyport_signaling_nodes"), 2)
      assert.strictEqual(sum(relay, "sallyport_signaling_dials_total", { code: "port_not_listed" }), 1)
    }))

  it.scopedLive("contain no key, token, address or name of a host", () =>
    Effect.gen(function*() {
      const port = yield* World.serve(echo)
      const world = yield* World.make({
        resources: [{ name: "things", address: "127.0.0.0/8", tcp: [port], allowLoopback: true }]
      })
      yield* roundTrip(yield* world.dial("127.0.0.1", port), 10)
      yield* world.untilPath("direct")
      const texts = [yield* textOf(world.client), yield* textOf(world.connector), yield* textOf(world.relay)].join("\n")
      const keys = ["laptop", "office", "relay"].flatMap((name) => keysIn(join(world.dir, name)))
      assert.isAbove(keys.length, 10)
      for (const secret of [...keys, "sp1_", "127.0.0.1", "laptop", "office"]) {
        assert.notInclude(texts, secret)
      }
    }))
})
