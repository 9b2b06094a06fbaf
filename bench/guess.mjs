// Port guessing between real NATs: symmetric (fully random ports) on one side, port-restricted on the other. Root, Linux; build first.
//     node bench/guess.mjs [--rounds 50] [--hard client|connector|both] [--nat symmetric] [--logs FILE]      prints JSON
// Each round starts both nodes anew in the NAT lab of the tests, begins a download, and waits until its path is direct. Times are from when
// the session was up, which is when the relay began to carry it. Probes: of the easy side those to guessed ports, of the hard side one a socket.
import { once } from "node:events"
import { appendFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { Flow, server, summary } from "./support/numbers.mjs"
import { output, sleep, surroundings, withProcesses } from "./support/processes.mjs"
import { createToken, freePort, RESOURCE, run, writeConfig } from "./support/sallyport.mjs"
import { RELAY_IP } from "./support/vpns.mjs"

const NATLAB = fileURLToPath(new URL("../test/natlab/lab/natlab.sh", import.meta.url))
/** One attempt takes 15 s at most; a session that is relayed after this counts as a failure. */
const GIVE_UP_MS = 20_000

process.env.PATH += ":/usr/sbin:/sbin"
const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "50" },
    hard: { type: "string", default: "both" },
    nat: { type: "string", default: "symmetric" },
    logs: { type: "string" }
  }
})
const note = (line) => {
  if (values.logs !== undefined) appendFileSync(values.logs, `${line}\n`)
}
const LAB = `g${process.pid.toString(36)}`
const net = (...args) => output([NATLAB, [LAB, ...args]])
const on = (host) => (command, args) => ["ip", ["netns", "exec", `nl-${LAB}-${host}`, command, ...args]]

/** What the nodes of this round have said: lines of JSON, each with the time when it came. */
const said = new Map()
const find = (host, pattern) => said.get(host)?.findLast(({ line }) => pattern.test(line))
const onLine = (host, line) => {
  note(`${host} ${line}`)
  said.get(host)?.push({ at: performance.now(), line })
}
const probesOf = (host) => {
  const over = find(host, /"port guessing".*"probes":\d+/)
  return over === undefined ? 0 : Number(/"probes":(\d+)/.exec(over.line)[1])
}

/** Ms until the session was direct; null: it was not. */
async function round(processes, port) {
  const start = (host) => {
    said.set(host, [])
    return run(processes, on(host), host, join(processes.dir, `${host}.json`), { onLine })
  }
  const nodes = await Promise.all([start("connector"), start("client")])
  const socks = Number(nodes[1].listen.socks5.split(":").at(-1))
  const flow = new Flow((args) => processes.start(on("client"), "curl", args), {
    host: RESOURCE,
    port,
    rate: 100_000,
    socks
  })
  const end = performance.now() + GIVE_UP_MS
  let direct
  while (direct === undefined && performance.now() < end) {
    await sleep(20)
    direct = find("client", /path changed.*"path":"[0-9.]+\|/)
  }
  const up = find("client", /"session up"/)
  await sleep(200) // the other side's last words
  await Promise.all([flow.child, ...nodes.map(({ child }) => child)].map(ended))
  return direct === undefined || up === undefined ? null : direct.at - up.at
}

const ended = async (child) => {
  child.removeAllListeners("exit")
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill("SIGTERM")
  await once(child, "exit")
}

async function main(processes) {
  const { dir } = processes
  processes.onEnd(() => net("down"))
  await net("up")
  const port = await freePort()
  const numbers = processes.start(on("connector"), process.execPath, server("127.0.0.1", port))
  await once(numbers.stdout, "data")
  const config = writeConfig(dir, "relay", {
    listen: { https: `${RELAY_IP}:443`, udp: `${RELAY_IP}:3478` },
    advertise: { host: RELAY_IP },
    resources: [{ name: RESOURCE, address: "127.0.0.1", tcp: [port], allowLoopback: true }],
    access: [{ clients: ["*"], resources: ["*"] }]
  })
  await run(processes, on("relay"), "relay", config)
  writeConfig(dir, "connector", { token: await createToken(on("relay"), config, "connector") })
  writeConfig(dir, "client", { token: await createToken(on("relay"), config, "client"), socks5: "127.0.0.1:0" })

  const results = {}
  for (const hard of values.hard === "both" ? ["client", "connector"] : [values.hard]) {
    const easy = hard === "client" ? "connector" : "client"
    const [times, guesses, openers] = [[], [], []]
    const rounds = Number(values.rounds)
    for (let turn = 0; turn < rounds; turn++) {
      await net("nat", hard, values.nat) // also forgets what was mapped
      await net("nat", easy, "port-restricted")
      note(`--- ${hard} ${turn} ${new Date().toISOString()}`)
      const ms = await round(processes, port)
      if (ms !== null) times.push(ms)
      guesses.push(probesOf(easy))
      openers.push(probesOf(hard))
      process.stderr.write(
        `${hard} ${turn}: ${ms === null ? "relayed" : Math.round(ms)} ms, ${guesses.at(-1)} probes\n`
      )
    }
    results[`${hard} symmetric`] = {
      n: rounds,
      success: times.length / rounds,
      ms: summary(times),
      guesses: summary(guesses),
      openers: summary(openers),
      all: { ms: times.map(Math.round), guesses }
    }
  }
  return results
}

const before = surroundings()
const results = await withProcesses(main)
console.log(
  JSON.stringify({ bench: "guess", ...before, loadAfter: surroundings().load, nat: values.nat, results }, null, 2)
)
