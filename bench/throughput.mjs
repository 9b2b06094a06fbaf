// One flow (or N) through sallyport, direct and through the relay, beside raw TCP and beside node-datachannel in the same run.
//     node bench/throughput.mjs [--seconds 3] [--runs 3] [--flows 1] [--no-offload]        prints JSON
// Everything runs on loopback, each role in a process of its own. Sides take turns, so that a noisy machine is noisy for all.
import { fork } from "node:child_process"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { here, p50, rssMiB, sleep, surroundings, until, withProcesses } from "./support/processes.mjs"
import { freePort, startSallyport } from "./support/sallyport.mjs"
import { measure, reaches, startTraffic } from "./support/traffic.mjs"

const SELF = fileURLToPath(import.meta.url)

async function main() {
  const { values } = parseArgs({
    options: {
      seconds: { type: "string", default: "3" },
      runs: { type: "string", default: "3" },
      flows: { type: "string", default: "1" },
      "no-offload": { type: "boolean", default: false }
    }
  })
  const seconds = Number(values.seconds)
  const flows = Number(values.flows)
  const env = values["no-offload"] ? { SALLYPORT_UDP_OFFLOAD: "0" } : {}
  const before = surroundings()
  const found = await withProcesses(async (processes) => {
    const traffic = await startTraffic(processes, here, here)
    const { port } = traffic.server
    const world = async (name, path, wanted) => {
      const relay = { host: "127.0.0.1", https: await freePort(), udp: await freePort() }
      const started = await startSallyport(processes, { env, name, path, port, relay })
      await until(() => reaches(traffic, started.target), true, `${name} reaches the server`)
      await until(started.path, wanted, name)
      return started
    }
    const direct = await world("direct", "auto", "direct")
    const relayed = await world("relayed", "relay", "relay-udp")
    const sides = { direct, relayed, rawTcp: { pids: [], target: { host: "127.0.0.1", port } } }
    const all = Object.fromEntries(Object.keys(sides).map((side) => [side, { up: [], down: [] }]))
    const nodeDataChannel = []
    for (let run = 0; run < Number(values.runs); run++) {
      for (const [side, { pids, target }] of Object.entries(sides)) {
        for (const way of ["up", "down"]) {
          all[side][way].push(await measure(traffic, { flows, pids, seconds, target, up: way === "up" }))
        }
      }
      nodeDataChannel.push(await overDataChannel(seconds))
    }
    return {
      all: { ...all, nodeDataChannel },
      rssMiB: Object.fromEntries(Object.entries(direct.roles).map(([role, { pid }]) => [role, rssMiB(pid)])),
      paths: { direct: await direct.path(), relayed: await relayed.path() }
    }
  })
  const { nodeDataChannel, ...sides } = found.all
  const mbps = (list) => Math.round(p50(list.map((one) => one.mbps)))
  const summary = Object.fromEntries(
    Object.entries(sides).map(([side, { down, up }]) => [side, { upMbps: mbps(up), downMbps: mbps(down) }])
  )
  console.log(JSON.stringify(
    {
      bench: "throughput",
      ...before,
      offload: !values["no-offload"],
      flows,
      seconds,
      runs: Number(values.runs),
      p50: { ...summary, nodeDataChannel: { mbps: Math.round(p50(nodeDataChannel)) } },
      ...found
    },
    null,
    2
  ))
}

/** One channel between two processes, one way. */
async function overDataChannel(seconds) {
  const [a, b] = [fork(SELF, ["datachannel"]), fork(SELF, ["datachannel"])]
  a.on("message", (said) => (said.sdp || said.candidate) && b.send(said))
  b.on("message", (said) => (said.sdp || said.candidate) && a.send(said))
  const read = () =>
    new Promise((resolve) => {
      const onMessage = (said) => {
        if (said.bytes === undefined) return
        b.off("message", onMessage)
        resolve(said.bytes)
      }
      b.on("message", onMessage)
      b.send({ read: true })
    })
  a.send({ offer: true })
  await until(async () => (await read()) > 0, true, "node-datachannel moves bytes")
  await sleep(1000) // its own slow start
  await read()
  const since = performance.now()
  await sleep(seconds * 1000)
  const mbps = (await read()) * 8 / 1000 / (performance.now() - since)
  a.kill("SIGKILL")
  b.kill("SIGKILL")
  return mbps
}

if (process.argv[2] === "datachannel") {
  const { default: { PeerConnection } } = await import("node-datachannel")
  const peer = new PeerConnection("bench", { iceServers: [], maxMessageSize: 262144 })
  peer.onLocalDescription((sdp, type) => process.send({ sdp, type }))
  peer.onLocalCandidate((candidate, mid) => process.send({ candidate, mid }))
  const message = Buffer.alloc(64 * 1024, 7)
  let bytes = 0
  const pour = (channel) => {
    while (channel.isOpen() && channel.bufferedAmount() < 4 << 20) channel.sendMessageBinary(message)
  }
  const held = [] // else the channel is collected as garbage, and closed with it
  peer.onDataChannel((channel) => {
    held.push(channel)
    channel.onMessage((data) => (bytes += data.length))
  })
  process.on("message", (said) => {
    if (said.sdp) peer.setRemoteDescription(said.sdp, said.type)
    else if (said.candidate) peer.addRemoteCandidate(said.candidate, said.mid)
    else if (said.read) {
      process.send({ bytes })
      bytes = 0
    } else if (said.offer) {
      const channel = peer.createDataChannel("bench")
      held.push(channel)
      channel.setBufferedAmountLowThreshold(1 << 20)
      channel.onBufferedAmountLow(() => pour(channel))
      channel.onOpen(() => pour(channel))
    }
  })
} else await main()
