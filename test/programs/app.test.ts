/** The relay's page for people, in a real browser. `SCREENSHOTS=1` writes docs/app anew. */
import { createHash, randomBytes } from "node:crypto"
import { once } from "node:events"
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { createServer, type Server } from "node:http"
import { get } from "node:https"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type BrowserContext, chromium, type Page } from "playwright-core"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import { HANG_MS } from "../support/Hang.ts"
import { freePort } from "../support/Ports.ts"
import { certify, CHROMIUM, trust } from "./support/Chromium.ts"
import { resource, until, World } from "./support/Programs.ts"

const SHOTS = new URL("../../docs/app/", import.meta.url).pathname
const FILE = randomBytes(20 * 1024 * 1024)
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex")

const PICTURE = `<svg xmlns="http://www.w3.org/2000/svg" width="120" height="40">
  <rect width="120" height="40" rx="8" fill="#2459c9"/><text x="16" y="26" fill="#fff" font-family="sans-serif">intranet</text></svg>`
/** With all that must not run or reach out. */
const HOME = `<!doctype html><title>The intranet</title><meta charset="utf-8"><base href="/wiki/">
  <meta http-equiv="refresh" content="0;url=https://elsewhere.example/"><link rel="stylesheet" href="style.css">
  <script>document.title = "ran"</script><img src="/logo.svg" alt="logo" onload="document.title = 'ran'">
  <h1>Good morning</h1><p id="words">Nothing of this is on the internet.</p>
  <ul><li><a href="second">The second page</a></li><li><a href="javascript:document.title='ran'">a script</a></li></ul>
  <iframe src="https://elsewhere.example/"></iframe><img src="https://elsewhere.example/pixel.gif" alt="">`

describe("the relay's page in Chromium", () => {
  const dir = mkdtempSync(join(tmpdir(), "sallyport-app-"))
  /** What pages complain of; a broken policy above all. */
  const problems: Array<string> = []
  let web: Server
  let world: World
  let authority: string
  let browser: BrowserContext
  let page: Page
  let port: number
  let closed: number

  const open = async (): Promise<Page> => {
    const opened = await browser.newPage()
    opened.setDefaultTimeout(HANG_MS)
    opened.on("console", (message) => message.type() === "error" && problems.push(message.text()))
    opened.on("pageerror", ({ message }) => problems.push(message))
    const answer = await opened.goto(`https://127.0.0.1:${world.ports.https}/app`)
    assert.match(answer?.headers()["content-security-policy"] ?? "", /^default-src 'none'; script-src 'self';/)
    return opened
  }
  const ask = async (on: Page, address: string, button: "Open" | "Download") => {
    await on.getByLabel("Address", { exact: true }).fill(address)
    await on.getByRole("button", { name: button, exact: true }).click()
  }
  const shoot = async (on: Page, name: string) => {
    if (process.env["SCREENSHOTS"] === undefined) return
    mkdirSync(SHOTS, { recursive: true })
    await on.waitForTimeout(2500)
    await on.screenshot({ path: `${SHOTS}${name}.png`, fullPage: true })
  }
  /** What the relay answers with, asked by no browser. */
  const statusOf = (path: string) =>
    new Promise<number>((resolve, reject) => {
      get({ host: "127.0.0.1", port: world.ports.https, path, ca: readFileSync(authority) }, (response) => {
        resolve(response.statusCode ?? 0)
        response.resume()
      }).on("error", reject)
    })

  beforeAll(async () => {
    web = createServer((request, response) => {
      const say = (type: string, body: string | Uint8Array) => {
        response.writeHead(200, { "content-type": type, "content-length": Buffer.byteLength(body) })
        response.end(body)
      }
      switch (request.url ?? "") {
        case "/":
          response.writeHead(302, { location: "/wiki/home" })
          return void response.end()
        case "/wiki/home":
          return say("text/html", HOME)
        case "/wiki/style.css":
          return say("text/css", "body { background: rgb(250, 245, 230); font: 16px sans-serif; padding: 16px }")
        case "/logo.svg":
          return say("image/svg+xml", PICTURE)
        case "/wiki/second":
          return say("text/html; charset=iso-8859-1", Buffer.from("<h1>Caf\xe9</h1>", "latin1"))
        case "/files/report%20of%20may.bin":
          return say("application/octet-stream", FILE)
        case "/slow":
          response.writeHead(200, { "content-type": "application/octet-stream", "content-length": 1000 })
          return void response.write("some")
        default:
          return void response.writeHead(404, { "content-type": "application/json" }).end("{\"no\": \"such page\"}")
      }
    })
    await once(web.listen(0, "127.0.0.1"), "listening")
    port = (web.address() as AddressInfo).port
    closed = await freePort()
    const { authority: own, files, spki } = await certify(dir, "office-ca")
    authority = own
    world = await World.start({
      relayOnly: true,
      tls: files,
      http3: true,
      resources: [resource("intranet", port, closed)],
      access: [{ clients: ["tab"], resources: ["intranet"] }]
    })
    await world.enrol("connector", "office", { webrtc: "auto" }, { NODE_EXTRA_CA_CERTS: authority })
    browser = await chromium.launchPersistentContext(join(dir, "browser"), {
      executablePath: CHROMIUM,
      viewport: { width: 1280, height: 860 },
      args: ["--no-sandbox", ...trust(spki)]
    })
    page = await open()
  })
  afterEach(async ({ task }) => {
    if (task.result?.state !== "fail") return
    for (const it of browser.pages()) process.stderr.write(`--- a page showed\n${await it.innerText("body")}\n`)
    process.stderr.write(`--- complaints\n${problems.join("\n")}\n`)
  })
  afterAll(async () => {
    await browser?.close()
    await world?.stop()
    web?.close()
    web?.closeAllConnections()
    rmSync(dir, { recursive: true, force: true })
  })

  it("enrols the browser with a token, or explains why not", async () => {
    const token = page.getByLabel("Enrolment token")
    await token.fill("no token at all")
    await page.getByRole("button", { name: "Connect" }).click()
    await page.getByRole("alert").waitFor()
    const ofConnector = await world.token("connector", "branch")
    await token.fill(ofConnector)
    await page.getByRole("button", { name: "Connect" }).click()
    await page.getByRole("alert").getByText("this token is for the connector branch").waitFor()
    const audit = await world.admin("node", "list")
    assert.notInclude(String(audit.out), "branch")
    await token.fill(await world.token("client", "tab"))
    await page.getByRole("button", { name: "Connect" }).click()
    await page.getByText(`tab at 127.0.0.1:${world.ports.https}, by WebTransport`).waitFor()
    await page.getByText("connected", { exact: true }).waitFor()
  })

  it("shows a resource's page without running any of it", async () => {
    await page.getByRole("button", { name: String(port), exact: true }).click()
    await page.getByRole("button", { name: "Open", exact: true }).click()
    const frame = page.frameLocator("iframe")
    await frame.getByRole("heading", { name: "Good morning" }).waitFor()
    assert.strictEqual(
      await page.getByLabel("Address", { exact: true }).inputValue(),
      `http://intranet:${port}/wiki/home`
    )
    assert.deepStrictEqual(
      await page.evaluate(`((shown) => ({
        ground: getComputedStyle(shown.body).backgroundColor,
        picture: shown.querySelector("img[alt=logo]").naturalWidth,
        links: Array.from(shown.querySelectorAll("a"), (link) => link.getAttribute("href")),
        left: shown.querySelectorAll("script, iframe, meta, base, [onload]").length,
        title: shown.title
      }))(document.querySelector("iframe").contentDocument)`),
      {
        ground: "rgb(250, 245, 230)",
        picture: 120,
        links: [`http://intranet:${port}/wiki/second`, null],
        left: 0,
        title: "The intranet"
      }
    )
    const path = page.getByRole("article", { name: "Path to office" })
    await path.getByText("direct", { exact: true }).waitFor()
    assert.match(await path.innerText(), /RTT\s+[\d.]+ ms/)
    await shoot(page, "reading")
    await frame.getByRole("link", { name: "The second page" }).click()
    await frame.getByRole("heading", { name: "Café" }).waitFor()
  })

  it("downloads a file, and says how far it is", async () => {
    const [download] = await Promise.all([
      page.waitForEvent("download"),
      ask(page, `http://intranet:${port}/files/report%20of%20may.bin`, "Download")
    ])
    assert.strictEqual(download.suggestedFilename(), "report of may.bin")
    assert.strictEqual(sha256(readFileSync(await download.path())), sha256(FILE))
    await page.getByText(/20\.0 MiB in \d+ ms, \d+ Mbit\/s/).waitFor()
    const path = page.getByRole("article", { name: "Path to office" })
    await path.getByText(/^2[01]\.\d MiB$/).waitFor()
    await shoot(page, "download")
    await ask(page, `http://intranet:${port}/slow`, "Download")
    await page.getByText("4 B of 1000 B").waitFor()
    await page.getByRole("button", { name: "Cancel" }).click()
    await page.getByRole("button", { name: "Cancel" }).waitFor({ state: "detached" })
  })

  it("says what it cannot load, and why", async () => {
    await ask(page, `intranet:${port}/nothing`, "Open")
    await page.getByText("404 Not Found").waitFor()
    await page.getByText("{\"no\": \"such page\"}").waitFor()
    const alert = page.getByRole("alert")
    for (
      const [address, words] of [
        [`http://intranet:${closed}/`, /refused/],
        ["http://intranet:1/", /port/],
        ["http://nowhere/", /nowhere/],
        ["https://intranet/", /http:/],
        ["http://", /URL/]
      ] as const
    ) {
      await ask(page, address, "Open")
      await alert.filter({ hasText: words }).waitFor()
    }
  })

  it("runs in one tab at a time, the newest one", async () => {
    const second = await open()
    await second.getByRole("button", { name: "Use it here" }).click()
    await second.getByText("connected", { exact: true }).waitFor()
    await page.getByRole("button", { name: "Use it here" }).waitFor()
    await ask(second, `intranet:${port}/nothing`, "Open")
    await second.getByText("404 Not Found").waitFor()
    await page.getByRole("button", { name: "Use it here" }).click()
    await page.getByText("connected", { exact: true }).waitFor()
    await second.close()
    // A page that goes takes nothing of the connector with it.
    const threads = await world.ask("connector", "/v1/actors") as ReadonlyArray<{ name: string; restarts: number }>
    assert.deepStrictEqual(threads.filter(({ restarts }) => restarts > 0), [])
  })

  it("comes back by itself when the relay was away", async () => {
    await world.programs.get("relay")?.stop()
    await page.getByText("not connected", { exact: true }).waitFor()
    await world.run("relay")
    await page.getByText("connected", { exact: true }).waitFor()
    await until("the connector is back, too", async () => {
      const { nodes } = await world.ask("relay", "/v1/status") as { readonly nodes: ReadonlyArray<{ name: string }> }
      return nodes.find(({ name }) => name === "office") ?? null
    }, HANG_MS)
    await ask(page, `intranet:${port}/nothing`, "Open")
    await page.getByText("404 Not Found").waitFor()
  })

  it("fits 360 px, light and dark, and works by keyboard", async () => {
    await page.setViewportSize({ width: 360, height: 740 })
    await page.emulateMedia({ colorScheme: "dark" })
    await ask(page, `http://intranet:${port}/`, "Open")
    await page.frameLocator("iframe").getByRole("heading", { name: "Good morning" }).waitFor()
    assert.strictEqual(await page.evaluate("document.documentElement.scrollWidth"), 360)
    await shoot(page, "narrow-dark")
    const ground = () => page.evaluate("getComputedStyle(document.body).backgroundColor")
    const dark = await ground()
    await page.emulateMedia({ colorScheme: "light" })
    assert.notStrictEqual(await ground(), dark)
    const met: Array<string> = []
    await page.evaluate("document.activeElement.blur()")
    for (let step = 0; step < 10; step++) {
      await page.keyboard.press("Tab")
      met.push(await page.evaluate("document.activeElement.textContent || document.activeElement.name"))
    }
    assert.includeMembers(met, ["Look again", String(port), "address", "Open", "Download"])
    // What a still is made from, before it is one; and the relay that was away.
    const refused = (text: string) =>
      /base URI|inline event handler|WebSocket|ERR_CONNECTION_REFUSED|Failed to establish a connection/.test(text)
    assert.deepStrictEqual(problems.filter((text) => !refused(text)), [])
  })

  it("is not there where the configuration says so", async () => {
    assert.strictEqual(await statusOf("/app"), 200)
    await world.programs.get("relay")?.stop()
    world.configure("relay", { app: false })
    await world.run("relay")
    for (const path of ["/app", "/app/app.js"]) assert.strictEqual(await statusOf(path), 404)
    assert.strictEqual(await statusOf("/healthz"), 200)
  })
})
