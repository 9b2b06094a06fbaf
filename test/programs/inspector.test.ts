/** The inspector in a real browser, on the admin port of a running client. `SCREENSHOTS=1` writes docs/inspector anew. */
import { readFileSync } from "node:fs"
import { createServer, get, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { type Browser, chromium, type Page } from "playwright-core"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { HANG_MS } from "../support/Hang.ts"
import { freePort } from "../support/Ports.ts"
import { childOf } from "./support/Children.ts"
import { resource, World } from "./support/Programs.ts"

const CHROMIUM = "/usr/bin/chromium"
const SHOTS = new URL("../../docs/inspector/", import.meta.url).pathname

describe("the inspector in Chromium", () => {
  let http: Server
  let world: World
  let browser: Browser
  /** What pages complain of; a broken policy above all. */
  const problems: Array<string> = []
  let admin: number
  let port: number

  const open = async (options: Parameters<Browser["newPage"]>[0] = {}): Promise<Page> => {
    const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, ...options })
    page.setDefaultTimeout(HANG_MS)
    page.on("console", (message) => message.type() === "error" && problems.push(message.text()))
    const answer = await page.goto(`http://127.0.0.1:${admin}/`)
    assert.match(answer?.headers()["content-security-policy"] ?? "", /^default-src 'none'; script-src 'self'/)
    await page.getByText("live", { exact: true }).waitFor()
    return page
  }
  const shoot = async (page: Page, name: string) => {
    if (process.env["SCREENSHOTS"] === undefined) return
    await page.waitForTimeout(5000) // some samples for the plot
    await page.screenshot({ path: `${SHOTS}${name}.png`, fullPage: true })
  }
  const statusOf = (path: string, headers: Record<string, string>): Promise<number> =>
    new Promise((resolve, reject) => {
      get({ port: admin, host: "127.0.0.1", path, headers }, (response) => {
        resolve(response.statusCode ?? 0)
        response.destroy()
      }).on("error", reject)
    })

  beforeAll(async () => {
    http = createServer((_, response) => response.end("hello\n"))
    await new Promise<void>((listening) => http.listen(0, "127.0.0.1", listening))
    port = (http.address() as AddressInfo).port
    admin = await freePort()
    world = await World.start({
      resources: [resource("intranet", port)],
      client: { admin: `127.0.0.1:${admin}` }
    })
    browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] })
  })
  afterAll(async () => {
    await browser?.close()
    await world?.stop()
    http?.close()
    http?.closeAllConnections()
  })

  it("shows actors, peers, flows and events live", async () => {
    const page = await open()
    await page.getByText("signaling", { exact: true }).first().waitFor()
    await page.getByText("No peers now.").waitFor()
    const events = page.getByRole("log")
    assert.notInclude(await events.innerText(), "office")
    assert.strictEqual(String((await world.curl(`http://intranet:${port}/`)).out), "hello\n")
    await world.direct()
    await page.getByRole("heading", { name: "office direct" }).waitFor()
    await events.getByText("office: direct").first().waitFor()
    await page.getByRole("img", { name: /Round trip to office, from/ }).waitFor()
    await page.getByRole("list", { name: /^Spans of trace/ }).getByText("flow", { exact: false }).first().waitFor()
    await shoot(page, "demo")
    assert.deepStrictEqual(problems, [])
  })

  it("reaches a trace and the events by keyboard", async () => {
    const page = await open()
    await page.getByRole("list", { name: /^Spans of trace/ }).waitFor()
    const met: Array<string> = []
    for (let step = 0; step < 12; step++) {
      await page.keyboard.press("Tab")
      met.push(await page.evaluate("document.activeElement.getAttribute('role') ?? document.activeElement.tagName"))
    }
    assert.includeMembers(met, ["A", "BUTTON", "log"])
  })

  it("shows another trace when its button is pressed by keyboard", async () => {
    const page = await open()
    await world.curl(`http://intranet:${port}/`)
    const pressed = page.locator("button[aria-pressed=true]")
    const others = page.locator("button[aria-pressed=false]")
    await others.first().waitFor()
    const before = await page.getByRole("list", { name: /^Spans of trace/ }).getAttribute("aria-label")
    await others.first().focus()
    await page.keyboard.press("Enter")
    await page.waitForFunction(
      `document.querySelector("ol.waterfall").getAttribute("aria-label") !== ${JSON.stringify(before)}`
    )
    assert.strictEqual(await pressed.count(), 1)
  })

  it("fits 360 px, light and dark", async () => {
    const page = await open({ viewport: { width: 360, height: 740 }, colorScheme: "dark" })
    await page.getByRole("heading", { name: "office direct" }).waitFor()
    const ground = () => page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert.strictEqual(await page.evaluate("document.documentElement.scrollWidth"), 360)
    const dark = await ground()
    await shoot(page, "narrow-dark")
    await page.emulateMedia({ colorScheme: "light" })
    assert.notStrictEqual(await ground(), dark)
  })

  it("answers no other site, and no other host name", async () => {
    const own = `127.0.0.1:${admin}`
    for (const path of ["/", "/v1/events", "/v1/status"]) {
      assert.strictEqual(await statusOf(path, { host: own }), 200)
      assert.strictEqual(await statusOf(path, { host: `evil.example:${admin}` }), 403)
      assert.strictEqual(await statusOf(path, { host: own, origin: "http://evil.example" }), 403)
      assert.strictEqual(await statusOf(path, { host: own, "sec-fetch-site": "cross-site" }), 403)
    }
    const html = readFileSync(new URL("../../src/inspector/index.html", import.meta.url), "utf8")
    assert.notMatch(html, /https?:|<script>|style=/)
  })

  it("shows a relayed session with its reason", async () => {
    await world.program("client").stop()
    world.configure("client", { admin: `127.0.0.1:${admin}`, path: "relay" })
    await world.run("client")
    const page = await open()
    await world.curl(`http://intranet:${port}/`)
    await page.getByRole("heading", { name: "office relay-udp" }).waitFor()
    await page.getByText("relay only", { exact: true }).waitFor()
    await shoot(page, "relayed")
  })

  it("shows a thread that died, from its restart on", async () => {
    await world.program("client").stop()
    world.configure("client", { admin: `127.0.0.1:${admin}`, webrtc: "auto" })
    await world.run("client")
    const page = await open()
    const thread = page.getByRole("listitem").filter({ hasText: /^webRtc/ }).first()
    await thread.getByText("0 restarts").first().waitFor()
    await world.curl(`http://intranet:${port}/`)
    process.kill(childOf(world.program("client").pid, "thread.worker"), "SIGKILL")
    await thread.getByText("1 restart").first().waitFor()
    await page.getByRole("log").getByText("thread webRtc: restarting").first().waitFor()
    await shoot(page, "restarting")
  })
})
