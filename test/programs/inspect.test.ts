/** Commands that look into running processes which export nothing: what they show, and what they keep to themselves. */
import { Schema } from "effect"
import { once } from "node:events"
import { readFileSync, statSync } from "node:fs"
import net from "node:net"
import { join } from "node:path"
import { gunzipSync } from "node:zlib"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import { Reason } from "../../src/protocol/path/PathRef.ts"
import type { Traces } from "../../src/services/telemetry/Traces.ts"
import { keysIn } from "../e2e/support/Secrets.ts"
import { resource, type Role, sallyport, World } from "./support/Programs.ts"

const ROLES: ReadonlyArray<Role> = ["relay", "connector", "client"]
let world: World
let server: net.Server
let port: number

const ask = (role: Role, ...args: ReadonlyArray<string>) =>
  sallyport([...args, "--config", world.file(role)], { cwd: world.dir })

beforeAll(async () => {
  server = net.createServer((socket) => socket.on("error", () => undefined).pipe(socket)).listen(0, "127.0.0.1")
  await once(server, "listening")
  port = (server.address() as net.AddressInfo).port
  world = await World.start({ resources: [resource("echo", port)] })
  const socket = await world.dial("echo", port)
  await world.direct()
  socket.resume().end("bye")
  await once(socket, "close")
})
afterEach(({ task }) => {
  if (task.result?.state === "fail") world.tell()
})
afterAll(async () => {
  await world?.stop()
  server?.close()
})

const tracesOf = async (role: Role, ...args: ReadonlyArray<string>) => {
  const { code, err, out } = await ask(role, "trace", ...args, "--json")
  assert.strictEqual(code, 0, err)
  return JSON.parse(String(out)) as Traces
}

describe("sallyport trace", () => {
  it("shows a flow in all processes under the same id", async () => {
    const { traces: [flow] } = await tracesOf("client", "--last", "1")
    assert.isDefined(flow)
    const names = flow.spans.map(({ name }) => name)
    assert.includeMembers(names, [
      "flow",
      "flow.session",
      "StreamMux.dial",
      "flow.open",
      "flow.transfer",
      "path.switch"
    ])
    assert.sameMembers([...new Set(flow.spans.map(({ thread }) => thread))], ["data", "control"])
    const ids = new Set(flow.spans.map(({ spanId }) => spanId))
    const rootless = flow.spans.filter(({ parentSpanId }) => parentSpanId === null || !ids.has(parentSpanId))
    assert.deepStrictEqual(rootless.map(({ name }) => name), ["flow"])
    assert.isAbove(flow.durationMs, 0)
    const [root] = flow.spans
    assert.strictEqual(root?.attributes["sallyport.path"], "direct")
    assert.isTrue(Schema.is(Reason)(root?.attributes["sallyport.path.reason"])) // which one depends on timing

    for (const [role, name] of [["connector", "flow.serve"], ["relay", "SignalingHub.dial"]] as const) {
      const { traces } = await tracesOf(role, flow.traceId.slice(0, 8))
      assert.deepStrictEqual(traces.map(({ traceId }) => traceId), [flow.traceId])
      assert.include(traces[0]?.spans.map((span) => span.name) ?? [], name)
    }
    const { code, out } = await ask("client", "trace", flow.traceId)
    assert.strictEqual(code, 0)
    assert.match(String(out), /\+0\.0 ms +[\d.]+ ms +=+ +flow +data/)
  })

  it("shows an open flow from its start as still running", async () => {
    const socket = await world.dial("echo", port)
    socket.write("still here")
    await once(socket, "data")
    const { traces: [flow] } = await tracesOf("client", "--last", "1")
    const root = flow?.spans.find(({ parentSpanId }) => parentSpanId === null)
    assert.deepStrictEqual([root?.name, root?.status], ["flow", "open"])
    assert.deepStrictEqual(flow?.spans.find(({ name }) => name === "flow.transfer")?.status, "open")
    const shown = await ask("client", "trace", flow?.traceId ?? "")
    assert.match(String(shown.out), /^[0-9a-f]{32} .* goes on\n/)
    assert.match(String(shown.out), / \.\. +=+ +flow +data/)
    socket.resume().end()
    await once(socket, "close")
    const { traces: [over] } = await tracesOf("client", flow?.traceId ?? "")
    assert.deepStrictEqual(over?.spans.filter(({ status }) => status === "open"), [])
  })

  it("says what it has not, and what it cannot understand", async () => {
    const missing = await ask("client", "trace", "0123456789abcdef")
    assert.strictEqual(missing.code, 1)
    assert.match(missing.err, /nothing is kept of a trace 0123456789abcdef/)
    const wrong = await ask("client", "trace", "office")
    assert.strictEqual(wrong.code, 2)
    assert.match(wrong.err, /4 to 32 hex digits/)
    assert.strictEqual((await ask("client", "trace", "--last", "0")).code, 2)
  })
})

describe("sallyport ping", () => {
  it("measures round trips until the path is direct", async () => {
    for (const [role, peer] of [["client", "office"], ["connector", "laptop"]] as const) {
      const { code, out } = await ask(role, "ping", peer, "--json")
      assert.strictEqual(code, 0)
      const { answers } = JSON.parse(String(out)) as { readonly answers: ReadonlyArray<Record<string, unknown>> }
      assert.strictEqual(answers.at(-1)?.["path"], "direct")
      assert.isAbove(Number(answers.at(-1)?.["rttMs"]), 0)
    }
    assert.match(String((await ask("client", "ping", "office")).out), /^office answers after [\d.]+ ms by direct\n$/m)
  })

  it("fails for a peer without a session, and without sessions", async () => {
    const nobody = await ask("client", "ping", "nobody", "--count", "1")
    assert.strictEqual(nobody.code, 1)
    assert.match(String(nobody.out), /there is no session with nobody; open a flow/)
    const relay = await ask("relay", "ping", "laptop", "--count", "1")
    assert.deepStrictEqual([relay.code, /ask a node/.test(String(relay.out))], [1, true])
  })
})

describe("sallyport bugreport", () => {
  it("contains the whole state without keys, tokens or addresses", async () => {
    const keys = ROLES.flatMap((role) => keysIn(join(world.dir, "state", role)))
    assert.isAbove(keys.length, 3)
    const read = async (role: Role, file: string) => {
      const { code, err } = await ask(role, "bugreport", "--out", file)
      assert.strictEqual(code, 0, err)
      const text = gunzipSync(readFileSync(join(world.dir, file))).toString()
      for (const secret of [...keys, "sp1_"]) assert.notInclude(text, secret)
      return JSON.parse(text) as Record<string, Record<string, unknown>>
    }
    for (const role of ROLES) {
      const report = await read(role, `${role}.gz`)
      assert.strictEqual(report["config"]?.["role"], role)
      assert.isArray(report["doctor"])
      for (const part of ["status", "actors", "recorder", "traces"]) assert.notProperty(report[part], "missing", part)
      assert.include(JSON.stringify(report["metrics"]), "sallyport_actor_up")
    }
    assert.strictEqual(statSync(join(world.dir, "client.gz")).mode & 0o777, 0o600)
    const again = await ask("client", "bugreport", "--out", "client.gz")
    assert.strictEqual(again.code, 1)
    assert.match(again.err, /give another --out/)

    await world.program("client").stop()
    const dead = await read("client", "dead.gz")
    assert.match(String(dead["status"]?.["missing"]), /sallyport is not running/)
    assert.isNull(dead["doctor"])
  })
})
