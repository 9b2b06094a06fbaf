/** The examples as their README starts them, against a relay. */
import { get } from "node:http"
import { join } from "node:path"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import { freePort } from "../support/Ports.ts"
import { command, Program, resource, ROOT, World } from "./support/Programs.ts"

const example = (name: string) => join(ROOT, "examples", name)
/** Ends an example that hangs. On a busy host one takes half a minute. */
const timeoutMs = 120_000

describe("the examples", () => {
  let world: World
  let port: number
  let service: Program | null = null

  beforeAll(async () => {
    port = await freePort()
    world = await World.start({
      resources: [{ ...resource("tickets", port), network: "office" }],
      access: [{ clients: ["reporter"], resources: ["tickets"] }],
      relayOnly: true
    })
  })
  afterEach(({ task }) => {
    if (task.result?.state !== "fail") return
    world.tell()
    process.stderr.write(`--- the service\n${service?.lines.join("\n") ?? "not started"}\n`)
  })
  afterAll(async () => {
    await service?.stop()
    await world?.stop()
  })

  it("a client in a script asks a connector in Express", async () => {
    const env = async (role: "connector" | "client", name: string, ...more: ReadonlyArray<string>) => ({
      TOKEN: (await world.token(role, name, ...more)).trim(),
      STATE: join(world.dir, name),
      PORT: String(port)
    })
    const connector = await env("connector", "tickets-service", "--network", "office")
    service = new Program(process.execPath, [example("express-connector.mjs")], { cwd: world.dir, env: connector })
    await service.ready()
    const client = await env("client", "reporter")
    const run = (name: string, env: Readonly<Record<string, string>>) =>
      command(process.execPath, [example(name), "tickets"], { cwd: world.dir, env, timeoutMs })
    const asked = await run("query-client.mjs", client)
    assert.strictEqual(asked.code, 0, asked.err)
    const [body = "", peers = ""] = String(asked.out).trim().split("\n")
    assert.deepStrictEqual(JSON.parse(body), [{ id: 1, title: "Printer on fire" }])
    const [peer] = JSON.parse(peers) as ReadonlyArray<{ readonly name: string; readonly path: string }>
    assert.strictEqual(peer?.name, "tickets-service")
    // The same node once more: it needs no token now.
    const { TOKEN: _, ...enrolled } = client
    const streamed = await run("effect-client.mjs", enrolled)
    assert.strictEqual(streamed.code, 0, streamed.err)
    assert.match(String(streamed.out), /^HTTP\/1\.[01] 200 OK[^]*Printer on fire/)
    // The service serves its own machine as before, and ends when it is told to.
    const local = await new Promise((resolve) => get({ host: "127.0.0.1", port, path: "/tickets" }, resolve))
    assert.propertyVal(local, "statusCode", 200)
    assert.strictEqual((await service.stop()).code, 0)
  })

  it("say what is wrong when they get no token", async () => {
    const env = { STATE: join(world.dir, "nobody"), PORT: "0" }
    const { code, err } = await command(process.execPath, [example("query-client.mjs")], {
      cwd: world.dir,
      env,
      timeoutMs
    })
    assert.notStrictEqual(code, 0)
    assert.match(err, /has no token/)
  })
})
