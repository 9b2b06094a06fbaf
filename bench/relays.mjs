// One long download that two relays carry in turn, while the one in use dies: how long it stands still, and whether every byte is
// right. Root, Linux; build first.
//     node bench/relays.mjs [--runs 10] [--kinds killed,blackholed] [--rate 1000000] [--logs FILE]      prints JSON
// In the NAT lab of the tests, unshaped, symmetric NATs on both sides, so that nothing is direct; each role in a process of its own. A
// stall is the longest time without a byte at the application after the relay died. `killed`: SIGKILL, and started again after the
// turn; of two turns one kills the relay with the directory. `blackholed`: all UDP to and from it is dropped.
import { appendFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { comes, Flow, server, summary } from "./support/numbers.mjs"
import { output, sleep, surroundings, withProcesses } from "./support/processes.mjs"
import { createToken, freePort, RESOURCE, run, writeConfig } from "./support/sallyport.mjs"

const NATLAB = fileURLToPath(new URL("../test/natlab/lab/natlab.sh", import.meta.url))
const ADDRESS = { relay: "203.0.113.10", relay2: "203.0.113.20" }
const NODES = ["client", "connector"]
/** A flow is watched for this long after its relay died. */
const WATCH_MS = 3_000
/** The relay is back; both nodes are bound there again and have proved it. */
const BACK_MS = 30_000
const PROVED_MS = 2_500

process.env.PATH += ":/usr/sbin:/sbin"
const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "10" },
    kinds: { type: "string", default: "killed,blackholed" },
    rate: { type: "string", default: "1000000" },
    logs: { type: "string" }
  }
})
const note = (line) => {
  if (values.logs !== undefined) appendFileSync(values.logs, `${line}\n`)
}
const LAB = `r${process.pid.toString(36)}`
const net = (...args) => output([NATLAB, [LAB, ...args]])
const on = (host) => (command, args) => ["ip", ["netns", "exec", `nl-${LAB}-${host}`, command, ...args]]

async function main(processes) {
  const { dir } = processes
  processes.onEnd(() => net("down"))
  await net("up", "--client-nat", "symmetric", "--connector-nat", "symmetric")
  const port = await freePort()
  const numbers = processes.start(on("connector"), process.execPath, server("127.0.0.1", port))
  await new Promise((resolve) => numbers.stdout.once("data", resolve))

  /** Of each relay, how often each node said that it is bound there. */
  const bound = { relay: new Map(), relay2: new Map() }
  /** By which relay the client's packets go. */
  let inUse = "relay"
  const count = (map, host) => map.set(host, (map.get(host) ?? 0) + 1)
  const onLine = (host, line) => {
    note(`${host} ${line}`)
    if (line.includes("signaling is up")) count(bound.relay, host)
    if (line.includes("bound at another relay")) count(bound.relay2, host)
    const path = host === "client" ? /path changed.*"path":"relay([^"]*)"/.exec(line) : null
    if (path !== null) inUse = path[1] === "" ? "relay" : "relay2"
  }
  const nodes = {}
  const start = async (
    host
  ) => (nodes[host] = await run(processes, on(host), host, join(dir, `${host}.json`), { onLine }))
  const token = (role, name) => createToken(on("relay"), join(dir, "relay.json"), role, name)

  writeConfig(dir, "relay", {
    listen: { https: `${ADDRESS.relay}:443`, udp: `${ADDRESS.relay}:3478` },
    advertise: { host: ADDRESS.relay },
    resources: [{ name: RESOURCE, address: "127.0.0.1", tcp: [port], allowLoopback: true }],
    access: [{ clients: ["*"], resources: ["*"] }]
  })
  await start("relay")
  writeConfig(dir, "relay2", {
    role: "relay",
    join: await token("relay", "relay2"),
    listen: { udp: `${ADDRESS.relay2}:3478` },
    advertise: { host: ADDRESS.relay2 }
  })
  await start("relay2")
  writeConfig(dir, "connector", { token: await token("connector") })
  writeConfig(dir, "client", { token: await token("client"), socks5: "127.0.0.1:0" })
  await Promise.all(NODES.map(start))
  const socks = Number(nodes.client.listen.socks5.split(":").at(-1))
  const begin = () =>
    new Flow((args) => processes.start(on("client"), "curl", args), {
      host: RESOURCE,
      port,
      rate: values.rate,
      socks
    })

  /** Each kills the relay of that name, and resolves to what brings it back. */
  const kinds = {
    killed: async (name) => {
      const { child } = nodes[name]
      child.removeAllListeners("exit")
      child.kill("SIGKILL")
      return async () => {
        const before = NODES.map((host) => bound[name].get(host) ?? 0)
        await start(name)
        const is = () => NODES.every((host, i) => (bound[name].get(host) ?? 0) > before[i])
        if (!(await comes(is, BACK_MS))) process.stderr.write(`${name} is not bound again\n`)
      }
    },
    blackholed: async (name) => {
      await net("blackhole", name, "on")
      return () => net("blackhole", name, "off")
    }
  }

  const results = {}
  for (const kind of values.kinds.split(",")) {
    let flow = begin()
    const turns = []
    let resets = 0
    let wrongWords = 0
    if (!(await comes(() => flow.words > 0, BACK_MS))) throw new Error("nothing comes")
    await sleep(PROVED_MS)
    for (let turn = 0; turn < Number(values.runs); turn++) {
      const dying = inUse
      flow.forget()
      const since = performance.now()
      const mend = await kinds[kind](dying)
      await sleep(WATCH_MS)
      await comes(() => flow.ended || flow.isMoving(200), BACK_MS)
      const stall = flow.stall(since)
      if (flow.ended || inUse === dying) resets++
      else turns.push({ dying, stall })
      note(`--- ${kind} ${dying} ${stall}`)
      await mend()
      await sleep(PROVED_MS)
      wrongWords += flow.wrong
      flow.wrong = 0
      if (!flow.ended) continue
      flow = begin()
      await comes(() => flow.words > 0, BACK_MS)
    }
    flow.child.kill("SIGTERM")
    const of = (some) => summary(some.map(({ stall }) => stall))
    results[kind] = {
      ...of(turns),
      withDirectory: of(turns.filter(({ dying }) => dying === "relay")),
      resets,
      wrongWords,
      all: turns.map(({ stall }) => Math.round(stall))
    }
    process.stderr.write(`${kind}: ${JSON.stringify(results[kind])}\n`)
  }
  return results
}

const before = surroundings()
const results = await withProcesses(main)
console.log(
  JSON.stringify({ bench: "relays", ...before, loadAfter: surroundings().load, unit: "ms of stall", results }, null, 2)
)
