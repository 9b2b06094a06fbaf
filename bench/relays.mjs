// One long download that two relays carry in turn, while the one in use dies: how long it stands still, and whether every byte is
// right. Root, Linux; build first.
//     node bench/relays.mjs [--runs 10] [--kinds killed,blackholed] [--rate 1000000] [--logs FILE]      prints JSON
// In the NAT lab of the tests, unshaped, symmetric NATs on both sides, so that nothing is direct; each role in a process of its own. A
// stall is the longest time without a byte at the application after the relay died. `killed`: SIGKILL, and started again after the
// turn; of two turns one kills the relay with the directory. `blackholed`: all UDP to and from it is dropped.
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
const LAB = `r${process.pid.toString(36)}`
const ADDRESS = { relay: "203.0.113.10", relay2: "203.0.113.20" }
const RESOURCE = { host: "10.50.0.10", port: 8080 }
const ENV = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` }
/** A flow is watched for this long after its relay died. */
const WATCH_MS = 3_000
/** The relay is back; both nodes are bound there again and have proved it. */
const BACK_MS = 30_000
const PROVED_MS = 2_500

const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "10" },
    kinds: { type: "string", default: "killed,blackholed" },
    rate: { type: "string", default: "1000000" },
    logs: { type: "string" }
  }
})

const dir = mkdtempSync(join(tmpdir(), "sallyport-relays-"))
const children = new Map()
/** Of each host, how often it said that it is bound at the first relay, or at the second one. */
const bound = { relay: new Map(), relay2: new Map() }
/** By which relay the client's packets go. */
let inUse = "relay"

const net = (...args) => {
  const { status, stderr } = spawnSync(join(LAB_DIR, "natlab.sh"), [LAB, ...args], { env: ENV, encoding: "utf8" })
  if (status !== 0) throw new Error(`natlab ${args.join(" ")}: ${stderr}`)
}
const on = (host, command, ...args) =>
  spawn("ip", ["netns", "exec", `nl-${LAB}-${host}`, command, ...args], {
    cwd: dir,
    env: ENV,
    stdio: ["ignore", "pipe", "pipe"]
  })

const count = (map, host) => map.set(host, (map.get(host) ?? 0) + 1)
const onLine = (host, line) => {
  if (values.logs !== undefined) appendFileSync(values.logs, `${host} ${line}\n`)
  if (line.includes("signaling is up")) count(bound.relay, host)
  if (line.includes("bound at another relay")) count(bound.relay2, host)
  const path = host === "client" ? /path changed.*"path":"relay([^"]*)"/.exec(line) : null
  if (path !== null) inUse = path[1] === "" ? "relay" : "relay2"
}
const launch = (host, ...args) =>
  new Promise((resolve, reject) => {
    const child = on(host, process.execPath, ...args)
    children.set(host, child)
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        onLine(host, line)
        if (line.includes("\"event\":\"ready\"")) resolve(child)
      })
    }
    child.once("exit", (code) => reject(new Error(`${host} ended with ${code}`)))
  })
const start = (role) => launch(role, PROGRAM, "run", "--config", join(dir, `${role}.json`), "--log-format", "json")
const token = (role, name, file) => {
  const { stderr, stdout } = spawnSync("ip", [
    ...["netns", "exec", `nl-${LAB}-relay`, process.execPath, PROGRAM, "token", "create"],
    ...["--role", role, "--name", name, "--config", join(dir, "relay.json")]
  ], { env: ENV, encoding: "utf8" })
  if (stdout === "") throw new Error(stderr)
  writeFileSync(join(dir, `${file}.token`), stdout, { mode: 0o600 })
}

/** The download, checked as it comes: each word is one more than the word before. */
class Flow {
  lastAt = performance.now()
  stallMs = 0
  wrong = 0
  words = 0
  ended = false
  #rest = Buffer.alloc(0)
  constructor() {
    const url = `http://numbers:${RESOURCE.port}/count?rate=${values.rate}`
    this.child = on("client", "curl", "--silent", "--no-buffer", "--socks5-hostname", "127.0.0.1:1080", url)
    this.child.stdout.on("data", (part) => this.#take(part))
    this.child.once("close", () => (this.ended = true))
  }
  #take(part) {
    const now = performance.now()
    this.stallMs = Math.max(this.stallMs, now - this.lastAt)
    this.lastAt = now
    const bytes = Buffer.concat([this.#rest, part])
    const whole = bytes.length - bytes.length % 4
    for (let at = 0; at < whole; at += 4) if (bytes.readUInt32BE(at) !== ++this.words) this.wrong++
    this.#rest = Buffer.from(bytes.subarray(whole))
  }
  get stallNow() {
    return Math.max(this.stallMs, performance.now() - this.lastAt)
  }
}

const until = async (is, withinMs) => {
  const end = performance.now() + withinMs
  while (!is() && performance.now() < end) await sleep(20)
  return is()
}

/** Each kills the relay of that name, and answers with what brings it back. */
const KINDS = {
  killed: (name) => {
    const child = children.get(name)
    child.removeAllListeners("exit")
    child.kill("SIGKILL")
    return async () => {
      const before = ["client", "connector"].map((host) => bound[name].get(host) ?? 0)
      await start(name)
      const is = () => ["client", "connector"].every((host, i) => (bound[name].get(host) ?? 0) > before[i])
      if (!(await until(is, BACK_MS))) process.stderr.write(`${name} is not bound again\n`)
    }
  },
  blackholed: (name) => {
    net("blackhole", name, "on")
    return async () => net("blackhole", name, "off")
  }
}

const quantile = (sorted, q) => Math.round(sorted[Math.min(sorted.length - 1, Math.ceil(q * sorted.length) - 1)])

async function main() {
  const config = (role, body) => writeFileSync(join(dir, `${role}.json`), JSON.stringify({ stateDir: role, ...body }))
  net("up", "--client-nat", "symmetric", "--connector-nat", "symmetric")
  config("relay", {
    role: "relay",
    name: "relay",
    listen: { https: `${ADDRESS.relay}:443`, udp: `${ADDRESS.relay}:3478` },
    advertise: { host: ADDRESS.relay },
    resources: [{ name: "numbers", address: RESOURCE.host, tcp: [RESOURCE.port] }],
    access: [{ clients: ["*"], resources: ["*"] }]
  })
  config("relay2", {
    role: "relay",
    name: "relay-2",
    join: { file: "relay2.token" },
    listen: { udp: `${ADDRESS.relay2}:3478` },
    advertise: { host: ADDRESS.relay2 }
  })
  config("connector", { role: "connector", name: "office", token: { file: "connector.token" } })
  config("client", { role: "client", name: "laptop", token: { file: "client.token" }, socks5: "127.0.0.1:1080" })
  writeFileSync(join(dir, "file"), "")
  await launch("resource", join(LAB_DIR, "resource.mjs"), RESOURCE.host, String(RESOURCE.port), join(dir, "file"))
  await start("relay")
  token("relay", "relay-2", "relay2")
  token("connector", "office", "connector")
  token("client", "laptop", "client")
  await start("relay2")
  await Promise.all([start("connector"), start("client")])

  const results = {}
  for (const kind of values.kinds.split(",")) {
    let flow = new Flow()
    const turns = []
    let resets = 0
    let wrong = 0
    if (!(await until(() => flow.words > 0, BACK_MS))) throw new Error("nothing comes")
    await sleep(PROVED_MS)
    for (let turn = 0; turn < Number(values.runs); turn++) {
      const dying = inUse
      flow.stallMs = 0
      const mend = KINDS[kind](dying)
      await sleep(WATCH_MS)
      await until(() => flow.ended || performance.now() - flow.lastAt < 200, BACK_MS)
      const stayed = inUse === dying
      if (flow.ended || stayed) resets++
      else turns.push({ dying, stallMs: flow.stallNow })
      if (values.logs !== undefined) appendFileSync(values.logs, `--- ${kind} ${dying} ${flow.stallNow}\n`)
      await mend()
      await sleep(PROVED_MS)
      wrong += flow.wrong
      flow.wrong = 0
      if (!flow.ended) continue
      flow = new Flow()
      await until(() => flow.words > 0, BACK_MS)
    }
    flow.child.kill("SIGTERM")
    const of = (some) => {
      const sorted = some.map(({ stallMs }) => stallMs).toSorted((a, b) => a - b)
      return { n: sorted.length, p50: quantile(sorted, 0.5), p99: quantile(sorted, 0.99), max: quantile(sorted, 1) }
    }
    results[kind] = {
      ...of(turns),
      withDirectory: of(turns.filter(({ dying }) => dying === "relay")),
      resets,
      wrongWords: wrong,
      all: turns.map(({ stallMs }) => Math.round(stallMs))
    }
    process.stderr.write(`${kind}: ${JSON.stringify(results[kind])}\n`)
  }
  console.log(JSON.stringify(
    { bench: "relays", node: process.version, cores: cpus().length, load: loadavg()[0], unit: "ms of stall", results },
    null,
    2
  ))
}

try {
  await main()
} finally {
  for (const child of children.values()) child.removeAllListeners("exit").kill("SIGTERM")
  await sleep(500)
  net("down")
  rmSync(dir, { recursive: true, force: true })
}
process.exit(0)
