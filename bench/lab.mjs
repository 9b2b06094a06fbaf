// Sallyport beside wireguard-go and nebula, between two NATs and across a relay, in network namespaces: Mbit/s of TCP and
// processor seconds for each GB, by the same traffic program, sides taking turns. Root on Linux. Prints JSON.
//     node bench/lab.mjs [--cases direct,relayed,no-offload] [--seconds 3] [--rounds 3]
// direct      port-restricted NATs, an unshaped lab: sallyport, wireguard-go, nebula
// relayed     sallyport with `path: relay`, nebula by its relay; wireguard-go has no relay
// no-offload  as direct, sallyport without UDP segmentation offload
import { accessSync, constants } from "node:fs"
import { delimiter, join } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { output, p50, rounded, surroundings, until, withProcesses } from "./support/processes.mjs"
import { startSallyport } from "./support/sallyport.mjs"
import { measure, reaches, startTraffic } from "./support/traffic.mjs"
import { PACKAGES, RELAY_IP, startNebula, startWireguard } from "./support/vpns.mjs"

const NATLAB = fileURLToPath(new URL("../test/natlab/lab/natlab.sh", import.meta.url))
const CASES = {
  direct: { sides: ["sallyport", "wireguardGo", "nebula"], path: "direct" },
  relayed: { sides: ["sallyport", "nebula"], path: "relay-udp" },
  "no-offload": { sides: ["sallyport", "wireguardGo", "nebula"], path: "direct", env: { SALLYPORT_UDP_OFFLOAD: "0" } }
}
const LOADS = { up1: { flows: 1, up: true }, down1: { flows: 1, up: false }, down8: { flows: 8, up: false } }
/**
 * Of a byte, what crosses the relay's access link: nothing, or once in and once out. What lies between was taken on more than
 * one path: such a sample counts, since that is what a user gets, and is marked as astray.
 */
const DIRECT_AT_MOST = 0.1
const RELAYED_AT_LEAST = 1.9

process.env.PATH += `${delimiter}/usr/sbin${delimiter}/sbin`
const { values } = parseArgs({
  options: {
    cases: { type: "string", default: Object.keys(CASES).join(",") },
    seconds: { type: "string", default: "3" },
    rounds: { type: "string", default: "3" },
    /** Node's own arguments for sallyport's programs, as `--cpu-prof --cpu-prof-dir=/tmp/prof`. */
    "node-args": { type: "string", default: "" }
  }
})
const seconds = Number(values.seconds)
const rounds = Number(values.rounds)
const chosen = values.cases.split(",")
checkPossible()
const before = surroundings()
const cases = {}
for (const name of chosen) cases[name] = await withProcesses((processes) => compare(processes, name, CASES[name]))
const versions = {
  nebula: await versionOf("nebula", "-version"),
  wireguardGo: await versionOf("wireguard-go", "--version")
}
console.log(
  JSON.stringify({ bench: "lab", ...before, loadAfter: surroundings().load, versions, seconds, rounds, cases }, null, 2)
)

function checkPossible() {
  const fail = (why) => {
    process.stderr.write(`bench/lab: ${why}\n`)
    process.exit(2)
  }
  const unknown = chosen.find((name) => !(name in CASES))
  if (unknown !== undefined) fail(`no case ${unknown}; there are ${Object.keys(CASES).join(", ")}`)
  if (!(seconds > 0) || !(rounds >= 1)) fail("--seconds and --rounds take positive numbers")
  if (process.platform !== "linux" || process.getuid() !== 0) fail("network namespaces need root on Linux")
  const missing = Object.entries(PACKAGES).flatMap(([command, name]) => (isInstalled(command) ? [] : [name]))
  if (missing.length > 0) fail(`install what is compared with: apt-get install ${[...new Set(missing)].join(" ")}`)
}

function isInstalled(command) {
  return process.env.PATH.split(delimiter).some((dir) => {
    try {
      accessSync(join(dir, command), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

async function versionOf(command, flag) {
  return (await output([command, [flag]])).split("\n")[0].replace(/^\D*/, "")
}

async function compare(processes, name, { env, path, sides }) {
  const lab = `b${process.pid.toString(36)}`
  const net = (...args) => output([NATLAB, [lab, ...args]])
  processes.onEnd(() => net("down"))
  await net("up", "--client-nat", "port-restricted", "--connector-nat", "port-restricted")
  const on = (host) => (command, args) => ["ip", ["netns", "exec", `nl-${lab}-${host}`, command, ...args]]
  const traffic = await startTraffic(processes, on("client"), on("connector"))
  const starters = {
    sallyport: () =>
      startSallyport(processes, {
        name: "sallyport",
        env,
        nodeArgs: values["node-args"].split(" ").filter((arg) => arg !== ""),
        path: name === "relayed" ? "relay" : "auto",
        places: { relay: on("relay"), connector: on("connector"), client: on("client") },
        port: traffic.server.port,
        relay: { host: RELAY_IP, https: 443, udp: 3478 }
      }),
    wireguardGo: () => startWireguard(processes, { lab, on }),
    nebula: () => startNebula(processes, { on, relayed: name === "relayed" })
  }
  const contenders = {}
  for (const side of sides) {
    const contender = await starters[side]()
    contenders[side] = { ...contender, target: contender.target ?? { host: contender.host, port: traffic.server.port } }
    await until(() => reaches(traffic, contenders[side].target), true, `${side} reaches the server`)
  }
  await until(contenders.sallyport.path, path, "sallyport's path")
  const meter = async () => Number(await net("relaybytes"))
  const samples = Object.fromEntries(
    Object.keys(LOADS).map((load) => [load, Object.fromEntries(sides.map((side) => [side, []]))])
  )
  for (let round = 0; round < rounds; round++) {
    for (const [load, { flows, up }] of Object.entries(LOADS)) {
      for (const side of sides) {
        const { pids, target } = contenders[side]
        const { meteredPerByte, ...figures } = await measure(traffic, { flows, meter, pids, seconds, target, up })
        const astray = name === "relayed" ? meteredPerByte < RELAYED_AT_LEAST : meteredPerByte > DIRECT_AT_MOST
        samples[load][side].push({ ...figures, relayBytesPerByte: meteredPerByte, ...(astray ? { astray } : {}) })
      }
    }
  }
  return Object.fromEntries(Object.entries(samples).map(([load, all]) => [load, summary(all)]))
}

function summary(all) {
  const medians = Object.fromEntries(
    Object.entries(all).map(([side, list]) => [side, {
      mbps: p50(list.map(({ mbps }) => mbps)),
      cpuSecondsPerGB: p50(list.map(({ cpuSecondsPerGB }) => cpuSecondsPerGB))
    }])
  )
  const { sallyport, ...others } = medians
  const ratios = Object.fromEntries(
    Object.entries(others).map(([side, { mbps }]) => [side, rounded(sallyport.mbps / mbps)])
  )
  return {
    p50: medians,
    sallyportTimes: ratios,
    astray: Object.values(all).flat().filter((one) => one.astray).length,
    samples: all
  }
}
