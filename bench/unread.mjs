// Memory of a client and a connector while an application has stopped reading many downloads, and afterwards. Build first.
//     node bench/unread.mjs [--flows 200] [--seconds 30]      prints JSON
import { readFileSync } from "node:fs"
import net from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import { parseArgs } from "node:util"
import { open } from "./support/flows.mjs"
import { surroundings, withProcesses } from "./support/processes.mjs"
import { freePort, RESOURCE, startSallyport } from "./support/sallyport.mjs"

const { values } = parseArgs({
  options: { flows: { type: "string", default: "200" }, seconds: { type: "string", default: "30" } }
})
const PART = Buffer.alloc(65_536, 1)

/** Sends without end, as fast as the other side takes it. */
const endless = net.createServer((socket) => {
  const write = () => {
    while (!socket.destroyed && socket.write(PART));
  }
  socket.on("drain", write).on("error", () => undefined)
  write()
})
/** Resident memory of a process, MiB. */
const rss = (pid) => Math.round(Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]) / 1024)

async function main(processes) {
  await new Promise((resolve) => void endless.listen(0, "127.0.0.1", resolve))
  const { port } = endless.address()
  const relay = { host: "127.0.0.1", https: await freePort(), udp: 0 }
  const { roles, target } = await startSallyport(processes, { name: "unread", path: "auto", port, relay })
  const memory = () => ({ client: rss(roles.client.pid), connector: rss(roles.connector.pid) })
  const before = memory()
  const flows = []
  for (let flow = 0; flow < Number(values.flows); flow++) {
    flows.push((await open(target.socks, RESOURCE, port)).pause())
  }
  let most = memory()
  for (let second = 0; second < Number(values.seconds); second++) {
    await sleep(1000)
    const now = memory()
    most = { client: Math.max(most.client, now.client), connector: Math.max(most.connector, now.connector) }
  }
  for (const flow of flows) flow.destroy()
  await sleep(1000 * Number(values.seconds))
  const after = memory()
  endless.close()
  return { mib: { before, most, after }, flows: flows.length, ...surroundings() }
}

console.log(JSON.stringify(await withProcesses(main), null, 2))
