import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Config from "../../src/services/config/Config.ts"
import { Client, Connector, Forwarder, Relay } from "../../src/services/config/ConfigSchema.ts"
import * as Reload from "../../src/services/config/Reload.ts"

const SCHEMAS = { relay: Relay, forwarder: Forwarder, connector: Connector, client: Client }

const CLIENT = { role: "client", name: "laptop", stateDir: "s", token: "secret-one", socks5: "127.0.0.1:1080" } as const
const decode = (value: unknown) => Config.decode(value, { baseDir: "/" })

describe("what a reload takes over", () => {
  for (const [role, schema] of Object.entries(SCHEMAS)) {
    it(`is decided for every key of a ${role}`, () => {
      const table: Readonly<Record<string, unknown>> = Reload.TABLES[role as keyof typeof SCHEMAS]
      assert.sameMembers(Object.keys(table), Object.keys(schema.fields))
    })
  }

  it.effect("is decided for each key of telemetry", () =>
    Effect.gen(function*() {
      const client = yield* decode({ ...CLIENT, telemetry: { otlp: "http://127.0.0.1:4318", sample: 1, report: true } })
      assert.sameMembers(Object.keys(Reload.TABLES.client.telemetry), Object.keys(client.telemetry))
      const { report: _, ...ofRelay } = { report: "", ...client.telemetry }
      assert.sameMembers(Object.keys(Reload.TABLES.relay.telemetry), Object.keys(ofRelay))
    }))

  it.effect("names the keys that differ, by when they take effect", () =>
    Effect.gen(function*() {
      const before = yield* decode(CLIENT)
      const after = yield* decode({
        ...CLIENT,
        token: "secret-two",
        socks5: "127.0.0.1:1081",
        path: "relay",
        logLevel: "debug",
        admin: "127.0.0.1:9302",
        telemetry: { sample: 0.5, otlp: "http://127.0.0.1:4318" },
        forwards: [{ listen: "127.0.0.1:8080", resource: "intranet", port: 80 }],
        udp: { port: 41_641 }
      })
      assert.sameMembers([...Reload.changed(before, after, "live")], [
        "socks5",
        "logLevel",
        "admin",
        "telemetry.sample",
        "forwards",
        "path"
      ])
      assert.sameMembers([...Reload.changed(before, after, "restart")], ["udp", "telemetry.otlp"])
      assert.deepStrictEqual([...Reload.changed(before, after, "enrolment")], ["token"])
      for (const when of ["live", "restart", "enrolment"] as const) {
        assert.deepStrictEqual([...Reload.changed(before, yield* decode(CLIENT), when)], [])
      }
    }))

  it.effect("leaves path to a restart where WebRTC was on", () =>
    Effect.gen(function*() {
      const started = yield* decode({ ...CLIENT, webrtc: "auto" })
      const between = yield* decode(CLIENT)
      const after = yield* decode({ ...CLIENT, path: "relay" })
      assert.deepStrictEqual([...Reload.changed(between, after, "live", started)], [])
      assert.deepStrictEqual([...Reload.changed(started, after, "restart")], ["path", "webrtc"])
    }))
})
