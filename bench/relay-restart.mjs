// How long a relayed download stands still while its relay restarts, and whether every byte of it is right. Build first.
//     node bench/relay-restart.mjs [--runs 10] [--kinds udp,tcp] [--away 0] [--rate 200000] [--logs FILE]      prints JSON
// Relay, connector and client are processes on loopback, and the nodes use no path but the relay's. The relay gets SIGTERM, and after
// `--away` ms more it is started again with the same state. `udp`: packets travel to it by UDP; `tcp`: UDP gets no answer, so they
// travel over TLS links. `gapMs` is the longest time without a byte at the application, from the SIGTERM on; `afterMs` is the part of
// it after the new relay was ready. The numbers that come are checked, each of them.
import { appendFileSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { comes, Flow, server, summary } from "./support/numbers.mjs"
import { here, sleep, surroundings, withProcesses } from "./support/processes.mjs"
import { freePort, RESOURCE, run, startSallyport } from "./support/sallyport.mjs"

const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "10" },
    kinds: { type: "string", default: "udp,tcp" },
    away: { type: "string", default: "0" },
    rate: { type: "string", default: "200000" },
    logs: { type: "string" }
  }
})
const began = performance.now()
const note = (line) => {
  if (values.logs !== undefined) appendFileSync(values.logs, `${Math.round(performance.now() - began)} ${line}\n`)
}
const onLine = (name, line) => note(`${name} ${line}`)
/** A flow that has not moved for this long never will. */
const LOST_MS = 120_000
/** Time between two restarts, so that links count as good ones again. */
const BETWEEN_MS = 22_000

const measure = async (processes, kind) => {
  const relay = { host: "127.0.0.1", https: await freePort(), udp: await freePort() }
  const port = await freePort()
  const numbers = processes.start(here, process.execPath, server("127.0.0.1", port))
  await new Promise((resolve) => numbers.stdout.once("data", resolve))
  const nobody = await freePort()
  const config = (role) => role === "relay" && kind === "tcp" ? { advertise: { host: relay.host, udp: nobody } } : {}
  const { roles, target } = await startSallyport(processes, {
    name: kind,
    path: "relay",
    logLevel: "info",
    port,
    relay,
    config,
    onLine
  })
  let { relay: running } = roles
  const begin = () => new Flow((args) => processes.start(here, "curl", args), { ...target, rate: values.rate })
  let flow = begin()
  const [gaps, afters, aways] = [[], [], []]
  let [ended, wrongWords] = [0, 0]
  for (let turn = 0; turn < Number(values.runs); turn++) {
    if (!(await comes(() => flow.isMoving(), LOST_MS))) throw new Error("nothing comes")
    await sleep(BETWEEN_MS)
    flow.forget()
    const since = performance.now()
    note(`--- ${kind} ${turn} SIGTERM`)
    const { child } = running
    child.removeAllListeners("exit")
    const gone = new Promise((resolve) => child.once("exit", resolve))
    child.kill("SIGTERM")
    await gone
    note("--- gone")
    await sleep(Number(values.away))
    running = await run(processes, here, "relay", join(processes.dir, kind, "relay.json"), { onLine })
    const ready = performance.now()
    note("--- ready")
    const moves = await comes(() => flow.ended || flow.isMoving(), LOST_MS)
    const backAt = flow.stalledUntil(since)
    note(`--- moves ${Math.round(backAt - ready)} ms after ready`)
    if (flow.ended || !moves) {
      ended++
      flow = begin()
      continue
    }
    gaps.push(flow.stall(since))
    afters.push(Math.max(0, backAt - ready))
    aways.push(ready - since)
    wrongWords += flow.wrong
    flow.wrong = 0
  }
  flow.child.kill("SIGTERM")
  return {
    gapMs: summary(gaps),
    afterMs: summary(afters),
    awayMs: summary(aways),
    ended,
    wrongWords,
    after: afters.map(Math.round)
  }
}

const main = async (processes) => {
  const results = {}
  for (const kind of values.kinds.split(",")) results[kind] = await measure(processes, kind)
  return results
}

const before = surroundings()
const results = await withProcesses(main)
console.log(JSON.stringify({ bench: "relay-restart", ...before, loadAfter: surroundings().load, ...results }, null, 2))
