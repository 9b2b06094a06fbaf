// What one flow moves by WebRTC, beside the same flow through the relay and direct, in one run. Root, Linux; build first.
//     node bench/webrtc.mjs [--rounds 3] [--seconds 5]      prints JSON, Mbit/s and processor seconds for a gigabyte
// In the NAT lab of the tests, unshaped, port-restricted NATs, each role in a process of its own. The path is chosen by what the network
// lets through: own packets between the sites are dropped for the relay and for WebRTC, the relay's for WebRTC.
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { output, p50, surroundings, until, withProcesses } from "./support/processes.mjs"
import { startSallyport } from "./support/sallyport.mjs"
import { measure, startTraffic } from "./support/traffic.mjs"
import { RELAY_IP } from "./support/vpns.mjs"

const NATLAB = fileURLToPath(new URL("../test/natlab/lab/natlab.sh", import.meta.url))
/** Probes are over by then, and ICE has got through. */
const OPEN_SECONDS = 14
/** A path that fell is held for up to 30 s. */
const MOVE_TRIES = 240

process.env.PATH += ":/usr/sbin:/sbin"
const { values } = parseArgs({
  options: { rounds: { type: "string", default: "3" }, seconds: { type: "string", default: "5" } }
})
const seconds = Number(values.seconds)
const LAB = `w${process.pid.toString(36)}`
const net = (...args) => output([NATLAB, [LAB, ...args]])
const on = (host) => (command, args) => ["ip", ["netns", "exec", `nl-${LAB}-${host}`, command, ...args]]

const before = surroundings()
const samples = await withProcesses(main)
const of = (kind) => samples.filter((sample) => sample.kind === kind)
console.log(JSON.stringify(
  {
    bench: "webrtc",
    ...before,
    loadAfter: surroundings().load,
    seconds,
    p50: Object.fromEntries(
      ["relay-udp", "webrtc", "direct"].map((kind) => [kind, p50(of(kind).map(({ mbps }) => mbps))])
    ),
    samples
  },
  null,
  2
))

async function main(processes) {
  processes.onEnd(() => net("down"))
  await net("up", "--client-nat", "port-restricted", "--connector-nat", "port-restricted")
  const traffic = await startTraffic(processes, on("client"), on("connector"))
  let opened = 0
  const sallyport = await startSallyport(processes, {
    name: "webrtc",
    path: "auto",
    logLevel: "info",
    places: { relay: on("relay"), connector: on("connector"), client: on("client") },
    port: traffic.server.port,
    relay: { host: RELAY_IP, https: 443, udp: 3478 },
    config: (role) => (role === "relay" ? {} : { webrtc: "auto" }),
    onLine: (_, line) => {
      if (line.includes("WebRTC connection open")) opened++
    }
  })
  const one = async (kind) => {
    await until(() => sallyport.path(), kind, "the path", MOVE_TRIES)
    const moved = await measure(traffic, {
      flows: 1,
      pids: sallyport.pids,
      seconds,
      target: sallyport.target,
      up: false
    })
    await until(() => sallyport.path(), kind, "the path, afterwards", 1)
    all.push({ kind, ...moved })
  }
  const all = []
  for (let round = 0; round < Number(values.rounds); round++) {
    await net("blackhole", "probes", "on")
    // A session without flows wants no better path.
    await measure(traffic, {
      flows: 1,
      pids: [],
      seconds: opened >= 2 ? 1 : OPEN_SECONDS,
      target: sallyport.target,
      up: false
    })
    if (opened < 2) throw new Error("ICE does not get through")
    await one("relay-udp")
    await net("blackhole", "relay", "on")
    await measure(traffic, { flows: 1, pids: [], seconds: 1, target: sallyport.target, up: false })
    await one("webrtc")
    await net("blackhole", "relay", "off")
    await net("blackhole", "probes", "off")
    await one("direct")
  }
  return all
}
