// Port guessing between real NATs: symmetric (fully random ports) on one side, port-restricted on the other. Root, Linux; build first.
//     node bench/guess.mjs [--rounds 50] [--hard client|connector|both] [--nat symmetric] [--logs FILE]      prints JSON
// Each round starts both nodes anew in the NAT lab of the tests, begins a download, and waits until its path is direct. Times are from when
// the session was up, which is when the relay began to carry it. Probes: of the easy side those to guessed ports, of the hard side one a socket.
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
const LAB = `g${process.pid.toString(36)}`
const RELAY = "203.0.113.10"
const RESOURCE = { host: "10.50.0.10", port: 8080 }
const ENV = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` }
/** One attempt takes 15 s at most; a session that is relayed after this counts as a failure. */
const GIVE_UP_MS = 20_000

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "50" },
    hard: { type: "string", default: "both" },
    nat: { type: "string", default: "symmetric" },
    logs: { type: "string" }
  }
})

const net = (...args) => {
  const { status, stderr } = spawnSync(join(LAB_DIR, "natlab.sh"), [LAB, ...args], { env: ENV, encoding: "utf8" })
  if (status !== 0) throw new Error(`natlab ${args.join(" ")}: ${stderr}`)
}
const dir = mkdtempSync(join(tmpdir(), "sallyport-guess-"))
const children = new Set()
const on = (host, command, ...args) => {
  const child = spawn("ip", ["netns", "exec", `nl-${LAB}-${host}`, command, ...args], {
    cwd: dir,
    env: ENV,
    stdio: ["ignore", "pipe", "pipe"]
  })
  children.add(child)
  child.once("exit", () => children.delete(child))
  return child
}
/** What the nodes of this round have said: `lines(host)` of JSON, each with the time when it came. */
const said = new Map()
const launch = (host, ...args) =>
  new Promise((resolve, reject) => {
    const child = on(host, process.execPath, ...args)
    said.set(host, [])
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        if (values.logs !== undefined) appendFileSync(values.logs, `${host} ${line}\n`)
        said.get(host).push({ at: performance.now(), line })
        if (line.includes("\"event\":\"ready\"")) resolve(child)
      })
    }
    child.once("exit", (code) => reject(new Error(`${host} ended with ${code}: ${said.get(host).at(-1)?.line}`)))
  })
const start = (role) => launch(role, PROGRAM, "run", "--config", join(dir, `${role}.json`), "--log-format", "json")
const stop = (child) =>
  new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve()
    child.once("exit", resolve)
    child.kill("SIGTERM")
  })
const token = (role, name) => {
  const { stderr, stdout } = spawnSync("ip", [
    ...["netns", "exec", `nl-${LAB}-relay`, process.execPath, PROGRAM, "token", "create"],
    ...["--role", role, "--name", name, "--config", join(dir, "relay.json")]
  ], { env: ENV, encoding: "utf8" })
  if (stdout === "") throw new Error(stderr)
  writeFileSync(join(dir, `${role}.token`), stdout, { mode: 0o600 })
}
const find = (host, pattern) => said.get(host)?.findLast(({ line }) => pattern.test(line))
const probesOf = (host) => {
  const over = find(host, /"port guessing".*"probes":\d+/)
  return over === undefined ? 0 : Number(/"probes":(\d+)/.exec(over.line)[1])
}
const quantile = (list, q) => {
  const sorted = list.toSorted((a, b) => a - b)
  return sorted.length === 0 ? null : Math.round(sorted[Math.min(sorted.length - 1, Math.ceil(q * sorted.length) - 1)])
}
const stats = (list) => ({ p50: quantile(list, 0.5), p99: quantile(list, 0.99), max: quantile(list, 1) })

/** Ms until the session was direct; null: it was not. */
const round = async () => {
  const nodes = await Promise.all([start("connector"), start("client")])
  const url = `http://numbers:${RESOURCE.port}/count?rate=100000`
  const flow = on("client", "curl", "--silent", "--no-buffer", "--socks5-hostname", "127.0.0.1:1080", url)
  flow.stdout.resume()
  const end = performance.now() + GIVE_UP_MS
  let direct
  while (direct === undefined && performance.now() < end) {
    await sleep(20)
    direct = find("client", /path changed.*"path":"[0-9.]+\|/)
  }
  const up = find("client", /"session up"/)
  await sleep(200) // the other side's last words
  await stop(flow)
  await Promise.all(nodes.map(stop))
  return direct === undefined || up === undefined ? null : direct.at - up.at
}

async function main() {
  const config = (role, body) =>
    writeFileSync(join(dir, `${role}.json`), JSON.stringify({ role, stateDir: role, ...body }))
  net("up")
  const results = {}
  config("relay", {
    name: "relay",
    listen: { https: `${RELAY}:443`, udp: `${RELAY}:3478` },
    advertise: { host: RELAY },
    resources: [{ name: "numbers", address: RESOURCE.host, tcp: [RESOURCE.port] }],
    access: [{ clients: ["*"], resources: ["*"] }]
  })
  config("connector", { name: "office", token: { file: "connector.token" } })
  config("client", { name: "laptop", token: { file: "client.token" }, socks5: "127.0.0.1:1080" })
  writeFileSync(join(dir, "file"), "")
  await launch("resource", join(LAB_DIR, "resource.mjs"), RESOURCE.host, String(RESOURCE.port), join(dir, "file"))
  await start("relay")
  token("connector", "office")
  token("client", "laptop")
  for (const hard of values.hard === "both" ? ["client", "connector"] : [values.hard]) {
    const easy = hard === "client" ? "connector" : "client"
    const [times, guesses, openers] = [[], [], []]
    let failures = 0
    for (let turn = 0; turn < Number(values.rounds); turn++) {
      net("nat", hard, values.nat) // also forgets what was mapped
      net("nat", easy, "port-restricted")
      if (values.logs !== undefined) appendFileSync(values.logs, `--- ${hard} ${turn} ${new Date().toISOString()}\n`)
      const ms = await round()
      if (ms === null) failures++
      else times.push(ms)
      guesses.push(probesOf(easy))
      openers.push(probesOf(hard))
      process.stderr.write(
        `${hard} ${turn}: ${ms === null ? "relayed" : Math.round(ms)} ms, ${guesses.at(-1)} probes\n`
      )
    }
    const n = times.length + failures
    results[`${hard} symmetric`] = {
      n,
      success: times.length / n,
      ms: stats(times),
      guesses: stats(guesses),
      openers: stats(openers),
      all: { ms: times.map(Math.round), guesses }
    }
  }
  console.log(JSON.stringify(
    { bench: "guess", node: process.version, cores: cpus().length, load: loadavg()[0], nat: values.nat, results },
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
