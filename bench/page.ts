/** A page's download beside a node's; bundled and run by `page.mjs`. All on loopback: what differs is the two protocols' work. */
import { randomBytes } from "node:crypto"
import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo, Server } from "node:net"
import { cpus, loadavg, tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { chromium } from "playwright-core"
import { certify, CHROMIUM } from "../test/programs/support/Chromium.ts"
import { resource, ROOT, World } from "../test/programs/support/Programs.ts"

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "6" }, mib: { type: "string", default: "64" } }
})
const file = randomBytes(Number(values.mib) * 1024 * 1024)
const listen = async (server: Server): Promise<number> => {
  await once(server.listen(0, "127.0.0.1"), "listening")
  return (server.address() as AddressInfo).port
}
const mbits = (ms: number) => Math.round(file.length * 8 / ms / 1000)
const p50 = (of: ReadonlyArray<number>) => of.toSorted((left, right) => left - right)[Math.floor(of.length / 2)]

const dir = mkdtempSync(join(tmpdir(), "sallyport-page-"))
const web = createServer((_, response) => response.end(file))
const pages = createServer((request, response) => {
  const script = request.url === "/index.js"
  response.writeHead(200, { "content-type": script ? "text/javascript" : "text/html" })
  response.end(script ? readFileSync(join(ROOT, "dist/browser/index.js")) : "<!doctype html><title>page</title>")
})
const port = await listen(web)
const { authority, files, spki } = await certify(dir, "bench-ca")
const world = await World.start({
  relayOnly: true,
  tls: files,
  resources: [resource("intranet", port)],
  access: [{ clients: ["*"], resources: ["intranet"] }]
})
const load = loadavg()
const samples: { readonly webrtc: Array<number>; readonly quic: Array<number> } = { webrtc: [], quic: [] }
try {
  const trusting = { NODE_EXTRA_CA_CERTS: authority }
  await world.enrol("connector", "office", { webrtc: "auto" }, trusting)
  await world.enrol("client", "laptop", {}, trusting)
  const browser = await chromium.launchPersistentContext(join(dir, "browser"), {
    executablePath: CHROMIUM,
    args: ["--no-sandbox", `--ignore-certificate-errors-spki-list=${spki}`]
  })
  try {
    const page = await browser.newPage()
    await page.goto(`http://127.0.0.1:${await listen(pages)}/`)
    const url = `http://intranet:${port}/`
    const token = JSON.stringify(await world.token("client", "tab"))
    await page.evaluate(`import("/index.js").then(async ({ connect }) => {
      globalThis.connection = await connect(${token})
      await (await connection.fetch("${url}")).arrayBuffer()
    })`)
    await world.curl(url, "-o", "/dev/null")
    await world.direct()
    for (let round = 0; round < Number(values.rounds); round++) {
      const ms = await page.evaluate<number>(`(async () => {
        const began = performance.now()
        const { byteLength } = await (await connection.fetch("${url}")).arrayBuffer()
        if (byteLength !== ${file.length}) throw new Error("not all of it came")
        return performance.now() - began
      })()`)
      samples.webrtc.push(mbits(ms))
      const ran = await world.curl(url, "-o", "/dev/null", "-w", "%{size_download} %{time_total}")
      const [size, seconds] = String(ran.out).split(" ").map(Number)
      if (size !== file.length || seconds === undefined) throw new Error(`not all of it came: ${ran.err}`)
      samples.quic.push(mbits(seconds * 1000))
    }
  } finally {
    await browser.close()
  }
} finally {
  await world.stop()
  rmSync(dir, { recursive: true, force: true })
  web.close()
  pages.close()
  pages.closeAllConnections()
}
const figures = { webrtc: p50(samples.webrtc), quic: p50(samples.quic) }
process.stdout.write(`${
  JSON.stringify(
    {
      bench: "page",
      node: process.version,
      cores: cpus().length,
      load,
      mib: file.length / 2 ** 20,
      p50: figures,
      samples
    },
    null,
    2
  )
}\n`)
