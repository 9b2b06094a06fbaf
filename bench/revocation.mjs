// How long a flow outlives its permission: a rule is taken away under an open flow, and given back, again and again. Build first.
//     node bench/revocation.mjs [--runs 50]      prints JSON
// Relay, connector and client are processes on loopback. Times are from the SIGHUP that makes the relay read its rules, which the
// application cannot see, to the end of the flow at the application.
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { dial, echoes, echoServer, open } from "./support/flows.mjs"
import { summary } from "./support/numbers.mjs"
import { surroundings, withProcesses } from "./support/processes.mjs"
import { freePort, RESOURCE, startSallyport } from "./support/sallyport.mjs"

const { values } = parseArgs({ options: { runs: { type: "string", default: "50" } } })
/** A resource that stays allowed, with a flow that must stay open. */
const KEPT = "kept"
const GIVE_UP_MS = 400_000

async function main(processes) {
  const { close, port } = await echoServer()
  const relay = { host: "127.0.0.1", https: await freePort(), udp: 0 }
  const echoing = { address: "127.0.0.1", tcp: [port], allowLoopback: true }
  const resources = [{ name: RESOURCE, ...echoing }, { name: KEPT, ...echoing }]
  const { roles, target } = await startSallyport(processes, {
    config: (role) => (role === "relay" ? { resources } : {}),
    name: "revocation",
    path: "auto",
    port,
    relay
  })
  const file = join(processes.dir, "revocation", "relay.json")
  const config = JSON.parse(readFileSync(file, "utf8"))
  const allow = (allowed) => {
    const access = [{ clients: ["*"], resources: allowed ? ["*"] : [KEPT] }]
    writeFileSync(file, JSON.stringify({ ...config, access }))
    process.kill(roles.relay.pid, "SIGHUP")
    return performance.now()
  }
  const cuts = []
  const refusals = []
  const returns = []
  const kept = await dial(target.socks, KEPT, port)
  for (let run = 0; run < Number(values.runs); run++) {
    const flow = await open(target.socks, RESOURCE, port)
    await echoes(flow)
    const ended = new Promise((resolve) => flow.once("close", () => resolve(performance.now())))
    const since = allow(false)
    const late = setTimeout(() => flow.destroy(), GIVE_UP_MS)
    cuts.push(await ended - since)
    clearTimeout(late)
    for (;;) {
      const again = await dial(target.socks, RESOURCE, port)
      if (typeof again === "number") break
      again.destroy()
    }
    await echoes(kept)
    refusals.push(performance.now() - since)
    const back = allow(true)
    const next = await open(target.socks, RESOURCE, port)
    returns.push(performance.now() - back)
    next.destroy()
  }
  close()
  return { cutMs: summary(cuts), refusedMs: summary(refusals), openAgainMs: summary(returns), ...surroundings() }
}

console.log(JSON.stringify(await withProcesses(main), null, 2))
