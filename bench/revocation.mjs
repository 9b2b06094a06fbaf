// How long a flow outlives its permission: a rule is taken away under an open flow, and given back, again and again. Then a client
// is removed under its open flow, another one each time. Build first.
//     node bench/revocation.mjs [--runs 50] [--nodes 0]      prints JSON
// Relay, connector and clients are processes on loopback. `cutMs` is from the SIGHUP that makes the relay read its rules, which the
// application cannot see, to the end of the flow at the application. `removedMs` is from the end of `sallyport node remove` to the
// end of the flow; 0 if the flow ended first. `commandMs` is what the command itself took.
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { dial, echoes, echoServer, open } from "./support/flows.mjs"
import { summary } from "./support/numbers.mjs"
import { here, output, surroundings, withProcesses } from "./support/processes.mjs"
import { createToken, freePort, PROGRAM, RESOURCE, run, startSallyport, writeConfig } from "./support/sallyport.mjs"

const { values } = parseArgs({
  options: { runs: { type: "string", default: "50" }, nodes: { type: "string", default: "0" } }
})
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
  const removed = []
  const commands = []
  for (let node = 0; node < Number(values.nodes); node++) {
    const name = `guest-${node}`
    const own = { role: "client", token: await createToken(here, file, "client", name), socks5: "127.0.0.1:0" }
    const guest = await run(processes, here, name, writeConfig(join(processes.dir, "revocation"), name, own))
    const flow = await open(Number(guest.listen.socks5.split(":").at(-1)), RESOURCE, port)
    await echoes(flow)
    const ended = new Promise((resolve) => flow.once("close", () => resolve(performance.now())))
    const since = performance.now()
    await output(here(process.execPath, [PROGRAM, "node", "remove", name, "--config", file]))
    const answered = performance.now()
    commands.push(answered - since)
    removed.push(Math.max(0, await ended - answered))
    await echoes(kept)
    guest.child.kill("SIGTERM")
  }
  close()
  return {
    ...(cuts.length > 0 && { cutMs: summary(cuts), refusedMs: summary(refusals), openAgainMs: summary(returns) }),
    ...(removed.length > 0 && { removedMs: summary(removed), commandMs: summary(commands) }),
    ...surroundings()
  }
}

console.log(JSON.stringify(await withProcesses(main), null, 2))
