// One flow (or N) through sallyport, direct and through the relay, beside raw TCP and beside node-datachannel in the same run.
//     node bench/throughput.mjs [--seconds 3] [--runs 3] [--flows 1] [--no-offload]        prints JSON
// Everything runs on loopback, each role in a process of its own. Sides take turns, so that a noisy machine is noisy for all.
import { fork } from "node:child_process"
import { spawn } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import net from "node:net"
import { cpus, loadavg, tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"

const PROGRAM = fileURLToPath(new URL("../bin/sallyport", import.meta.url))
const SELF = fileURLToPath(import.meta.url)
const CHUNK = Buffer.alloc(256 * 1024, 7)

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
  const env = { ...process.env, ...(values["no-offload"] ? { SALLYPORT_UDP_OFFLOAD: "0" } : {}) }
  const children = []
  const dir = mkdtempSync(join(tmpdir(), "sallyport-bench-"))
  try {
    const source = fork(SELF, ["source"])
    children.push(source)
    const port = await new Promise((resolve) => source.once("message", resolve))
    const direct = await world(join(dir, "direct"), port, "auto", env, children)
    const relayed = await world(join(dir, "relayed"), port, "relay", env, children)
    await until(() => pathOf(direct), "direct")
    const sides = {
      direct: (up) => pull(direct.socks, port, up, seconds, flows),
      relayed: (up) => pull(relayed.socks, port, up, seconds, flows),
      rawTcp: (up) => pull(null, port, up, seconds, flows)
    }
    const figures = Object.fromEntries(Object.keys(sides).map((side) => [side, { up: [], down: [] }]))
    const dataChannel = []
    for (let run = 0; run < Number(values.runs); run++) {
      for (const [side, measure] of Object.entries(sides)) {
        for (const way of ["up", "down"]) figures[side][way].push(await measure(way === "up"))
      }
      dataChannel.push(await overDataChannel(seconds))
    }
    const p50 = (list) => Math.round(list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)])
    const summary = Object.fromEntries(
      Object.entries(figures).map(([side, { down, up }]) => [side, { upMbps: p50(up), downMbps: p50(down) }])
    )
    console.log(JSON.stringify(
      {
        bench: "throughput",
        node: process.version,
        cores: cpus().length,
        load: loadavg()[0],
        offload: !values["no-offload"],
        flows,
        seconds,
        runs: Number(values.runs),
        p50: { ...summary, nodeDataChannel: { mbps: p50(dataChannel) } },
        all: { ...figures, nodeDataChannel: dataChannel },
        rssMiB: Object.fromEntries(Object.entries(direct.pids).map(([role, pid]) => [role, rss(pid)])),
        bootMs: direct.bootMs,
        paths: { direct: await pathOf(direct), relayed: await pathOf(relayed) }
      },
      null,
      2
    ))
  } finally {
    for (const child of children) child.kill("SIGTERM")
    await new Promise((resolve) => setTimeout(resolve, 1500))
    rmSync(dir, { recursive: true, force: true })
  }
  process.exit(0)
}

async function world(dir, port, path, env, children) {
  mkdirSync(dir, { recursive: true })
  const file = (name, text) => {
    writeFileSync(join(dir, name), text)
    return join(dir, name)
  }
  const pids = {}
  const bootMs = {}
  const start = (role, config) =>
    new Promise((resolve, reject) => {
      const since = performance.now()
      const child = spawn(process.execPath, [PROGRAM, "run", "--config", config, "--log-format", "json"], {
        env,
        stdio: ["ignore", "pipe", "inherit"]
      })
      children.push(child)
      pids[role] = child.pid
      child.once("exit", (code) => reject(new Error(`${role} ended with ${code}`)))
      child.stdout.on("data", (bytes) => {
        const ready = String(bytes).split("\n").find((line) => line.includes("\"ready\""))
        if (ready === undefined) return
        bootMs[role] = Math.round(performance.now() - since)
        resolve(JSON.parse(ready).listen)
      })
    })
  const [https, udp] = [await freePort(), await freePort()]
  const relay = file(
    "relay.yaml",
    `role: relay
name: relay
stateDir: relay
logLevel: warn
listen: {https: "127.0.0.1:${https}", udp: "127.0.0.1:${udp}"}
advertise: {host: 127.0.0.1}
resources: [{name: source, address: 127.0.0.1, tcp: [${port}], allowLoopback: true}]
access: [{clients: ["*"], resources: ["*"]}]
`
  )
  await start("relay", relay)
  const token = (role) =>
    new Promise((resolve) => {
      const child = spawn(process.execPath, [
        PROGRAM,
        "token",
        "create",
        "--config",
        relay,
        "--role",
        role,
        "--name",
        role,
        ...(role === "connector" ? ["--network", "default"] : [])
      ])
      let text = ""
      child.stdout.on("data", (bytes) => (text += bytes))
      child.once("close", () => resolve(text.trim()))
    })
  const node = async (role, more) =>
    file(
      `${role}.yaml`,
      `role: ${role}\nname: ${role}\nstateDir: ${role}\nlogLevel: warn\npath: ${path}\ntoken: ${await token(
        role
      )}\n${more}`
    )
  await start("connector", await node("connector", ""))
  const clientFile = await node("client", "socks5: \"127.0.0.1:0\"\n")
  const { socks5 } = await start("client", clientFile)
  const built = { pids, bootMs, clientFile, socks: Number(socks5.split(":")[1]) }
  await pull(built.socks, port, false, 0.3, 1)
  return built
}

const freePort = () =>
  new Promise((resolve) => {
    const server = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })

const pathOf = ({ clientFile }) =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [PROGRAM, "status", "--config", clientFile, "--json"])
    let text = ""
    child.stdout.on("data", (bytes) => (text += bytes))
    child.once("close", () => resolve(JSON.parse(text).peers[0]?.path))
  })

async function until(ask, wanted) {
  for (let i = 0; i < 50; i++) if ((await ask()) === wanted) return
  throw new Error(`never ${wanted}`)
}

/** Mbit/s that `flows` connections move in `seconds`; the first 0.3 s do not count. */
async function pull(socks, port, up, seconds, flows) {
  let bytes = 0
  const sockets = await Promise.all(Array.from({ length: flows }, () => connect(socks, port)))
  for (const socket of sockets) {
    socket.on("error", () => {})
    if (up) {
      socket.write("u")
      const pour = () => {
        while (!socket.destroyed) {
          bytes += CHUNK.length
          if (!socket.write(CHUNK)) return
        }
      }
      socket.on("drain", pour)
      pour()
    } else {
      socket.write("d")
      socket.on("data", (data) => (bytes += data.length))
    }
  }
  await new Promise((resolve) => setTimeout(resolve, 300))
  const waiting = () => (up ? sockets.reduce((sum, socket) => sum + socket.writableLength, 0) : 0)
  const before = bytes - waiting()
  const since = performance.now()
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000))
  const mbps = (bytes - waiting() - before) * 8 / 1000 / (performance.now() - since)
  for (const socket of sockets) socket.destroy()
  return mbps
}

const connect = (socks, port) =>
  new Promise((resolve, reject) => {
    const socket = net.connect(socks ?? port, "127.0.0.1")
    socket.setNoDelay(true)
    socket.once("error", reject)
    if (socks === null) return void socket.once("connect", () => resolve(socket))
    const name = Buffer.from("source")
    socket.write(
      Buffer.concat([Buffer.from([5, 1, 0, 5, 1, 0, 3, name.length]), name, Buffer.from([port >> 8, port & 255])])
    )
    let got = Buffer.alloc(0)
    const onData = (data) => {
      got = Buffer.concat([got, data])
      if (got.length < 12) return
      socket.off("data", onData)
      if (got[3] !== 0) reject(new Error(`SOCKS5 reply ${got[3]}`))
      else resolve(socket)
    }
    socket.on("data", onData)
  })

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
  await new Promise((resolve) => setTimeout(resolve, 1500))
  await read()
  const since = performance.now()
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000))
  const mbps = (await read()) * 8 / 1000 / (performance.now() - since)
  a.kill("SIGKILL")
  b.kill("SIGKILL")
  return mbps
}

const rss = (pid) => {
  try {
    return Math.round(Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024)
  } catch {
    return null
  }
}

if (process.argv[2] === "source") {
  // Whoever connects gets bytes until it leaves (down), or is read until it leaves (up: its first byte is "u").
  const server = net.createServer((socket) => {
    socket.on("error", () => {})
    socket.once("data", (first) => {
      if (first[0] === 0x75) return socket.resume()
      const pour = () => {
        while (socket.write(CHUNK)) if (socket.destroyed) return
      }
      socket.on("drain", pour)
      pour()
    })
  })
  server.listen(0, "127.0.0.1", () => process.send(server.address().port))
} else if (process.argv[2] === "datachannel") {
  const { default: { PeerConnection } } = await import("node-datachannel")
  const peer = new PeerConnection("bench", { iceServers: [], maxMessageSize: 262144 })
  peer.onLocalDescription((sdp, type) => process.send({ sdp, type }))
  peer.onLocalCandidate((candidate, mid) => process.send({ candidate, mid }))
  const message = Buffer.alloc(64 * 1024, 7)
  let bytes = 0
  const pour = (channel) => {
    while (channel.isOpen() && channel.bufferedAmount() < 4 << 20) channel.sendMessageBinary(message)
  }
  peer.onDataChannel((channel) => channel.onMessage((data) => (bytes += data.length)))
  process.on("message", (said) => {
    if (said.sdp) peer.setRemoteDescription(said.sdp, said.type)
    else if (said.candidate) peer.addRemoteCandidate(said.candidate, said.mid)
    else if (said.read) {
      process.send({ bytes })
      bytes = 0
    } else if (said.offer) {
      const channel = peer.createDataChannel("bench")
      channel.setBufferedAmountLowThreshold(1 << 20)
      channel.onBufferedAmountLow(() => pour(channel))
      channel.onOpen(() => pour(channel))
    }
  })
} else await main()
