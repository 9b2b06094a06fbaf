// What one relayed flow moves by each way to the relay: UDP, HTTP/3, and TCP (WebSocket), in one run. Root, Linux; build first.
//     node bench/relay-legs.mjs [--rounds 3] [--seconds 5] [--loss 1]   prints JSON, Mbit/s, ms, and processor seconds for a gigabyte
// In the NAT lab of the tests, unshaped, each role in a process of its own; the client's network lets through what the way needs, and
// drops --loss per cent of all packets. `echo`: round trips of a second flow beside the first, whose bytes those behind a lost one hold up.
import { readdirSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { output, p50, surroundings, until, withProcesses } from "./support/processes.mjs"
import { startSallyport } from "./support/sallyport.mjs"
import { measure, startTraffic } from "./support/traffic.mjs"
import { RELAY_IP } from "./support/vpns.mjs"

const NATLAB = fileURLToPath(new URL("../test/natlab/lab/natlab.sh", import.meta.url))
const WAYS = { "relay-udp": "symmetric", "relay-h3": "web443", "relay-tcp": "tcp443" }
/** From the moment in which UDP is dropped until a link is in its place, in quarters of a second. */
const MOVE_TRIES = 240

process.env.PATH += ":/usr/sbin:/sbin"
const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "5" },
    loss: { type: "string", default: "0" }
  }
})
const seconds = Number(values.seconds)
const LAB = `l${process.pid.toString(36)}`
const net = (...args) => output([NATLAB, [LAB, ...args]])
const on = (host) => (command, args) => ["ip", ["netns", "exec", `nl-${LAB}-${host}`, command, ...args]]

const before = surroundings()
const samples = await withProcesses(main)
const of = (kind) => samples.filter((sample) => sample.kind === kind)
console.log(JSON.stringify(
  {
    bench: "relay-legs",
    ...before,
    loadAfter: surroundings().load,
    seconds,
    lossPercent: Number(values.loss),
    p50: Object.fromEntries(
      Object.keys(WAYS).map((kind) => [kind, {
        mbps: p50(of(kind).map(({ mbps }) => mbps)),
        cpuSecondsPerGB: p50(of(kind).map(({ cpuSecondsPerGB }) => cpuSecondsPerGB))
      }])
    ),
    samples
  },
  null,
  2
))

async function main(processes) {
  processes.onEnd(() => net("down"))
  await net("up", "--client-nat", "symmetric", "--connector-nat", "port-restricted")
  const traffic = await startTraffic(processes, on("client"), on("connector"))
  const sallyport = await startSallyport(processes, {
    name: "legs",
    path: "relay",
    places: { relay: on("relay"), connector: on("connector"), client: on("client") },
    port: traffic.server.port,
    relay: { host: RELAY_IP, https: 443, udp: 3478 },
    config: (role) => (role === "relay" ? { http3: true } : {})
  })
  await lose(Number(values.loss))
  const pids = sallyport.pids.flatMap((pid) => [pid, ...childrenOf(pid)])
  const all = []
  let now = "symmetric"
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const [kind, nat] of Object.entries(WAYS)) {
      if (now !== nat) await net("nat", "client", nat)
      now = nat
      // A session without flows has no path to tell of; one that was cut off may take a while to be there again.
      for (let tries = 20; tries > 0; tries--) {
        const tried = measure(traffic, { flows: 1, pids: [], seconds: 1, target: sallyport.target, up: false })
        if (await tried.then(() => true, () => false)) break
      }
      await until(() => sallyport.path(), kind, "the path", MOVE_TRIES)
      const moved = await measure(traffic, { flows: 1, pids, seconds, target: sallyport.target, up: false })
      await until(() => sallyport.path(), kind, "the path, afterwards", 1)
      all.push({ kind, ...moved })
    }
  }
  return all
}

/** Both ways, on the router between the sites. */
async function lose(percent) {
  if (percent === 0) return
  const rule = `numgen random mod 1000 < ${Math.round(percent * 10)} drop`
  const [command, args] = on("inet")("nft", [
    `add table inet loss; add chain inet loss forward { type filter hook forward priority -20; }; ` +
    `add rule inet loss forward iifname "w1" ${rule}; add rule inet loss forward oifname "w1" ${rule}`
  ])
  await output([command, args])
}

/** HTTP/3 at the relay runs in a process of its own. */
function childrenOf(pid) {
  return readdirSync(`/proc/${pid}/task`).flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").trim().split(" ").filter(Boolean).map(Number)
  )
}
