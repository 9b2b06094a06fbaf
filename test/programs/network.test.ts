/** The view of the whole network, in a real browser on the relay's admin port and by the command line. `SCREENSHOTS=1` writes docs/inspector/network.png. */
import { readFileSync, writeFileSync } from "node:fs"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { type Browser, chromium, type Page } from "playwright-core"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { pageOf } from "../../src/actors/hub/NetworkView.ts"
import { MAX_NODES } from "../../src/actors/hub/SignalingHubRpcs.ts"
import { HANG_MS } from "../support/Hang.ts"
import { freePort } from "../support/Ports.ts"
import { command, resource, World } from "./support/Programs.ts"

const CHROMIUM = "/usr/bin/chromium"
const SHOT = new URL("../../docs/inspector/network.png", import.meta.url).pathname

describe("the network on a relay", () => {
  let http: Server
  let world: World
  let browser: Browser
  const problems: Array<string> = []
  let admin: number
  let port: number

  const open = async (options: Parameters<Browser["newPage"]>[0] = {}): Promise<Page> => {
    const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, ...options })
    page.setDefaultTimeout(HANG_MS)
    page.on("console", (message) => message.type() === "error" && problems.push(message.text()))
    await page.goto(`http://127.0.0.1:${admin}/`)
    return page
  }

  /** A second client, which is never direct; with a flow. */
  const startPhone = async () => {
    const socks5 = `127.0.0.1:${await freePort()}`
    writeFileSync(join(world.dir, "phone.token"), await world.token("client", "phone"))
    const like = JSON.parse(readFileSync(world.file("client"), "utf8")) as object
    const phone = { name: "phone", stateDir: "state/phone", token: { file: "phone.token" }, path: "relay", socks5 }
    const file = join(world.dir, "phone.yaml")
    writeFileSync(file, JSON.stringify({ ...like, ...phone }))
    await world.launch("phone", file).ready()
    await command("curl", ["-sS", "--max-time", "20", "--socks5-hostname", socks5, `http://intranet:${port}/`])
  }

  beforeAll(async () => {
    http = createServer((_, response) => response.end("hello\n"))
    await new Promise<void>((listening) => http.listen(0, "127.0.0.1", listening))
    port = (http.address() as AddressInfo).port
    admin = await freePort()
    world = await World.start({
      resources: [resource("intranet", port)],
      access: [{ clients: ["*"], resources: ["*"] }],
      client: { telemetry: { report: true } }
    })
    await world.program("relay").stop()
    world.configure("relay", { admin: `127.0.0.1:${admin}` })
    await world.run("relay")
    browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] })
  })
  afterAll(async () => {
    await browser?.close()
    await world?.stop()
    http?.close()
    http?.closeAllConnections()
  })

  it("shows nodes, versions and paths, and asks a node's doctor", async () => {
    const page = await open()
    const nodes = page.getByRole("list", { name: "Nodes" })
    await nodes.getByRole("listitem").filter({ hasText: "office" }).getByText("Reports nothing.").waitFor() // it was not asked to
    await page.getByRole("heading", { name: "laptop connected" }).waitFor() // again, after the relay's start
    await world.curl(`http://intranet:${port}/`)
    await world.direct()
    await nodes.getByText("1 peer, 1 flow opened").waitFor()
    await nodes.getByText("direct", { exact: true }).waitFor()
    await nodes.getByText(/client, since .*, version \d.*, Node\.js v/).waitFor()
    await page.getByRole("img", { name: /^Share of direct paths in the last day, from 100 to 100 %/ }).waitFor()
    await startPhone()
    await page.getByText("1 relay only", { exact: true }).waitFor()
    await page.getByRole("img", { name: /^Share of direct paths in the last day, from 50 to 50 %/ }).waitFor()
    await page.getByRole("button", { name: "Ask the doctor of laptop" }).click()
    await nodes.getByRole("status").getByText(/Nothing is wrong|runs late/).waitFor()
    if (process.env["SCREENSHOTS"] !== undefined) {
      await page.waitForTimeout(125_000) // some samples for the plot
      await page.screenshot({ path: SHOT, fullPage: true })
    }
    assert.deepStrictEqual(problems, [])
  })

  it("shows the first nodes, then more, and those searched for", async () => {
    const page = await browser.newPage({ viewport: { width: 1280, height: 900 } })
    page.setDefaultTimeout(HANG_MS)
    const some = Array.from({ length: MAX_NODES + 30 }, (_, index) => ({
      name: `node-${String(index).padStart(3, "0")}`,
      role: "client" as const,
      network: null,
      since: index % 10 === 0 ? null : Date.now(),
      reportedAt: null,
      report: null
    }))
    await page.route("**/v1/network?*", (route) => {
      const { searchParams: query } = new URL(route.request().url())
      const wanted = { find: query.get("find") ?? "", after: "", limit: Number(query.get("limit")) }
      const answer = { at: Date.now(), ...pageOf(some, wanted), paths: {}, relayed: [], samples: [] }
      return route.fulfill({ json: answer })
    })
    await page.goto(`http://127.0.0.1:${admin}/`)
    const nodes = page.getByRole("list", { name: "Nodes" }).getByRole("listitem")
    await page.getByText("24 of 230 shown").waitFor()
    await page.getByText("207 of 230", { exact: true }).waitFor()
    if (process.env["SCREENSHOTS"] !== undefined) await page.screenshot({ path: "/tmp/many.png", fullPage: true })
    await page.getByRole("button", { name: "Show more" }).click()
    await page.getByText("200 of 230 shown").waitFor()
    await page.getByText("Find the others by their names.").waitFor()
    await page.getByRole("searchbox", { name: "Find nodes by name" }).fill("NODE-22")
    await page.getByText("10 of 10 shown").waitFor()
    await nodes.first().getByRole("heading", { name: "node-220 away" }).waitFor()
    assert.strictEqual(await nodes.count(), 10)
    await page.close()
  })

  it("fits 360 px, light and dark", async () => {
    const page = await open({ viewport: { width: 360, height: 740 }, colorScheme: "dark" })
    await page.getByRole("heading", { name: "laptop connected" }).waitFor()
    assert.strictEqual(await page.evaluate("document.documentElement.scrollWidth"), 360)
    const ground = () => page.evaluate("getComputedStyle(document.querySelector('.fleet button')).color")
    const dark = await ground()
    await page.emulateMedia({ colorScheme: "light" })
    assert.notStrictEqual(await ground(), dark)
  })

  it("shows the network, and names nodes that do not consent", async () => {
    const shown = String((await world.admin("network")).out)
    assert.match(shown, /^laptop +client +connected +\d[\d.]+ +v\d[\d.]+ +1 +1 +1 +-$/m)
    assert.match(shown, /^Paths: 1 direct, 1 relay-udp; 50 % direct\.$/m)
    assert.match(shown, /^ {2}1 relayed: the configuration \(path: relay\) allows no direct path$/m)
    assert.match(shown, /^1 connected without telemetry/m)
    const { findings } = JSON.parse(String((await world.admin("doctor", "--json", "--node", "laptop")).out))
    assert.isArray(findings)
    const refused = await world.admin("doctor", "--node", "office")
    assert.strictEqual(refused.code, 1)
    assert.match(refused.err, /office does not report/)
    await world.program("client").stop()
    const away = await world.admin("doctor", "--node", "laptop")
    assert.match(away.err, /laptop is not connected/)
  })
})
