// What telemetry costs: sallyport without traces, with one flow in a hundred traced, and with all, sides taking turns on loopback.
//     node bench/telemetry.mjs [--seconds 3] [--rounds 5] [--flows 300]        prints JSON
// Mbit/s and processor seconds for each GB of one bulk flow; ms from a connection at the SOCKS5 listener to the resource's first byte,
// one flow after the other; processor time of all three roles for each of those flows; and how long a scrape of /metrics takes.
import { once } from "node:events"
import { createServer, get } from "node:http"
import net from "node:net"
import { parseArgs } from "node:util"
import { cpuSeconds, here, p50, rounded, surroundings, until, withProcesses } from "./support/processes.mjs"
import { freePort, RESOURCE, startSallyport } from "./support/sallyport.mjs"
import { measure, reaches, startTraffic } from "./support/traffic.mjs"

const SAMPLES = { off: null, sampled: 0.01, full: 1 }
const SCRAPES = 50

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "3" },
    rounds: { type: "string", default: "5" },
    flows: { type: "string", default: "300" }
  }
})

/** Takes what is exported, and counts it. */
const collector = async (processes) => {
  let bytes = 0
  const server = createServer((request, response) => {
    request.on("data", (part) => (bytes += part.length)).on("end", () => response.end("{}"))
  }).listen(0, "127.0.0.1")
  await once(server, "listening")
  processes.onEnd(() => void server.close())
  return { url: `http://127.0.0.1:${server.address().port}`, exported: () => bytes }
}

/** Says one byte to whoever connects. */
const greeter = async (processes) => {
  const server = net.createServer((socket) => socket.on("error", () => {}).end("!")).listen(0, "127.0.0.1")
  await once(server, "listening")
  processes.onEnd(() => void server.close())
  return server.address().port
}

/** One flow through SOCKS5 (RFC 1928) to its end: ms until its first byte. */
const flow = (socks, port) =>
  new Promise((resolve, reject) => {
    const since = performance.now()
    const socket = net.connect(socks, "127.0.0.1")
    const name = Buffer.from(RESOURCE)
    socket.write(Buffer.from([5, 1, 0, 5, 1, 0, 3, name.length, ...name, port >> 8, port & 255]))
    let ms = null
    let text = ""
    socket.on("data", (part) => {
      text += part.toString("latin1")
      if (ms === null && text.endsWith("!")) ms = performance.now() - since
    })
    socket.once("error", reject)
    socket.once("close", () => ms === null ? reject(new Error("a flow brought nothing")) : resolve(ms))
  })

const scrape = (admin) =>
  new Promise((resolve, reject) => {
    const since = performance.now()
    get({ host: "127.0.0.1", port: admin, path: "/metrics" }, (response) => {
      response.resume().once("end", () => resolve(performance.now() - since))
    }).once("error", reject)
  })

const cpuOf = (pids) => pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0)

async function main(processes) {
  const traffic = await startTraffic(processes, here, here)
  const { exported, url } = await collector(processes)
  const small = await greeter(processes)
  const sides = {}
  for (const [name, sample] of Object.entries(SAMPLES)) {
    const admin = await freePort()
    const started = await startSallyport(processes, {
      name,
      config: (role) => ({
        ...(sample === null ? {} : { telemetry: { otlp: url, sample } }),
        ...(role === "client" ? { admin: `127.0.0.1:${admin}` } : {})
      }),
      path: "auto",
      ports: [small],
      port: traffic.server.port,
      relay: { host: "127.0.0.1", https: await freePort(), udp: await freePort() }
    })
    await until(() => reaches(traffic, started.target), true, `${name} reaches the server`)
    await until(started.path, "direct", name)
    sides[name] = { ...started, admin, bulk: [], opens: [], openCpuMs: [], scrapes: [] }
  }
  const flows = Number(values.flows)
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const side of Object.values(sides)) {
      const { admin, bulk, openCpuMs, opens, pids, scrapes, target } = side
      for (const up of [true, false]) {
        bulk.push(await measure(traffic, { flows: 1, pids, seconds: Number(values.seconds), target, up }))
      }
      const before = cpuOf(pids)
      for (let i = 0; i < flows; i++) opens.push(await flow(target.socks, small))
      openCpuMs.push((cpuOf(pids) - before) * 1000 / flows)
      for (let i = 0; i < SCRAPES; i++) scrapes.push(await scrape(admin))
    }
  }
  const precise = (list) => {
    const sorted = list.toSorted((a, b) => a - b)
    return { n: list.length, p50: rounded(p50(list)), p99: rounded(sorted[Math.floor(0.99 * (list.length - 1))]) }
  }
  const results = Object.entries(sides).map(([name, { bulk, openCpuMs, opens, scrapes }]) => [name, {
    mbps: p50(bulk.map(({ mbps }) => mbps)),
    cpuSecondsPerGB: p50(bulk.map(({ cpuSecondsPerGB }) => cpuSecondsPerGB)),
    firstByteMs: precise(opens),
    cpuMsPerFlow: precise(openCpuMs),
    scrapeMs: precise(scrapes)
  }])
  return { ...Object.fromEntries(results), exportedBytes: exported() }
}

const before = surroundings()
const results = await withProcesses(main)
console.log(
  JSON.stringify({ bench: "telemetry", ...before, loadAfter: surroundings().load, ...values, results }, null, 2)
)
