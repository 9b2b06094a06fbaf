// How long a flow outlives its connector, which is killed under it. Build first.
//     node bench/connector-death.mjs [--runs 10]      prints JSON
// Relay, connector and client are processes on loopback. `gone`: the connector stays away, and the flow must end with an error.
// `restarted`: it is started again at once, and a new flow must open. Times are from the SIGKILL, at the application.
import { join } from "node:path"
import { parseArgs } from "node:util"
import { echoes, echoServer, open } from "./support/flows.mjs"
import { summary } from "./support/numbers.mjs"
import { here, surroundings, withProcesses } from "./support/processes.mjs"
import { freePort, RESOURCE, run, startSallyport } from "./support/sallyport.mjs"

const { values } = parseArgs({ options: { runs: { type: "string", default: "10" } } })

async function main(processes) {
  const { close, port } = await echoServer()
  const relay = { host: "127.0.0.1", https: await freePort(), udp: 0 }
  const { roles, target } = await startSallyport(processes, { name: "death", path: "auto", port, relay })
  let connector = roles.connector
  const start = () => run(processes, here, "connector", join(processes.dir, "death", "connector.json"))
  const kill = async () => {
    const flow = await open(target.socks, RESOURCE, port)
    flow.on("error", () => {})
    await echoes(flow)
    const ended = new Promise((resolve) => flow.once("close", () => resolve(performance.now())))
    connector.child.removeAllListeners("exit")
    connector.child.kill("SIGKILL")
    return { ended, since: performance.now() }
  }
  const gone = []
  const restarted = []
  const openedAgain = []
  for (let turn = 0; turn < Number(values.runs); turn++) {
    const first = await kill()
    gone.push(await first.ended - first.since)
    connector = await start()
    const second = await kill()
    connector = await start()
    const flow = await open(target.socks, RESOURCE, port)
    openedAgain.push(performance.now() - second.since)
    flow.destroy()
    restarted.push(await second.ended - second.since)
  }
  close()
  const [goneMs, restartedMs, openAgainMs] = [gone, restarted, openedAgain].map(summary)
  return { goneMs, restartedMs, openAgainMs, ...surroundings() }
}

console.log(JSON.stringify(await withProcesses(main), null, 2))
