// How long a flow outlives its permission: a rule is taken away under an open flow, and given back, again and again. Build first.
//     node bench/revocation.mjs [--runs 50]      prints JSON
// Relay, connector and client are processes on loopback. Times are from the SIGHUP that makes the relay read its rules, which the
// application cannot see, to the end of the flow at the application.
import { readFileSync, writeFileSync } from "node:fs"
import net from "node:net"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { summary } from "./support/numbers.mjs"
import { sleep, surroundings, withProcesses } from "./support/processes.mjs"
import { freePort, RESOURCE, startSallyport } from "./support/sallyport.mjs"

const { values } = parseArgs({ options: { runs: { type: "string", default: "50" } } })
/** A resource that stays allowed, with a flow that must stay open. */
const KEPT = "kept"
const RETRY_MS = 20
const GIVE_UP_MS = 400_000

/** An open flow through the client's SOCKS5 listener, or the reply code that refused it. */
const dial = (socks, host, port) =>
  new Promise((resolve, reject) => {
    const socket = net.connect(socks, "127.0.0.1", () => socket.write(Buffer.from([5, 1, 0])))
    socket.once("error", reject)
    socket.once("data", () => {
      const head = Buffer.from([5, 1, 0, 3, host.length, ...Buffer.from(host), port >> 8, port & 255])
      socket.write(head)
      socket.once("data", (reply) => {
        if (reply[1] === 0) return resolve(socket)
        socket.destroy()
        resolve(reply[1])
      })
    })
  })

/** The flow echoes a byte. */
const echoes = (socket) =>
  new Promise((resolve, reject) => {
    socket.once("data", () => resolve())
    socket.once("close", () => reject(new Error("the flow ended before its rule was taken away")))
    socket.write("x")
  })

async function main(processes) {
  const echo = net.createServer((socket) => socket.on("error", () => {}).pipe(socket))
  const port = await new Promise((resolve) => echo.listen(0, "127.0.0.1", () => resolve(echo.address().port)))
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
  const open = async () => {
    for (;;) {
      const flow = await dial(target.socks, RESOURCE, port)
      if (typeof flow !== "number") return flow
      await sleep(RETRY_MS)
    }
  }
  const cuts = []
  const refusals = []
  const returns = []
  const kept = await dial(target.socks, KEPT, port)
  for (let run = 0; run < Number(values.runs); run++) {
    const flow = await open()
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
    const next = await open()
    returns.push(performance.now() - back)
    next.destroy()
  }
  echo.close()
  return { cutMs: summary(cuts), refusedMs: summary(refusals), openAgainMs: summary(returns), ...surroundings() }
}

console.log(JSON.stringify(await withProcesses(main), null, 2))
