/** Flows of a page in a real browser: over WebRTC to a connector, and to a resource behind it. */
import { createHash, randomBytes } from "node:crypto"
import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { createServer, type Server } from "node:http"
import net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type BrowserContext, chromium, type Page } from "playwright-core"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { HANG_MS } from "../support/Hang.ts"
import { freePort } from "../support/Ports.ts"
import { parse, sum } from "../unit/support/OpenMetricsParser.ts"
import { childOf } from "./support/Children.ts"
import { certify, CHROMIUM } from "./support/Chromium.ts"
import { resource, ROOT, until, World } from "./support/Programs.ts"

const FILE = randomBytes(20 * 1024 * 1024)
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex")
const SCRIPTS = new Map([["/index.js", "dist/browser/index.js"], ["/page.mjs", "examples/page.mjs"]])
const PAGE = `<!doctype html><title>page</title>
  <script type="importmap">{ "imports": { "sallyport/browser": "/index.js" } }</script>`
/** Open flows are waited for longer than any test lasts. */
const CONNECTOR = { webrtc: "auto", drainTimeout: 3000 } as const
/** In one connection half of the ids are the browser's: these need more than one. */
const MANY = 1_000

const listening = async (server: net.Server): Promise<number> => {
  await once(server.listen(0, "127.0.0.1"), "listening")
  return (server.address() as net.AddressInfo).port
}

describe("flows of a page in Chromium", () => {
  const dir = mkdtempSync(join(tmpdir(), "sallyport-flows-"))
  const servers: Array<net.Server> = []
  let world: World
  let trusted: string
  let browser: BrowserContext
  let page: Page
  let ports: { readonly web: number; readonly echo: number; readonly closed: number }

  /** In the page; `connection` is the connection. */
  const inPage = <A>(script: string) => page.evaluate<A>(`(async () => { ${script} })()`)

  beforeAll(async () => {
    const { authority, files, spki } = await certify(dir, "office-ca")
    const web: Server = createServer((request, response) => {
      if (request.url === "/file") {
        response.end(FILE)
        return
      }
      const parts: Array<Buffer> = []
      request.on("data", (part: Buffer) => parts.push(part))
      request.on("end", () => {
        const { headers, method, url } = request
        const said = JSON.stringify({ method, url, host: headers.host, body: sha256(Buffer.concat(parts)) })
        response.writeHead(request.url === "/missing" ? 404 : 200, { "content-type": "application/json", "x-a": "b" })
        for (const part of said.match(/.{1,20}/g) ?? []) response.write(part) // chunked
        response.end()
      })
    })
    const echo = net.createServer({ allowHalfOpen: true }, (socket) => {
      socket.on("error", () => undefined)
      socket.pipe(socket) // the end as well, after the last byte
    })
    const pages = createServer((request, response) => {
      const script = SCRIPTS.get(request.url ?? "")
      response.writeHead(200, { "content-type": script === undefined ? "text/html" : "text/javascript" })
      response.end(script === undefined ? PAGE : readFileSync(join(ROOT, script)))
    })
    servers.push(web, echo, pages)
    trusted = authority
    ports = { web: await listening(web), echo: await listening(echo), closed: await freePort() }
    const about = resource("intranet", ports.web, ports.echo, ports.closed)
    world = await World.start({
      relayOnly: true,
      tls: files,
      resources: [about, resource("payroll", 443)],
      access: [{ clients: ["tab"], resources: ["intranet"] }]
    })
    await world.enrol("connector", "office", CONNECTOR, { NODE_EXTRA_CA_CERTS: authority })
    browser = await chromium.launchPersistentContext(join(dir, "browser"), {
      executablePath: CHROMIUM,
      args: ["--no-sandbox", `--ignore-certificate-errors-spki-list=${spki}`]
    })
    page = await browser.newPage()
    await page.goto(`http://127.0.0.1:${await listening(pages)}/`)
    const token = await world.token("client", "tab")
    await inPage(`globalThis.sallyport = await import("/index.js")
      globalThis.connection = await sallyport.connect(${JSON.stringify(token)})
      globalThis.hash = async (bytes) => Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)),
        (byte) => byte.toString(16).padStart(2, "0")).join("")`)
  })
  afterAll(async () => {
    await browser?.close()
    await world?.stop()
    for (const server of servers) server.close()
    rmSync(dir, { recursive: true, force: true })
  })

  it("fetches by name, with bodies both ways and 20 MiB", async () => {
    const got = await inPage(`const answer = await connection.fetch("http://intranet:${ports.web}/a?b=c", {
        method: "POST", body: "x".repeat(300000) })
      return { status: answer.status, type: answer.headers.get("x-a"), body: await answer.json() }`)
    const body = sha256(Buffer.from("x".repeat(300_000)))
    const host = `intranet:${ports.web}`
    assert.deepStrictEqual(got, { status: 200, type: "b", body: { method: "POST", url: "/a?b=c", host, body } })
    assert.strictEqual(
      await inPage(`const answer = await connection.fetch("http://intranet:${ports.web}/missing")
      await answer.text()
      return answer.status`),
      404
    )
    const file = await inPage<{ readonly hash: string; readonly ms: number }>(`const began = performance.now()
      const bytes = await (await connection.fetch("http://intranet:${ports.web}/file")).arrayBuffer()
      return { hash: await hash(bytes), ms: performance.now() - began }`)
    process.stderr.write(
      `20 MiB in Chromium by a data channel: ${Math.round(FILE.length * 8 / file.ms / 1000)} Mbit/s\n`
    )
    assert.strictEqual(file.hash, sha256(FILE))
    const [peer] = await inPage<ReadonlyArray<Record<string, unknown>>>("return await connection.peers()")
    assert.include(peer, { connector: "office", flows: 0 })
    assert.include(["host", "prflx", "srflx"], peer?.["remote"])
    const { peers } = await world.status("connector")
    assert.include(peers.find(({ name }) => name === "tab"), { path: "webrtc", flows: 0 })
    const metrics = parse(String(await world.ask("connector", "/metrics")))
    const sent = sum(metrics, "sallyport_resource_bytes_total", { resource: "intranet", direction: "transmit" })
    assert.isAbove(sent, FILE.length)
    assert.isBelow(sent, FILE.length + 10_000)
    assert.strictEqual(sum(metrics, "sallyport_browser_sessions"), 1)
    assert.isAbove(sum(metrics, "sallyport_child_process_memory_bytes", { thread: "webRtc" }), 20 * 1024 * 1024)
  })

  it("reports truthfully what it may not or cannot reach", async () => {
    const codeOf = (host: string, port: number) =>
      inPage<string>(`return await connection.openTcp("${host}", ${port}).then(() => "open", ({ code }) => code)`)
    assert.strictEqual(await codeOf("intranet", ports.closed), "refused")
    assert.strictEqual(await codeOf("intranet", 1), "port_not_listed")
    assert.include(["denied", "name_not_found"], await codeOf("payroll", 443))
    assert.strictEqual(await codeOf("nowhere", 443), "name_not_found")
    const tls = await inPage<string>(
      `return await connection.fetch("https://intranet/").catch(({ message }) => message)`
    )
    assert.match(tls, /http:/)
  })

  it("runs the example of a page", async () => {
    const read = (url: string) => inPage<unknown>(`return (await import("/page.mjs")).read("${url}")`)
    assert.deepInclude(await read(`http://intranet:${ports.web}/missing`), { status: 404, connector: "office" })
    assert.deepInclude(await read(`http://intranet:${ports.closed}/`), { failed: "refused" })
    // The example's link has replaced the one of the other tests.
    await inPage("globalThis.connection = await sallyport.connect()")
  })

  it("half-closes, and does not run ahead of a slow reader", async () => {
    const sent = 32 * 1024 * 1024
    const got = await inPage<{ readonly taken: number; readonly hash: string; readonly wanted: string }>(`
      const { readable, writable } = await connection.openTcp("intranet", ${ports.echo})
      const bytes = new Uint8Array(${sent})
      for (let at = 0; at < bytes.length; at += 65536) crypto.getRandomValues(bytes.subarray(at, at + 65536))
      let taken = 0
      const writing = (async () => {
        const writer = writable.getWriter()
        for (let at = 0; at < bytes.length; at += 16384) {
          await writer.write(bytes.subarray(at, at + 16384))
          taken = at
        }
        await writer.close()
      })()
      await new Promise((resolve) => setTimeout(resolve, 1500)) // nobody reads
      const before = taken
      const back = await new Response(readable).arrayBuffer()
      await writing
      return { taken: before, hash: await hash(back), wanted: await hash(bytes) }`)
    assert.strictEqual(got.hash, got.wanted)
    assert.isBelow(got.taken, sent - 4 * 1024 * 1024)
  })

  it(`runs ${MANY} flows at once, each with its own bytes`, async () => {
    const right = await inPage<number>(`
      const one = async (at) => {
        const { closed, readable, writable } = await connection.openTcp("intranet", ${ports.echo})
        const writer = writable.getWriter()
        await writer.write(new TextEncoder().encode("flow " + at))
        return { at, closed, readable, writer }
      }
      const flows = []
      while (flows.length < ${MANY}) { // a flow has 10 seconds to open, which a busy machine needs for 1000 at once
        flows.push(...await Promise.all(Array.from({ length: 50 }, (_, at) => one(flows.length + at))))
      }
      const ends = await Promise.all(flows.map(async ({ at, closed, readable, writer }) => {
        await writer.close()
        const text = await new Response(readable).text()
        await closed
        return text === "flow " + at
      }))
      return ends.filter((it) => it).length`)
    assert.strictEqual(right, MANY)
    const [peer] = await inPage<ReadonlyArray<Record<string, unknown>>>("return await connection.peers()")
    assert.strictEqual(peer?.["flows"], 0)
  })

  it("says what to set when the connector accepts no browsers", async () => {
    const connector = world.program("connector")
    await connector.stop()
    world.configure("connector", {})
    const plain = world.launch("connector", world.file("connector"), { NODE_EXTRA_CA_CERTS: trusted })
    await plain.ready()
    const asked = await inPage<Readonly<Record<string, string>>>(
      `return await connection.openTcp("intranet", ${ports.echo})
      .then(() => ({ code: "open" }), ({ code, message }) => ({ code, message }))`
    )
    assert.strictEqual(asked["code"], "connector_declined")
    assert.match(String(asked["message"]), /webrtc: auto/)
    await plain.stop()
    world.configure("connector", CONNECTOR)
    await world.launch("connector", world.file("connector"), { NODE_EXTRA_CA_CERTS: trusted }).ready()
  })

  it("recovers when the connector's WebRTC process is killed", async () => {
    await inPage(`globalThis.flow = await connection.openTcp("intranet", ${ports.echo})`)
    process.kill(childOf(world.program("connector").pid, "thread.worker"), "SIGKILL")
    const ms = await inPage<number>(`const began = performance.now()
      for (;;) {
        const status = await connection.fetch("http://intranet:${ports.web}/", { signal: AbortSignal.timeout(3000) })
          .then(({ status }) => status, () => 0)
        if (status === 200) return performance.now() - began
      }`)
    process.stderr.write(`after the connector's WebRTC process was killed, a new flow after ${Math.round(ms)} ms\n`)
    await inPage("await flow.closed") // its own flows are cut
  })

  it("keeps its flow while its connector stops", async () => {
    const echoed = (text: string) =>
      inPage<string>(`await writer.write(new TextEncoder().encode("${text}"))
        const { value } = await reader.read()
        return new TextDecoder().decode(value)`)
    await inPage(`globalThis.flow = await connection.openTcp("intranet", ${ports.echo})
      globalThis.writer = flow.writable.getWriter()
      globalThis.reader = flow.readable.getReader()`)
    assert.strictEqual(await echoed("before"), "before")
    const opened = () =>
      inPage<string>(`return await connection.openTcp("intranet", ${ports.echo})
        .then((flow) => (flow.abort(), "open"), ({ code }) => code)`)
    assert.strictEqual((await world.command("connector", "drain", "--no-wait")).code, 0)
    await until("the page is declined", async () => await opened() === "connector_declined" || null, HANG_MS)
    assert.strictEqual((await world.command("connector", "drain", "--cancel")).code, 0)
    assert.strictEqual(await opened(), "open")
    assert.strictEqual(await echoed("in the session of before"), "in the session of before")
    const flows = async () => (await world.status("connector")).peers.reduce((sum, peer) => sum + peer.flows, 0)
    await until("one flow is open", async () => await flows() === 1 || null, HANG_MS)

    const connector = world.program("connector")
    connector.kill("SIGTERM")
    const waits = () => connector.lines.find((line) => line.includes("for open flows (1)")) ?? null
    await until("the connector waits", waits, HANG_MS)
    assert.strictEqual(await opened(), "connector_declined")
    assert.strictEqual(await echoed("meanwhile"), "meanwhile")
    await inPage("await writer.close()")
    assert.strictEqual((await connector.ended).code, 0)
    await world.launch("connector", world.file("connector"), { NODE_EXTRA_CA_CERTS: trusted }).ready()
  })

  it("loses its flows at once when its node is removed", async () => {
    await inPage(`globalThis.flow = await connection.openTcp("intranet", ${ports.echo})
      globalThis.ended = flow.closed.then(() => performance.now())`)
    assert.strictEqual((await world.admin("node", "remove", "tab")).code, 0)
    const removedAt = await inPage<number>("return performance.now()")
    const ms = await inPage<number>(`return await ended - ${removedAt}`)
    process.stderr.write(`a page's flow ended ${Math.round(ms)} ms after the command that removed its node\n`)
    // The connector has cut it, and did not wait for a page that may not want to.
    const gone = () => world.program("connector").lines.find((line) => line.includes("browser gone")) ?? null
    assert.include(await until("the connector ends the session", gone, HANG_MS), "the node was removed")
    const asked = await inPage<string>(`return await connection.openTcp("intranet", ${ports.echo})
      .then(() => "open", ({ code }) => code)`)
    assert.notStrictEqual(asked, "open")
  })
})
