/** The examples as their README starts them, against a relay. */
import { build } from "esbuild"
import { readFileSync } from "node:fs"
import { get } from "node:http"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import { freePort } from "../support/Ports.ts"
import { command, Program, resource, ROOT, World } from "./support/Programs.ts"

const example = (name: string) => join(ROOT, "examples", name)
/** Ends an example that hangs. On a busy host one takes half a minute. */
const timeoutMs = 120_000

/** Embeds a client by promises, and then as a Layer. */
const EMBEDDING = `
import { Effect, Layer, Option } from "effect"
const { Sallyport } = await import(process.env.SALLYPORT)
const config = { role: "client", name: "reporter", stateDir: process.env.STATE }
const port = Number(process.env.PORT)
const client = await Sallyport.start(config)
const flow = await client.dial("tickets", port)
flow.destroy()
console.log((await client.peers()).length)
await client.stop()
console.log("as a Layer")
const program = Effect.scoped(Effect.gen(function*() {
  const { open, peers } = yield* Sallyport
  yield* open("tickets", port)
  console.log((yield* peers).length)
}))
const quiet = Layer.setVersionMismatchErrorLogLevel(Option.none())
await Effect.runPromise(program.pipe(Effect.provide(Sallyport.layer(config)), Effect.provide(quiet)))
`

/** Bundles {@link EMBEDDING} with an `effect` of another version, as a program may bring along. */
const bundleProgram = (outfile: string) =>
  build({
    stdin: { contents: EMBEDDING, resolveDir: ROOT },
    outfile,
    bundle: true,
    format: "esm",
    platform: "node",
    logLevel: "error",
    plugins: [{
      name: "other-version",
      setup: (bundler) =>
        bundler.onLoad({ filter: /effect\/dist\/esm\/internal\/version\.js$/ }, ({ path }) => ({
          contents: readFileSync(path, "utf8").replace(/"3\.\d+\.\d+"/, "\"3.19.0\"")
        }))
    }]
  })

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
  })

  it("a client beside another version of effect logs no warnings", async () => {
    const outfile = join(world.dir, "beside.mjs")
    await bundleProgram(outfile)
    const { code, err, out } = await command(process.execPath, [outfile], {
      cwd: world.dir,
      env: {
        SALLYPORT: pathToFileURL(join(ROOT, "dist/index.js")).href,
        STATE: join(world.dir, "reporter"),
        PORT: String(port)
      },
      timeoutMs
    })
    assert.strictEqual(code, 0, err)
    assert.deepStrictEqual(String(out).trim().split("\n"), ["1", "as a Layer", "1"])
    assert.notMatch(err, /versioned/)
  })

  it("the connector's program goes on, and ends when told", async () => {
    const local = await new Promise((resolve) => get({ host: "127.0.0.1", port, path: "/tickets" }, resolve))
    assert.propertyVal(local, "statusCode", 200)
    assert.strictEqual((await service?.stop())?.code, 0)
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
