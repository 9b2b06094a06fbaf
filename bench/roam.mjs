// One long download while its networks change: how long it stands still, and whether every byte is right. Root, Linux; build first.
//     node bench/roam.mjs [--runs 20] [--kinds roam,rebind,...] [--beside wireguardGo,nebula] [--rate 1000000] [--logs FILE]
//     node bench/roam.mjs --mix 1000 [--seed 1]      all in one flow, kinds in random order
// Prints JSON. Everything runs in the NAT lab of the tests (port-restricted NATs, unshaped), each role in a process of its own. A stall
// is the longest time without a byte at the application, from the moment when the change begins; where a link is pulled, from when
// it is back. `--beside`: a flow of each of those suffers the same changes at the same time, by its own tunnel.
import { appendFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { comes, Flow, server, summary } from "./support/numbers.mjs"
import { output, sleep, surroundings, until, withProcesses } from "./support/processes.mjs"
import { freePort, RESOURCE, startSallyport } from "./support/sallyport.mjs"
import { RELAY_IP, startNebula, startWireguard } from "./support/vpns.mjs"

const NATLAB = fileURLToPath(new URL("../test/natlab/lab/natlab.sh", import.meta.url))
/** A link that was pulled is back after this long. */
const PULLED_MS = 3_000
/** After a change the flow is watched for at least this long. */
const WATCH_MS = 1_500
/** A session that is not on a direct path by then is told as such, and the next change is made. A path that fell is held for up to 30 s. */
const SETTLE_MS = 35_000
/** Of a change that each flow has left behind, before the next one. */
const REST_MS = 500

process.env.PATH += ":/usr/sbin:/sbin"
const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "20" },
    kinds: { type: "string" },
    mix: { type: "string" },
    seed: { type: "string", default: "1" },
    beside: { type: "string", default: "" },
    rate: { type: "string", default: "1000000" },
    logs: { type: "string" }
  }
})
const note = (line) => {
  if (values.logs !== undefined) appendFileSync(values.logs, `${line}\n`)
}

const LAB = `b${process.pid.toString(36)}`
const net = (...args) => output([NATLAB, [LAB, ...args]])
const on = (host) => (command, args) => ["ip", ["netns", "exec", `nl-${LAB}-${host}`, command, ...args]]

/** Where each host is. Either goes to the LAN that nobody lives in and back; both at once: the connector to the client's, too. */
const site = { client: "client", connector: "connector" }
const AWAY = { client: "client2", connector: "client2" }
const move = async (host, to) => {
  site[host] = to
  await net("roam", host, to)
}
const roam = (host, away = AWAY[host]) => move(host, site[host] === host ? away : host)
let address = 10

/** Each changes something. What it resolves to is the time from which the stall counts, unless that is when it began. */
const KINDS = {
  roam: () => roam("client"),
  readdr: () => net("readdr", "client", String(address = address === 11 ? 12 : 11)),
  connectorRoam: () => roam("connector"),
  bothRoam: () => Promise.all([roam("client"), roam("connector", "client")]),
  rebind: () => net("rebind", site.client),
  newWan: () => net("rebind", site.client, "newip"),
  pulled: async () => {
    await net("link", "client", "down")
    await sleep(PULLED_MS)
    await net("link", "client", "up")
    return performance.now()
  },
  interfaceOff: async () => {
    await net("link", "client", "off")
    await sleep(PULLED_MS)
    const now = performance.now()
    await net("link", "client", "on")
    return now
  },
  pathDeath: () => net("blackhole", "sites", "on")
}
/** What puts the network back for the next turn. */
const MEND = { pathDeath: () => net("blackhole", "sites", "off") }
/** Of a mix: the others take seconds each, and are the same to a flow as losing a path. */
const MIXED = ["roam", "readdr", "connectorRoam", "bothRoam", "rebind", "newWan"]

/** Where both started, so that one kind does not leave them on one LAN for the next. */
const goHome = async () => {
  await net("readdr", "client", String(address = 10))
  await move("client", "client")
  await move("connector", "connector")
  await sleep(WATCH_MS)
}

/** What moves packets, and one flow through it. */
class Contender {
  resets = 0
  wrongWords = 0
  /** By kind, milliseconds. */
  stalls = {}
  constructor(name, begin) {
    this.name = name
    this.begin = begin
    this.flow = begin()
  }
  /** After a change: its stall, or a reset. One that does not move again in time is begun anew, and counts as a reset. */
  async settle(kind, since) {
    const back = await comes(() => this.flow.ended || this.flow.isMoving(), SETTLE_MS)
    const stall = this.flow.stall(since)
    this.wrongWords += this.flow.wrong
    this.flow.wrong = 0
    if (back && !this.flow.ended) {
      this.stalls[kind] = [...(this.stalls[kind] ?? []), Math.round(stall)]
      return note(`--- ${this.name} ${kind} ${Math.round(stall)}`)
    }
    this.resets++
    note(`--- ${this.name} ${kind} reset`)
    this.flow.child.kill("SIGTERM")
    this.flow = this.begin()
  }
  takeResults() {
    const { resets, stalls, wrongWords } = this
    this.resets = 0
    this.wrongWords = 0
    this.stalls = {}
    const kinds = Object.entries(stalls).map(([kind, list]) => [kind, { ...summary(list), all: list }])
    return { resets, wrongWords, ...Object.fromEntries(kinds) }
  }
}

/** xorshift32: the same order for the same seed. */
const random = (seed) => {
  let state = Math.imul(seed, 0x9e3779b1) | 1
  return (below) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}

async function main(processes) {
  processes.onEnd(() => net("down"))
  await net("up")
  await net("readdr", "connector", "20") // both may come to be on one LAN, where two hosts cannot share an address
  const port = await freePort()
  const numbers = processes.start(on("connector"), process.execPath, server("0.0.0.0", port))
  await new Promise((resolve) => numbers.stdout.once("data", resolve))
  let path = null
  const sallyport = await startSallyport(processes, {
    name: "sallyport",
    logLevel: values.logs === undefined ? "info" : "debug",
    onLine: (role, line) => {
      note(`${role} ${line}`)
      const changed = role === "client" ? /path changed.*"path":"([^"]+)"/.exec(line) : null
      if (changed !== null) path = changed[1]
    },
    path: "auto",
    places: { relay: on("relay"), connector: on("connector"), client: on("client") },
    port,
    relay: { host: RELAY_IP, https: 443, udp: 3478 }
  })
  const flowTo = (target) => () =>
    new Flow((args) => processes.start(on("client"), "curl", args), { port, rate: values.rate, ...target })
  const isDirect = () => path !== null && path !== "relay"

  const vpns = {
    wireguardGo: () => startWireguard(processes, { lab: LAB, on }),
    nebula: () => startNebula(processes, { on, relayed: false })
  }
  const contenders = [new Contender("sallyport", flowTo({ host: RESOURCE, socks: sallyport.target.socks }))]
  for (const name of values.beside.split(",").filter((name) => name !== "")) {
    const { host } = await vpns[name]()
    await until(
      async () => {
        const [command, args] = on("client")("curl", ["--silent", "--max-time", "2", `http://${host}:${port}/`])
        return (await output([command, args]).catch(() => "")).startsWith("hello")
      },
      true,
      `${name} reaches the server`
    )
    contenders.push(new Contender(name, flowTo({ host })))
  }

  let notDirectAfterwards = 0
  const turn = async (kind) => {
    for (const { flow } of contenders) flow.forget()
    note(`--- ${kind} ${new Date().toISOString()}`)
    const began = performance.now()
    const since = await KINDS[kind]()
    const from = typeof since === "number" ? since : began
    await sleep(WATCH_MS)
    await Promise.all(contenders.map((contender) => contender.settle(kind, from)))
    await MEND[kind]?.()
    if (!(await comes(isDirect, SETTLE_MS))) notDirectAfterwards++
    await comes(() => contenders.every(({ flow }) => flow.isMoving()), SETTLE_MS)
    await sleep(REST_MS)
  }
  const ready = async () => {
    if (!(await comes(() => isDirect() && contenders.every(({ flow }) => flow.isMoving()), SETTLE_MS))) {
      process.stderr.write("begins without a direct path, or without bytes\n")
    }
    await sleep(1_000)
  }
  const results = () => {
    const list = contenders.map((contender) => [contender.name, contender.takeResults()])
    return { ...Object.fromEntries(list), notDirectAfterwards }
  }

  await ready()
  if (values.mix !== undefined) {
    const pick = random(Number(values.seed))
    for (let i = 0; i < Number(values.mix); i++) await turn(MIXED[pick(MIXED.length)])
    return results()
  }
  const all = {}
  for (const kind of values.kinds?.split(",") ?? Object.keys(KINDS)) {
    notDirectAfterwards = 0
    for (let i = 0; i < Number(values.runs); i++) await turn(kind)
    all[kind] = results()
    process.stderr.write(`${kind}: ${JSON.stringify(all[kind])}\n`)
    await goHome()
    await ready()
  }
  return all
}

const before = surroundings()
const results = await withProcesses(main)
console.log(
  JSON.stringify({ bench: "roam", ...before, loadAfter: surroundings().load, unit: "ms of stall", results }, null, 2)
)
