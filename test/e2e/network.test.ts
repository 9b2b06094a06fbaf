/** The view of the whole network: what a node that consents tells its relay, and what the relay may ask of it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import pkg from "../../package.json" with { type: "json" }
import { MAX_NODES, type Network } from "../../src/actors/hub/SignalingHubRpcs.ts"
import { Reason } from "../../src/protocol/path/PathRef.ts"
import * as Directory from "../../src/services/directory/Directory.ts"
import { HANG_MS } from "../support/Hang.ts"
import * as World from "./support/World.ts"

/** Asks the relay again until it knows what is asked for. */
const until = (world: World.World, what: string, holds: (network: Network) => boolean) =>
  (world.relay.network?.overview({ find: "", after: "", limit: MAX_NODES }) ?? Effect.die("no relay")).pipe(
    Effect.filterOrFail(holds, (network) => new Error(`${what}: ${JSON.stringify(network)}`)),
    Effect.retry({ schedule: World.spaced, times: 1800 })
  )
const reportOf = ({ nodes }: Network, name: string) => nodes.find((node) => node.name === name)?.report

describe("the network as its nodes report it", () => {
  it.scopedLive(
    "shows consenting nodes, asks only them, and forgets removed ones",
    () =>
      Effect.gen(function*() {
        const port = yield* World.serve((socket) => void socket.on("error", () => undefined).pipe(socket))
        const world = yield* World.make({
          resources: [{ name: "echo", address: "127.0.0.1", tcp: [port], allowLoopback: true }],
          client: { telemetry: { report: true } }
        })
        yield* Effect.exit(Effect.scoped(world.dial("echo", 1)))
        const socket = yield* world.dial("echo", port)
        socket.on("error", () => undefined) // cut at the end
        const network = yield* until(world, "direct", (told) =>
          told.paths.direct === 1 && reportOf(told, "laptop")?.flows["accepted"] === 1)
        const { version, peers, peersInAll, flows } = reportOf(network, "laptop")!
        assert.deepStrictEqual([version, peersInAll, peers[0]?.name], [pkg.version, 1, "office"])
        assert.isTrue(Schema.is(Reason)(peers[0]?.reason)) // which one depends on how busy this machine is
        assert.isNumber(peers[0]?.pathAgeSeconds)
        assert.deepStrictEqual([flows["accepted"], flows["port_not_listed"]], [1, 1])
        assert.notInclude(JSON.stringify(network.nodes), "127.0.0.1")

        const examine = (name: string) =>
          world.relay.network!.examine(name)
        const findings = yield* examine("laptop")
        // On a busy machine threads are late and paths answer late. The refused flow is the subject.
        const ofBusyMachines = new Set(["thread_late", "nothing_answers"])
        assert.deepStrictEqual(
          findings.flatMap(({ code }) => (ofBusyMachines.has(code) ? [] : [code])),
          ["flow_refused"]
        )
        assert.isNull(reportOf(network, "office"))
        assert.match((yield* Effect.flip(examine("office"))).message, /office does not report; write telemetry/)
        assert.match((yield* Effect.flip(examine("nobody"))).message, /no node nobody is enrolled/)

        yield* Effect.flatMap(Directory.Directory, (directory) =>
          directory.removeNode("laptop")).pipe(
            Effect.provide(Directory.layer({ stateDir: world.relayConfig.stateDir }))
          )
        const after = yield* until(world, "removed", ({ paths }) => paths.direct === undefined)
        assert.deepStrictEqual(after.nodes.map(({ name }) => name), ["office"])
        assert.match((yield* Effect.flip(examine("laptop"))).message, /no node laptop is enrolled/)
      }),
    HANG_MS
  )
})
