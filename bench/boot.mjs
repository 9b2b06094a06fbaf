// How long each role takes from its start to its ready line, and what it holds in memory (RSS): idle for ten seconds, and after a
// session that moved 100 MB. Everything on loopback; each run starts all anew. Prints JSON.
//     node bench/boot.mjs [--runs 3] [--idle 10] [--megabytes 100]
import { parseArgs } from "node:util"
import { here, p50, rssMiB, sleep, surroundings, withProcesses } from "./support/processes.mjs"
import { freePort, startSallyport } from "./support/sallyport.mjs"
import { startTraffic, transfer } from "./support/traffic.mjs"

const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "3" },
    /** Seconds without work before memory is read. */
    idle: { type: "string", default: "10" },
    megabytes: { type: "string", default: "100" }
  }
})
const runs = Number(values.runs)
const idleMs = Number(values.idle) * 1000
const bytes = Number(values.megabytes) * 1e6
const before = surroundings()
const samples = []
for (let run = 0; run < runs; run++) samples.push(await withProcesses(sample))

const roles = Object.keys(samples[0].readyMs)
const medians = Object.fromEntries(
  Object.keys(samples[0]).map((figure) => [
    figure,
    Object.fromEntries(roles.map((role) => [role, p50(samples.map((one) => one[figure][role]))]))
  ])
)
console.log(
  JSON.stringify({ bench: "boot", ...before, runs, idleMs, bytes, p50: medians, samples }, null, 2)
)

async function sample(processes) {
  const traffic = await startTraffic(processes, here, here)
  const sallyport = await startSallyport(processes, {
    name: "boot",
    path: "auto",
    port: traffic.server.port,
    relay: { host: "127.0.0.1", https: await freePort(), udp: await freePort() }
  })
  const each = (figure) => Object.fromEntries(Object.entries(sallyport.roles).map(([role, one]) => [role, figure(one)]))
  await sleep(idleMs)
  const idleMiB = each(({ pid }) => rssMiB(pid))
  await transfer(traffic, sallyport.target, bytes)
  await sleep(idleMs)
  return { readyMs: each(({ readyMs }) => readyMs), idleMiB, afterTransferMiB: each(({ pid }) => rssMiB(pid)) }
}
