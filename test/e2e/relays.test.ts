/** A second relay: how it joins, what it does with the authority's public key alone, and who is refused. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { SignalingHub } from "../../src/actors/hub/SignalingHubRpcs.ts"
import * as Run from "../../src/roles/Run.ts"
import type { Running } from "../../src/roles/Running.ts"
import { decode } from "../../src/services/config/Config.ts"
import * as Directory from "../../src/services/directory/Directory.ts"
import * as World from "./support/World.ts"

const QUIET = { format: "json", level: "None", otlp: null, sample: 1, serviceName: "test" } as const
const resources = [{ name: "web", address: "127.0.0.1", tcp: [80], allowLoopback: true }]

const httpsOf = ({ relay }: World.World) => Number(relay.listen["https"]?.split(":").at(-1))

const tokenOf = (world: World.World, role: "client" | "relay", name: string) =>
  World.createToken(world.relayConfig, httpsOf(world), role, name, null)

/** Runs until the scope ends. */
const join = (world: World.World, name: string, token: string, stateDir = name) =>
  Effect.gen(function*() {
    const config = yield* decode({
      role: "relay",
      name,
      stateDir,
      join: Redacted.make(token),
      listen: { udp: "127.0.0.1:0" },
      advertise: { host: "127.0.0.1" }
    }, { baseDir: world.dir })
    const running: Running = yield* Run.start(config, QUIET, { localDoor: false, newIdentity: true })
    return running
  })

const untilListed = (world: World.World, name: string) =>
  Effect.flatMap(Directory.Directory, ({ relays }) =>
    relays.pipe(
      Effect.flatMap((all) => Effect.fromNullable(all.find((relay) => relay.name === name))),
      Effect.retry({ schedule: World.spaced, times: 6000 })
    )).pipe(Effect.provide(Directory.layer({ stateDir: world.relayConfig.stateDir })))

describe("a second relay", () => {
  it.scopedLive("joins with a token, and returns without one", () =>
    Effect.gen(function*() {
      const world = yield* World.make({ resources })
      const token = yield* tokenOf(world, "relay", "relay-2")
      const first = yield* Effect.scoped(Effect.gen(function*() {
        const running = yield* join(world, "relay-2", token)
        const port = Number(running.listen["udp"]?.split(":").at(-1))
        assert.deepStrictEqual(yield* untilListed(world, "relay-2"), {
          name: "relay-2",
          addresses: ["127.0.0.1"],
          port
        })
        const nodes = yield* world.relay.supervisor.ref(SignalingHub).ask((hub) => hub.Nodes())
        assert.include(nodes.map(({ name, role }) => `${role} ${name}`), "relay relay-2")
        return port
      }))
      const again = yield* join(world, "relay-2", "sp1_this-is-no-token")
      assert.isAbove(first, 0)
      assert.match(again.listen["udp"] ?? "", /^127\.0\.0\.1:\d+$/)
    }))

  it.scopedLive("refuses a used, foreign or garbled token, and a client's", () =>
    Effect.gen(function*() {
      const world = yield* World.make({ resources })
      const refusal = (name: string, token: string) =>
        join(world, name, token).pipe(Effect.scoped, Effect.flip, Effect.map((error) => error.message))
      const token = yield* tokenOf(world, "relay", "relay-2")
      yield* Effect.scoped(join(world, "relay-2", token))
      assert.include(yield* refusal("thief", token), "another node has used this token")
      assert.include(yield* refusal("garbled", `${token.slice(0, -4)}AAAA`), "the enrolment token is not usable")
      const clients = yield* tokenOf(world, "client", "phone")
      assert.include(yield* refusal("phone", clients), "this token is for the client phone")
      const other = yield* World.make({ resources })
      const mixed = yield* World.createToken(world.relayConfig, httpsOf(other), "relay", "relay-3", null)
      assert.include(yield* refusal("relay-3", mixed), "this is not the relay that the token came from")
    }))
})
