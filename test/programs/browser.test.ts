/** `sallyport/browser` in a real browser, at a relay whose certificate an authority of this test's own has issued. */
import { Either, Redacted } from "effect"
import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type BrowserContext, chromium, type Page } from "playwright-core"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import * as EnrolmentToken from "../../src/protocol/trust/EnrolmentToken.ts"
import { certify, CHROMIUM, trust } from "./support/Chromium.ts"
import { resource, ROOT, World } from "./support/Programs.ts"

/** More than one message of the link holds. */
const MANY = 1500

/**
 * Runs in a page. Its WebSockets never connect, so that WebTransport wins the race on a machine
 * that is too busy to answer within WebTransport's head start.
 */
const NO_WEBSOCKET = `globalThis.WebSocket = class extends EventTarget {
  readyState = 0
  close() {}
  send() {}
}`

describe.each([
  { carrier: "websocket", http3: false },
  { carrier: "webtransport", http3: true }
])("sallyport/browser in Chromium, by $carrier", ({ carrier, http3 }) => {
  const dir = mkdtempSync(join(tmpdir(), "sallyport-browser-"))
  let pages: Server
  let world: World
  let browser: BrowserContext
  /** Trusts the public authorities alone. */
  let strict: BrowserContext
  let port: number

  const launch = (name: string, ...args: ReadonlyArray<string>) =>
    chromium.launchPersistentContext(join(dir, name), {
      executablePath: CHROMIUM,
      args: ["--no-sandbox", ...args]
    })
  /** A page that has the module as `sallyport`. Each host is an origin, with a memory of its own. */
  const open = async (host = "127.0.0.1", context = browser): Promise<Page> => {
    const page = await context.newPage()
    if (http3) await page.addInitScript(NO_WEBSOCKET)
    await page.goto(`http://${host}:${port}/`)
    await page.evaluate("import('/index.js').then((module) => { globalThis.sallyport = module })")
    return page
  }
  /** `connect(token)` in the page, which keeps the connection as `connection`; the failure, if it is one. */
  const connect = (page: Page, token?: string) =>
    page.evaluate<Readonly<Record<string, string>>>(
      `sallyport.connect(${JSON.stringify(token)}).then((made) => {
        globalThis.connection = made
        const { carrier, name, nodeKey, relay } = made
        return { carrier, name, nodeKey, relay }
      }, ({ _tag, code, message, reason }) => ({ _tag, code, message, reason }))`
    )

  beforeAll(async () => {
    const { files, spki } = await certify(dir, "office-ca")
    pages = createServer((request, response) => {
      const script = request.url === "/index.js"
      response.writeHead(200, {
        "content-type": script ? "text/javascript" : "text/html",
        "content-security-policy": "default-src 'none'; script-src 'self'; connect-src wss: https:"
      })
      response.end(script ? readFileSync(join(ROOT, "dist/browser/index.js")) : "<!doctype html><title>page</title>")
    })
    await once(pages.listen(0, "127.0.0.1"), "listening")
    port = (pages.address() as AddressInfo).port
    const many = Array.from({ length: MANY }, (_, at) => resource(`printer-${at}`, 631))
    world = await World.start({
      relayOnly: true,
      tls: files,
      http3,
      resources: [resource("intranet", 80, 443), resource("payroll", 443), ...many],
      access: [
        { clients: ["tab"], resources: ["intranet"] },
        { clients: ["many"], resources: ["*"] }
      ]
    })
    const trusting = launch("trusting", ...trust(spki))
    ;[browser, strict] = await Promise.all([trusting, launch("strict")])
  })
  afterAll(async () => {
    await browser?.close()
    await strict?.close()
    await world?.stop()
    pages?.close()
    pages?.closeAllConnections()
    rmSync(dir, { recursive: true, force: true })
  })

  it("enrols once, sees its resources, and keeps its key", async () => {
    const page = await open()
    assert.include(await connect(page), { _tag: "ConnectFailed", reason: "not_enrolled" })
    const token = await world.token("client", "tab")
    const made = await connect(page, token)
    assert.deepInclude(made, { carrier, name: "tab", relay: `127.0.0.1:${world.ports.https}` })
    const resources = [{
      name: "intranet",
      address: "127.0.0.1",
      tcp: [{ from: 80, to: 80 }, { from: 443, to: 443 }],
      udp: []
    }]
    assert.deepStrictEqual(await page.evaluate("connection.resources()"), resources)
    assert.include(String((await world.admin("node", "list")).out), "tab")

    const { kept, raw } = await page.evaluate<{ kept: string; raw: string }>(`new Promise((resolve) => {
      indexedDB.open("sallyport").onsuccess = ({ target }) => {
        target.result.transaction("identities").objectStore("identities").getAll().onsuccess = async ({ target }) => {
          const [{ keys, ...kept }] = target.result
          const raw = await crypto.subtle.exportKey("pkcs8", keys.privateKey).then(() => "out", ({ name }) => name)
          resolve({ kept: JSON.stringify(kept), raw })
        }
      }
    })`)
    assert.strictEqual(raw, "InvalidAccessError")
    assert.notInclude(kept, Redacted.value(Either.getOrThrow(EnrolmentToken.parse(token)).secret))
    assert.include(kept, "127.0.0.1")

    await page.reload()
    await page.evaluate("import('/index.js').then((module) => { globalThis.sallyport = module })")
    assert.deepStrictEqual(await connect(page), made)
    assert.deepStrictEqual(await connect(page, token), made)
    await page.close()
  })

  it("is notified of a newer page and of its removal", async () => {
    const [first, second] = [await open(), await open()]
    await connect(first)
    await connect(second)
    assert.match(String(await first.evaluate("connection.closed")), /replaced by a newer link/)
    const removed = second.evaluate("connection.closed")
    assert.strictEqual((await world.admin("node", "remove", "tab")).code, 0)
    assert.match(String(await removed), /removed/)
    assert.include(await connect(second), { reason: "refused", code: "unknown_node" })
    await Promise.all([first.close(), second.close()])
  })

  it("lists 1,500 resources, and cannot use a spent token again", async () => {
    const [page, other] = [await open("localhost"), await open("pages.localhost")]
    const token = await world.token("client", "many")
    assert.include(await connect(page, token), { name: "many" })
    assert.strictEqual(await page.evaluate("connection.resources().then(({ length }) => length)"), MANY + 2)
    assert.include(await connect(other, token), { reason: "refused", code: "TokenUsed" })
    await Promise.all([page.close(), other.close()])
  })

  it("cannot be a connector, and trusts no untrusted certificate", async () => {
    const page = await open("nodes.localhost")
    const asked = await connect(page, await world.token("connector", "office"))
    assert.include(asked, { reason: "refused", code: "TokenForOther" })
    const token = await world.token("client", "phone")
    const pinned = EnrolmentToken.encode({
      ...Either.getOrThrow(EnrolmentToken.parse(token)),
      tls: { _tag: "Pin", key: Either.getOrThrow(EnrolmentToken.parse(token)).authorityKey }
    })
    assert.include(await connect(page, pinned), { reason: "bad_token", code: "needs_ca" })
    assert.include(await connect(page, token.slice(0, -9)), { reason: "bad_token", code: "truncated" })
    const apart = await open("127.0.0.1", strict)
    assert.include(await connect(apart, token), { reason: "unreachable" })
    await Promise.all([page.close(), apart.close()])
  })
})
