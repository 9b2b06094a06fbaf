/** The main job with programs that know nothing of us: curl, signals, files that change. */
import { createHash, randomBytes } from "node:crypto"
import { readFileSync } from "node:fs"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import { HANG_MS } from "../support/Hang.ts"
import { freePort } from "../support/Ports.ts"
import { CURL, have, resource, sallyport, until, World } from "./support/Programs.ts"

const PAYLOAD = randomBytes(3 << 20)

/** curl's exit code for a SOCKS5 reply that is not 0, and what it says about it. */
const CURL_PROXY = 97
const replyOf = (verbose: string) => Number(/\((\d+)\)\s*$/m.exec(verbose)?.[1] ?? Number.NaN)

describe.skipIf(!have(CURL))("curl through a relay, a connector and a client", () => {
  let http: Server
  let world: World
  let port: number
  let closed: number

  beforeAll(async () => {
    http = createServer((request, response) => {
      if (request.method === "POST") {
        const hash = createHash("sha256")
        request.on("data", (bytes: Buffer) => hash.update(bytes)).once("end", () => response.end(hash.digest("hex")))
      } else response.end(request.url === "/payload" ? PAYLOAD : "hello\n")
    })
    await new Promise<void>((listening) => http.listen(0, "127.0.0.1", listening))
    port = (http.address() as AddressInfo).port
    closed = await freePort()
    world = await World.start({
      resources: [
        resource("intranet", port),
        resource("closed", closed),
        resource("secret", port),
        { name: "gone", address: "does-not-exist.invalid", tcp: [80] },
        { name: "nowhere", address: "2001:db8::1", tcp: [80] },
        { name: "own", address: "127.0.0.1", tcp: [port] },
        { ...resource("lonely", port), network: "empty" }
      ],
      access: [{ clients: ["laptop"], resources: ["intranet", "closed", "gone", "nowhere", "own", "lonely"] }]
    })
  })
  afterEach(({ task }) => {
    if (task.result?.state === "fail") world.tell()
  })
  afterAll(async () => {
    await world?.stop()
    http?.close()
    http?.closeAllConnections()
  })

  it("fetches and uploads by name, relayed first and then direct", async () => {
    const hello = await world.curl(`http://intranet:${port}/`)
    assert.deepStrictEqual([hello.code, String(hello.out)], [0, "hello\n"], hello.err)
    await world.direct()
    const payload = await world.curl(`http://intranet:${port}/payload`)
    assert.strictEqual(payload.code, 0, payload.err)
    assert.isTrue(payload.out.equals(PAYLOAD))
    const upload = await world.curl(`http://intranet:${port}/`, "--data-binary", `@${process.execPath}`)
    const sent = createHash("sha256").update(readFileSync(process.execPath)).digest("hex")
    assert.strictEqual(String(upload.out), sent)
  })

  it("reports the state of every role as JSON", async () => {
    const before = await world.direct()
    const { code, out } = await sallyport(["status", "--json", "--config", world.file("client")])
    assert.strictEqual(code, 0)
    assert.includeMembers(Object.keys(JSON.parse(String(out)) as object), [
      "self",
      "resources",
      "peers",
      "signaling",
      "leg",
      "refusals",
      "restartNeeded"
    ])
    assert.sameMembers(
      Object.keys(before),
      ["name", "path", "relay", "rttMs", "reason", "flows", "bytesIn", "bytesOut"]
    )
    assert.deepStrictEqual([before.name, before.path, before.flows], ["office", "direct", 0])
    assert.isNotEmpty(before.reason)
    assert.isNumber(before.rttMs)
    await world.curl(`http://intranet:${port}/payload`)
    const after = await world.direct()
    assert.isAbove(after.bytesIn - before.bytesIn, PAYLOAD.length)
    assert.isAbove(after.bytesOut, before.bytesOut)
    assert.deepStrictEqual((await world.status("connector")).peers.map(({ name }) => name), ["laptop"])
    const relay = await world.status("relay") as { readonly nodes?: ReadonlyArray<{ readonly name: string }> }
    assert.sameMembers((relay.nodes ?? []).map(({ name }) => name), ["office", "laptop"])
    for (const role of ["relay", "connector", "client"] as const) {
      for (const page of ["/healthz", "/readyz"]) assert.strictEqual(await world.ask(role, page), "ok\n", role)
    }
  })

  it.each([
    ["a port where nobody listens", () => `http://closed:${closed}/`, 5],
    ["an address that no route leads to", () => "http://nowhere:80/", 4],
    ["a name that the connector cannot resolve", () => "http://gone:80/", 4],
    ["a network without a connector", () => `http://lonely:${port}/`, 4],
    ["a resource that does not exist", () => "http://nonsense:80/", 4],
    ["a port that is not listed", () => `http://intranet:${port === 1 ? 2 : 1}/`, 2],
    ["a resource that this client may not reach", () => `http://secret:${port}/`, 2],
    ["the connector's own machine without allowLoopback", () => `http://own:${port}/`, 2]
  ])("says the truth of %s", async (_, url, reply) => {
    const { code, err } = await world.curl(url())
    assert.deepStrictEqual([code, replyOf(err)], [CURL_PROXY, reply], err)
  })

  describe("SIGHUP", () => {
    const all = [{ clients: ["*"], resources: ["*"] }]
    const reachable = async (name: string) => (await world.curl(`http://${name}:${port}/`)).code === 0
    const becomes = (name: string, wanted: boolean) =>
      until(
        `${name} is ${wanted ? "" : "not "}reachable`,
        async () => (await reachable(name)) === wanted || null,
        HANG_MS
      )

    it("takes over resources and access at the relay", async () => {
      const relay = world.program("relay")
      world.configure("relay", { access: [{ clients: ["*"], resources: ["secret"] }] })
      relay.kill("SIGHUP")
      await becomes("secret", true)
      await becomes("intranet", false)
      world.configure("relay", { resources: [resource("intranet", port), resource("fresh", port)], access: all })
      relay.kill("SIGHUP")
      await becomes("fresh", true)
      await becomes("secret", false)
    })

    it("keeps a flow that is still permitted through every reload", async () => {
      const relay = world.program("relay")
      const socket = await world.dial("intranet", port)
      const lost: Array<string> = []
      socket.on("error", ({ message }) => lost.push(message)).on("close", () => lost.push("closed"))
      socket.resume()
      for (let round = 0; round < 12; round++) {
        const extra = resource(`extra-${round}`, port)
        world.configure("relay", {
          resources: [resource("intranet", port), resource("fresh", port), extra],
          access: all
        })
        relay.kill("SIGHUP")
        await until("the extra resource", async () => (await reachable(extra.name)) || null, HANG_MS)
      }
      assert.deepStrictEqual(lost, [])
      socket.destroy()
    })

    it("keeps the old state when the file is broken", async () => {
      const relay = world.program("relay")
      const before = relay.lines.length
      const file = world.configure("relay", { resources: [{ name: "No Name", address: "", tcp: [0] }] })
      relay.kill("SIGHUP")
      const line = await until(
        "the log says so",
        () => relay.lines.slice(before).find((text) => text.includes("was not reloaded")) ?? null,
        HANG_MS
      )
      assert.include(line, file)
      assert.isTrue(relay.running)
      assert.isTrue(await reachable("fresh"))
      world.configure("relay", { resources: [resource("intranet", port)], access: all })
      relay.kill("SIGHUP")
      await becomes("intranet", true)
    })

    it("opens and closes forwards, but none for a broken file", async () => {
      const client = world.program("client")
      const [first, second] = [await freePort(), await freePort()]
      const forward = (at: number) => ({ listen: `127.0.0.1:${at}`, resource: "intranet", port })
      const open = async (at: number) => (await world.curl(`http://127.0.0.1:${at}/`, "--proxy", "")).code === 0
      const opens = (at: number, wanted: boolean) =>
        until(`forward ${at}`, async () => (await open(at)) === wanted || null, HANG_MS)
      world.configure("client", { forwards: [forward(first)] })
      client.kill("SIGHUP")
      await opens(first, true)
      world.configure("client", { forwards: [{ ...forward(second), port: 70_000 }] })
      client.kill("SIGHUP")
      await until("said", () => client.lines.find((text) => text.includes("was not reloaded")) ?? null, HANG_MS)
      assert.deepStrictEqual([await open(first), await open(second)], [true, false])
      // The second one is taken by another program: neither changes.
      const taken = (http.address() as AddressInfo).port
      world.configure("client", { forwards: [forward(second), forward(taken)] })
      client.kill("SIGHUP")
      await until(
        "said",
        () => client.lines.find((text) => text.includes("another program listens")) ?? null,
        HANG_MS
      )
      assert.isFalse(await open(second))
      assert.isTrue(await open(first), "the old forward stays")
      world.configure("client", { forwards: [forward(second)] })
      client.kill("SIGHUP")
      await opens(second, true)
      await opens(first, false)
    })
  })

  it("applies what it can on SIGHUP, and names the rest", async () => {
    const client = world.program("client")
    const [admin, socks5] = [await freePort(), await freePort()]
    const before = client.said
    const changes = {
      admin: `127.0.0.1:${admin}`,
      socks5: `127.0.0.1:${socks5}`,
      path: "relay",
      carrier: "websocket",
      logLevel: "debug"
    } as const
    world.configure("client", changes)
    client.kill("SIGHUP")
    const line = await until(
      "said",
      () => client.lines.find((text) => text.includes("restart sallyport")) ?? null,
      HANG_MS
    )
    assert.match(line, /reloaded: admin, logLevel, path, socks5.*; restart sallyport for: carrier/)
    const told = await world.ask("client", "/v1/status") as {
      readonly restartNeeded: ReadonlyArray<string>
      readonly candidates: unknown
    }
    assert.deepStrictEqual(told.restartNeeded, ["carrier"])
    assert.isNull(told.candidates, "no address is offered with path: relay")
    const moved = await world.curl(`http://intranet:${port}/`, "--socks5-hostname", `127.0.0.1:${socks5}`)
    assert.strictEqual(moved.code, 0, moved.err)
    assert.notStrictEqual((await world.curl(`http://intranet:${port}/`)).code, 0, "the old SOCKS5 port is closed")
    await until("a thread logs at debug", () => client.lines.find((text) => /"DEBUG"/.test(text)) ?? null, HANG_MS)
    assert.isAbove(client.said, before)
    world.configure("client", {})
    client.kill("SIGHUP")
    await until("back", async () => (await world.curl(`http://intranet:${port}/`)).code === 0 || null, HANG_MS)
  })

  it("stops in order at SIGTERM, with a flow open", async () => {
    const socket = await world.dial("intranet", port)
    socket.on("error", () => undefined)
    for (const role of ["relay", "client", "connector"] as const) {
      assert.strictEqual((await world.program(role).stop()).code, 0, role)
      if (role !== "relay") continue
      const why = () => world.ask("client", "/readyz").then(() => null, ({ message }: Error) => message)
      assert.match(
        await until("the client is not ready", why, HANG_MS),
        /not connected to the relay 127\.0\.0\.1:\d+: ./
      )
      assert.strictEqual(await world.ask("client", "/healthz"), "ok\n")
    }
  })
})
