// One long download while its networks change: how long it stands still, and whether every byte is right. Root, Linux; build first.
//     node bench/roam.mjs [--runs 20] [--kinds roam,rebind,...] [--rate 1000000] [--logs FILE]      prints JSON
// Everything runs in the NAT lab of the tests (port-restricted NATs, unshaped), each role in a process of its own. A stall is the longest
// time without a byte at the application, from the moment when the change begins; where a link is pulled, from when it is back.
import { spawn, spawnSync } from "node:child_process"
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { cpus, loadavg, tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"

const PROGRAM = fileURLToPath(new URL("../bin/sallyport", import.meta.url))
const LAB_DIR = fileURLToPath(new URL("../test/natlab/lab/", import.meta.url))
const LAB = `b${process.pid.toString(36)}`
const RELAY = "203.0.113.10"
const RESOURCE = { host: "10.50.0.10", port: 8080 }
const ENV = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` }
/** A link that was pulled is back after this long. */
const PULLED_MS = 3_000
/** After a change the flow is watched for at least this long. */
const WATCH_MS = 1_500
/** A session that is not on a direct path by then is told as such, and the next change is made. A path that fell is held for up to 30 s. */
const SETTLE_MS = 35_000

const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "20" },
    kinds: { type: "string" },
    rate: { type: "string", default: "1000000" },
    logs: { type: "string" }
  }
})

const net = (...args) => {
  const { status, stderr } = spawnSync(join(LAB_DIR, "natlab.sh"), [LAB, ...args], { env: ENV, encoding: "utf8" })
  if (status !== 0) throw new Error(`natlab ${args.join(" ")}: ${stderr}`)
}
/** The same without standing in the way of what is measured. */
const later = (...args) =>
  new Promise((resolve, reject) => {
    const child = spawn(join(LAB_DIR, "natlab.sh"), [LAB, ...args], { env: ENV, stdio: ["ignore", "ignore", "pipe"] })
    let problem = ""
    child.stderr.on("data", (bytes) => (problem += bytes))
    child.once("close", (code) => code === 0 ? resolve() : reject(new Error(`natlab ${args.join(" ")}: ${problem}`)))
  })

const other = (turn, home, away) => (turn % 2 === 0 ? away : home)
/** Each changes something, and answers with the time from which the stall counts. `turn` counts up. */
const KINDS = {
  roam: (turn, now) => later("roam", "client", other(turn, "client", "client2")).then(() => now),
  readdr: (turn, now) => later("readdr", "client", String(11 + turn % 2)).then(() => now),
  connectorRoam: (turn, now) => later("roam", "connector", other(turn, "connector", "client2")).then(() => now),
  bothRoam: (turn, now) =>
    Promise.all([
      later("roam", "client", other(turn, "client", "client2")),
      later("roam", "connector", other(turn, "connector", "client"))
    ]).then(() => now),
  rebind: (_, now) => later("rebind", "client").then(() => now),
  newWan: (_, now) => later("rebind", "client", "newip").then(() => now),
  pulled: async () => {
    await later("link", "client", "down")
    await sleep(PULLED_MS)
    await later("link", "client", "up")
    return performance.now()
  },
  interfaceOff: async () => {
    await later("link", "client", "off")
    await sleep(PULLED_MS)
    const now = performance.now()
    await later("link", "client", "on")
    return now
  },
  pathDeath: (_, now) => later("blackhole", "sites", "on").then(() => now)
}
/** What puts the network back for the next turn. */
const MEND = { pathDeath: () => later("blackhole", "sites", "off") }

/** Where both started, so that one kind does not leave them on one LAN for the next. */
const goHome = async () => {
  await later("readdr", "client", "10")
  await later("roam", "client", "client")
  await later("roam", "connector", "connector")
  await sleep(WATCH_MS)
}

const children = []
const paths = new Map()
const dir = mkdtempSync(join(tmpdir(), "sallyport-roam-"))

const on = (host, command, ...args) =>
  spawn("ip", ["netns", "exec", `nl-${LAB}-${host}`, command, ...args], {
    cwd: dir,
    env: ENV,
    stdio: ["ignore", "pipe", "pipe"]
  })
const launch = (host, ...args) =>
  new Promise((resolve, reject) => {
    const child = on(host, process.execPath, ...args)
    children.push(child)
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        if (values.logs !== undefined) appendFileSync(values.logs, `${host} ${line}\n`)
        if (line.includes("\"event\":\"ready\"")) resolve(child)
        const path = /path changed.*"path":"([^"]+)"/.exec(line)
        if (path !== null) paths.set(host, path[1])
      })
    }
    child.once("exit", (code) => reject(new Error(`${host} ended with ${code}`)))
  })
const start = (role) => launch(role, PROGRAM, "run", "--config", join(dir, `${role}.json`), "--log-format", "json")
const token = (role, name) => {
  const { stderr, stdout } = spawnSync("ip", [
    ...["netns", "exec", `nl-${LAB}-relay`, process.execPath, PROGRAM, "token", "create"],
    ...["--role", role, "--name", name, "--config", join(dir, "relay.json")]
  ], { env: ENV, encoding: "utf8" })
  if (stdout === "") throw new Error(stderr)
  writeFileSync(join(dir, `${role}.token`), stdout, { mode: 0o600 })
}

/** The download, checked as it comes: each word is one more than the word before. */
class Flow {
  arrivals = [performance.now()]
  wrong = 0
  words = 0
  ended = null
  #rest = Buffer.alloc(0)
  constructor(rate) {
    const url = `http://numbers:${RESOURCE.port}/count?rate=${rate}`
    this.child = on("client", "curl", "--silent", "--no-buffer", "--socks5-hostname", "127.0.0.1:1080", url)
    children.push(this.child)
    this.child.stdout.on("data", (part) => this.#take(part))
    this.child.once("close", (code) => (this.ended = code))
  }
  #take(part) {
    this.arrivals.push(performance.now())
    const bytes = this.#rest.length === 0 ? part : Buffer.concat([this.#rest, part])
    const whole = bytes.length - bytes.length % 4
    for (let at = 0; at < whole; at += 4) if (bytes.readUInt32BE(at) !== ++this.words) this.wrong++
    this.#rest = Buffer.from(bytes.subarray(whole))
  }
  /** The longest time without a byte that ended after `since`, or has not ended yet; what was before `since` does not count. */
  stall(since) {
    let last = since
    let longest = 0
    for (const at of [...this.arrivals, performance.now()]) {
      if (at < since) continue
      longest = Math.max(longest, at - last)
      last = at
    }
    return longest
  }
  forget() {
    this.arrivals = this.arrivals.slice(-1)
  }
}

const until = async (what, is, withinMs) => {
  const end = performance.now() + withinMs
  while (!is()) {
    if (performance.now() > end) return false
    await sleep(20)
  }
  return true
}

const isDirect = () => paths.get("client") !== undefined && paths.get("client") !== "relay"
const quantile = (sorted, q) => Math.round(sorted[Math.min(sorted.length - 1, Math.ceil(q * sorted.length) - 1)])

async function main() {
  const config = (role, body) =>
    writeFileSync(join(dir, `${role}.json`), JSON.stringify({ role, stateDir: role, ...body }))
  const level = values.logs === undefined ? {} : { logLevel: "debug" }
  net("up")
  config("relay", {
    name: "relay",
    listen: { https: `${RELAY}:443`, udp: `${RELAY}:3478` },
    advertise: { host: RELAY },
    resources: [{ name: "numbers", address: RESOURCE.host, tcp: [RESOURCE.port] }],
    access: [{ clients: ["*"], resources: ["*"] }]
  })
  config("connector", { name: "office", token: { file: "connector.token" }, ...level })
  config("client", { name: "laptop", token: { file: "client.token" }, socks5: "127.0.0.1:1080", ...level })
  writeFileSync(join(dir, "file"), "")
  await launch("resource", join(LAB_DIR, "resource.mjs"), RESOURCE.host, String(RESOURCE.port), join(dir, "file"))
  await start("relay")
  token("connector", "office")
  token("client", "laptop")
  await Promise.all([start("connector"), start("client")])

  const results = {}
  for (const kind of values.kinds?.split(",") ?? Object.keys(KINDS)) {
    let flow = new Flow(values.rate)
    const stalls = []
    let resets = 0
    let relayed = 0
    let wrong = 0
    if (!(await until("direct", () => isDirect() && flow.words > 0, SETTLE_MS))) {
      process.stderr.write(`${kind} begins relayed\n`)
    }
    await sleep(1_000)
    for (let turn = 0; turn < Number(values.runs); turn++) {
      flow.forget()
      if (values.logs !== undefined) appendFileSync(values.logs, `--- ${kind} ${turn} ${new Date().toISOString()}\n`)
      const since = await KINDS[kind](turn, performance.now())
      await sleep(WATCH_MS)
      await until("bytes", () => flow.ended !== null || performance.now() - flow.arrivals.at(-1) < 100, SETTLE_MS)
      if (flow.ended !== null) {
        resets++
        flow = new Flow(values.rate)
        await until("bytes again", () => flow.words > 0, SETTLE_MS)
      } else stalls.push(flow.stall(since))
      if (values.logs !== undefined) appendFileSync(values.logs, `--- stall ${stalls.at(-1)}\n`)
      await MEND[kind]?.()
      if (!(await until("direct", isDirect, SETTLE_MS))) relayed++
      wrong += flow.wrong
      flow.wrong = 0
      await sleep(500)
    }
    flow.child.kill("SIGTERM")
    await goHome()
    const sorted = stalls.toSorted((a, b) => a - b)
    results[kind] = {
      n: stalls.length,
      p50: quantile(sorted, 0.5),
      p90: quantile(sorted, 0.9),
      p99: quantile(sorted, 0.99),
      max: quantile(sorted, 1),
      resets,
      wrongWords: wrong,
      notDirectAfterwards: relayed,
      all: stalls.map(Math.round)
    }
    process.stderr.write(`${kind}: ${JSON.stringify(results[kind])}\n`)
  }
  console.log(JSON.stringify(
    { bench: "roam", node: process.version, cores: cpus().length, load: loadavg()[0], unit: "ms of stall", results },
    null,
    2
  ))
}

try {
  await main()
} finally {
  for (const child of children) child.kill("SIGTERM")
  await sleep(500)
  net("down")
  rmSync(dir, { recursive: true, force: true })
}
process.exit(0)
