/** Whatever a running relay, connector or client says of itself, at its most talkative: no key, no token and no TURN secret is in it. */
import { RpcClient } from "@effect/rpc"
import { Effect, Redacted } from "effect"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { gunzipSync } from "node:zlib"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import { RelaySignalingRpcs } from "../../src/actors/signaling/RelaySignalingRpcs.ts"
import * as Enrol from "../../src/roles/Enrol.ts"
import { layerNodeIdentity, NodeIdentity } from "../../src/services/identity/Keys.ts"
import { TURN_SECRET_FILE } from "../../src/services/identity/TurnCredentials.ts"
import * as RpcOverLink from "../../src/session/RpcOverLink.ts"
import * as LinkClient from "../../src/transport/link/LinkClient.ts"
import { keysIn } from "../e2e/support/Secrets.ts"
import { HANG_MS } from "../support/Hang.ts"
import { freePort } from "../support/Ports.ts"
import {
  PROGRAM,
  Program,
  resource,
  type Role,
  sallyport,
  serve,
  type Served,
  until,
  World
} from "./support/Programs.ts"

const ROLES: ReadonlyArray<Role> = ["relay", "connector", "client"]
const ROUTES = ["/v1/status", "/v1/actors", "/v1/recorder", "/v1/traces", "/metrics", "/healthz", "/readyz"]
const PEER: Readonly<Record<Role, string>> = { relay: "laptop", connector: "laptop", client: "office" }

let world: World
let server: Served
let tokens: ReadonlyArray<string>
/** Public, and named by a relay's status; nowhere else. */
let nodeKeys: ReadonlyArray<string>
let turn: { readonly username: string; readonly password: string }

/** What a node is given by signaling, of a node that enrols for it and is no more. */
const turnLogin = (token: string) =>
  Effect.runPromise(Effect.scoped(Effect.gen(function*() {
    const stateDir = join(world.dir, "state", "guest")
    const asked = { role: "client", name: "guest", stateDir, token: Redacted.make(token), carrier: "auto" } as const
    const { relay } = yield* Enrol.ensure(asked)
    const { link } = yield* LinkClient.connect({
      host: relay.host,
      port: relay.httpsPort,
      trust: relay.tls,
      carrier: "auto",
      purpose: "signal",
      identity: yield* Effect.provide(NodeIdentity, layerNodeIdentity({ stateDir }))
    })
    const protocol = yield* RpcOverLink.makeClient(link)
    const signaling = yield* Effect.provideService(RpcClient.make(RelaySignalingRpcs), RpcClient.Protocol, protocol)
    const { password, username } = yield* signaling.TurnCredentials()
    return { username, password: Redacted.value(password) }
  })))

const talk = async (): Promise<void> => {
  const socket = await world.dial("echo", server.port)
  socket.write("hello")
  await new Promise((resolve) => socket.once("data", resolve))
  await world.direct()
  socket.destroy()
}

beforeAll(async () => {
  server = await serve((socket) => void socket.pipe(socket))
  world = await World.start({
    resources: [resource("echo", server.port)],
    logLevel: "debug",
    turn: { udp: `127.0.0.1:${await freePort()}`, publicAddress: "127.0.0.1" }
  })
  const guest = (await world.token("client", "guest")).trim()
  const used = ["connector", "client"].map((role) => readFileSync(join(world.dir, `${role}.token`), "utf8").trim())
  tokens = [guest, ...used, (await world.token("client", "nobody")).trim()]
  turn = await turnLogin(guest)
  const listed = await world.admin("node", "list", "--json")
  nodeKeys = (JSON.parse(String(listed.out)) as { nodes: ReadonlyArray<{ nodeKey: string }> }).nodes.map((node) =>
    node.nodeKey
  )
  assert.lengthOf(nodeKeys, 3)
  await talk()
})
afterEach(({ task }) => {
  if (task.result?.state === "fail") world.tell()
})
afterAll(async () => {
  await world?.stop()
  server?.close()
})

/** Of all three and of the guest, with what was given to somebody by word. */
const secrets = (): ReadonlyArray<string> => {
  const turnKey = readFileSync(join(world.dir, "state", "relay", TURN_SECRET_FILE), "utf8").trim()
  const kept = [...ROLES, "guest"].flatMap((name) => keysIn(join(world.dir, "state", name)))
  assert.include(kept, turnKey)
  return [...new Set([...kept, ...tokens, turn.password, "sp1_", "PRIVATE KEY"])]
}

/** Fails when one is in it. */
const searched = (what: string, said: string, allowed: ReadonlyArray<string> = []): void => {
  assert.isNotEmpty(said, `${what} says nothing, so that nothing was searched`)
  const told = secrets().filter((secret) => said.includes(secret) && !allowed.includes(secret))
  const where = told.map((secret) => {
    const at = said.indexOf(secret)
    return said.slice(Math.max(0, at - 80), at + 8)
  })
  assert.deepStrictEqual(where, [], `${what} tells secrets`)
}

describe("no secret is shown", () => {
  for (const role of ROLES) {
    it(`by the admin API of the ${role}`, async () => {
      for (const path of ROUTES) {
        const known = role === "relay" && path === "/v1/status" ? nodeKeys : []
        searched(`${path} of the ${role}`, JSON.stringify(await world.ask(role, path)), known)
      }
    })

    const commands = [
      ["status"],
      ["actors"],
      ["path", PEER[role]],
      ["doctor"],
      ["netcheck"],
      ["trace", "--last", "50"],
      ["ping", PEER[role], "--count", "1"]
    ]
    it(`are not shown by the commands for the ${role}`, async () => {
      for (const args of commands) {
        for (const more of [[], ["--json"]]) {
          const ran = await sallyport([...args, ...more, "--config", world.file(role)], { cwd: world.dir })
          const known = role === "relay" && args[0] === "status" ? nodeKeys : []
          searched(`${[...args, ...more].join(" ")} @ ${role}`, `${String(ran.out)}${ran.err}`, known)
        }
      }
    })

    it(`by the bug report of the ${role}`, async () => {
      const out = join(world.dir, `${role}.report.gz`)
      const ran = await sallyport(["bugreport", "--out", out, "--config", world.file(role)], { cwd: world.dir })
      assert.strictEqual(ran.code, 0, ran.err)
      searched(`bugreport @ ${role}`, `${String(ran.out)}${ran.err}${String(gunzipSync(readFileSync(out)))}`)
    })

    it(`by the ${role}'s log at level debug, for programs`, () => {
      const { lines, said } = world.program(role)
      assert.strictEqual(lines.length, said, "no line was dropped before it was searched")
      assert.isTrue(lines.some((line) => /"(logLevel|level)":"DEBUG"/i.test(line)), "it speaks at level debug")
      searched(`the log of the ${role}`, lines.join("\n"))
    })
  }

  it("by the logs for people", async () => {
    for (const role of ROLES) {
      await world.program(role).stop()
      const args = ["run", "--config", world.file(role), "--log-format", "pretty"]
      world.programs.set(role, new Program(PROGRAM, args, { cwd: world.dir }))
      await until(`the ${role} runs`, () => world.ask(role, "/readyz").catch(() => null), HANG_MS)
    }
    await talk()
    for (const role of ROLES) searched(`the log of the ${role}`, world.program(role).lines.join("\n"))
  })
})
