// What one relay thread forwards, on loopback: node bench/relay-forward.mjs [runs=5] [seconds=3] [bytes=1448]
// The relay has a process of its own, whose CPU is counted; both nodes share another, and keep a window of frames in flight.
// Prints one JSON object: for each mode, the medians and all runs.
import { build } from "esbuild"
import { fork } from "node:child_process"
import { mkdirSync } from "node:fs"
import { cpus } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"

const HERE = dirname(fileURLToPath(import.meta.url))
// Beside node_modules, so that the bundle finds its packages; Node 20 cannot load TypeScript itself.
const BUNDLE = join(HERE, "../node_modules/.cache/sallyport-bench/relay-forward.mjs")
const WINDOW_BYTES = 1024 * 1024 // in flight, well below the socket buffers
const TRAIN = 40

const load = () => import(pathToFileURL(BUNDLE).href)
const role = process.env["RELAY_FORWARD_ROLE"]
const offload = process.env["SALLYPORT_UDP_OFFLOAD"] !== "0"

if (role === "relay") await relay()
else if (role === "nodes") await nodes()
else await main()

/** Counts from "start" to "stop". */
async function relay() {
  const { Relay } = await load()
  const relay = await Relay.start({
    verify: { authority: () => true, node: () => true }, // the nodes' authority is another process's; binding is not measured
    limits: { bytesPerSecond: 1e12, burstBytes: 1e12 }
  }, offload)
  let cpu, at, forwarded
  process.on("message", (message) => {
    const { forwarded: now } = relay.server.stats
    if (message === "start") {
      ;[cpu, at, forwarded] = [process.cpuUsage(), performance.now(), { ...now }]
    } else {
      const { system, user } = process.cpuUsage(cpu)
      const packets = now.packets - forwarded.packets
      const seconds = (performance.now() - at) / 1000
      process.send({
        packets,
        cpuMicrosPerPacket: (system + user) / packets,
        cpuShare: (system + user) / 1e6 / seconds,
        mbitPerSecond: (now.bytes - forwarded.bytes) * 8 / 1e6 / seconds,
        drops: relay.server.stats.drops,
        sendErrors: relay.udp.counters.errors
      })
    }
  })
  process.send(relay.port)
}

async function nodes() {
  const { connect } = await load()
  const { seconds, bytes, port } = JSON.parse(process.env["RELAY_FORWARD_ARGS"])
  const { client, connector, pair } = await connect({ port }, offload)
  const frames = Math.min(TRAIN, Math.floor(60_000 / bytes))
  let inFlight = 0, received = 0, heardAt = 0, lost = 0
  const pump = () => {
    while (inFlight + frames * bytes <= WINDOW_BYTES) {
      client.sendData(pair.clientTag, bytes, frames)
      inFlight += frames * bytes
    }
  }
  connector.onData = (frame) => {
    received++
    inFlight = Math.max(0, inFlight - frame.length)
    if (received % 32 === 0) pump()
  }
  const guard = setInterval(() => { // what was lost never comes: begin anew
    if (heardAt === received) {
      lost += inFlight
      inFlight = 0
      pump()
    }
    heardAt = received
  }, 20)
  pump()
  await new Promise((resolve) => setTimeout(resolve, 500))
  process.send("warm")
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000))
  clearInterval(guard)
  process.send({ received, lostBytes: lost })
  client.close()
  connector.close()
}

async function main() {
  const [runs = 5, seconds = 3, bytes = 1448] = process.argv.slice(2).map(Number)
  mkdirSync(dirname(BUNDLE), { recursive: true })
  await build({
    entryPoints: [join(HERE, "../test/suite/support/RelayWorld.ts")],
    outfile: BUNDLE,
    bundle: true,
    format: "esm",
    platform: "node",
    packages: "external",
    logLevel: "error"
  })
  const results = { "offload": [], "single": [] }
  for (let run = 0; run < runs; run++) {
    for (const mode of Object.keys(results)) results[mode].push(await measure(mode, seconds, bytes)) // interleaved
  }
  const p50 = (mode, key) => results[mode].map((one) => one[key]).sort((a, b) => a - b)[Math.floor(runs / 2)]
  const summary = Object.fromEntries(
    Object.keys(results).map((mode) => [mode, {
      cpuMicrosPerPacket: +p50(mode, "cpuMicrosPerPacket").toFixed(3),
      mbitPerSecond: Math.round(p50(mode, "mbitPerSecond")),
      cpuShare: +p50(mode, "cpuShare").toFixed(2)
    }])
  )
  const machine = { node: process.version, cpus: cpus().length, model: cpus()[0]?.model }
  console.log(JSON.stringify({ bench: "relay-forward", runs, seconds, bytes, machine, p50: summary, results }, null, 2))
}

async function measure(mode, seconds, bytes) {
  const start = (role, args = {}) =>
    fork(fileURLToPath(import.meta.url), {
      env: {
        ...process.env,
        RELAY_FORWARD_ROLE: role,
        RELAY_FORWARD_ARGS: JSON.stringify(args),
        SALLYPORT_UDP_OFFLOAD: mode === "offload" ? "1" : "0"
      }
    })
  const heard = (child) =>
    new Promise((resolve, reject) => {
      child.once("message", resolve)
      child.once("exit", (code) => reject(new Error(`a ${mode} process ended with ${code}`)))
    })
  const relay = start("relay")
  try {
    const port = await heard(relay)
    const peers = start("nodes", { seconds, bytes, port })
    try {
      await heard(peers)
      relay.send("start")
      const { lostBytes } = await heard(peers)
      relay.send("stop")
      return { ...await heard(relay), lostBytes }
    } finally {
      peers.kill()
    }
  } finally {
    relay.kill()
  }
}
