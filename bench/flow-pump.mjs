// Mbit/s of flows through two sessions over loopback UDP, client and connector in two processes, one packet per send (no
// offload): what the flow layer itself can do. JSON on stdout.
// node bench/flow-pump.mjs [--flows 1] [--seconds 5] [--direction up|down]
import { fork } from "node:child_process"
import dgram from "node:dgram"
import fs from "node:fs"
import net from "node:net"
import os from "node:os"
import path from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"
import { parseArgs } from "node:util"

const self = fileURLToPath(import.meta.url)
const root = path.dirname(path.dirname(self))
const HEAD = 2
const MAX_PACKET = 1440

/** The sources are TypeScript: bundled once into a temporary file, with the native binding left outside. */
const bundle = async () => {
  const { build } = await import("esbuild")
  const outfile = path.join(root, "node_modules", ".cache", `flow-pump-${process.pid}.mjs`)
  const entries = [
    "quic/QuicheEngine",
    "quic/QuicSession",
    "flow/FlowStart",
    "flow/FlowPump",
    "flow/Dialer",
    "flow/ForwardServer"
  ]
  const contents = [
    ...entries.map((name) => `export * from "./src/transport/${name}.ts"`),
    `export { makeIdentity } from "./test/suite/support/MemoryWire.ts"`
  ].join("\n")
  await build({
    stdin: { contents, resolveDir: root, loader: "ts" },
    bundle: true,
    platform: "node",
    format: "esm",
    packages: "external",
    outfile,
    logLevel: "error"
  })
  return outfile
}

const openUdp = () =>
  new Promise((resolve) => {
    const socket = dgram.createSocket({ type: "udp4", lookup: (host, _options, done) => done(null, host, 4) })
    socket.bind(0, "127.0.0.1", () => {
      socket.setRecvBufferSize(4 << 20)
      socket.setSendBufferSize(4 << 20)
      resolve(socket)
    })
  })

const openSession = (library, role, identity, socket, peerPort, onStream) =>
  new Promise((resolve) => {
    const session = new library.QuicSession({
      engine: library.engine,
      role,
      ...identity,
      slot: 0,
      path: { headBytes: HEAD, maxPacket: MAX_PACKET },
      now: () => performance.now(),
      transmit: (_slot, buffer, length, segment) => {
        for (let at = 0; at < length; at += segment) {
          const end = Math.min(at + segment, length)
          buffer.writeUInt16BE(0x3000 | end - at, at)
          socket.send(buffer, at, end - at, peerPort, "127.0.0.1")
        }
      },
      onEstablished: () => resolve(session),
      onStream,
      onClosed: (reason) => console.error("closed", reason)
    })
    socket.on("message", (message) => {
      session.receive(0, message, HEAD, message.length - HEAD)
      session.schedule()
    })
  })

const usage = () => {
  const { system, user } = process.cpuUsage()
  return { rssMB: Math.round(process.memoryUsage.rss() / 1e6), cpuSeconds: (user + system) / 1e6 }
}

const runConnector = async ({ identity, library: file, peerPort, socket }) => {
  const library = await import(pathToFileURL(file))
  const onStream = (stream) =>
    library.accept(stream, ({ open, rest }) => {
      library.dial({ host: open.host, port: open.port, allowLoopback: true }, (result) => {
        if (result._tag === "Failed") return library.reject(stream, result)
        const fromSocket = library.admit(stream)
        library.pump({ stream, socket: result.reader, fromStream: rest, fromSocket, onDone: () => {} })
      })
    })
  await openSession(library, "connector", identity, socket, peerPort, onStream)
}

const runClient = async ({ identity, library: file, peerPort, resourcePort, socket }) => {
  const library = await import(pathToFileURL(file))
  const session = await openSession(library, "client", identity, socket, peerPort, () => {})
  const target = { kind: "tcp", resource: "bench", host: "127.0.0.1", port: resourcePort, traceparent: null }
  const door = new library.ForwardServer({
    listen: { host: "127.0.0.1", port: 0 },
    connect: ({ answer, reader }) => {
      library.request(session, target, (result) => {
        const verdict = result._tag === "Accepted" ? { code: "accepted", reason: "" } : result.verdict
        if (!answer(verdict)) return
        library.pump({ stream: result.stream, socket: reader, fromStream: result.rest, onDone: () => {} })
      })
    }
  })
  const { port } = await door.start()
  process.on("message", () => process.send({ stats: session.stats(), usage: usage() }))
  process.send({ doorPort: port })
}

const child = async (role) => {
  const socket = await openUdp()
  process.send({ udpPort: socket.address().port })
  const settings = await new Promise((resolve) => process.once("message", resolve))
  if (role === "client") return runClient({ ...settings, socket })
  await runConnector({ ...settings, socket })
  process.on("message", () => process.send({ usage: usage() }))
}

const ask = (worker, question) =>
  new Promise((resolve) => {
    worker.once("message", resolve)
    if (question !== undefined) worker.send(question)
  })

const measure = async ({ direction, flows, seconds }) => {
  let bytes = 0
  const chunk = Buffer.alloc(256 * 1024, 7)
  const pour = (socket) => {
    const more = () => {
      while (socket.write(chunk)) { /* until it is full */ }
    }
    socket.on("drain", more)
    more()
  }
  const count = (socket) =>
    socket.on("data", (data) => {
      bytes += data.length
    })
  const resource = net.createServer((socket) => {
    socket.on("error", () => {})
    if (direction === "up") count(socket)
    else pour(socket)
  })
  await new Promise((resolve) => resource.listen(0, "127.0.0.1", resolve))
  const library = await bundle()
  const { makeIdentity } = await import(pathToFileURL(library))
  const start = (role) =>
    fork(self, [role], { execArgv: ["--max-semi-space-size=64", ...(process.env.BENCH_EXEC_ARGV?.split(" ") ?? [])] })
  const client = start("client")
  const connector = start("connector")
  try {
    const [{ udpPort: clientPort }, { udpPort: connectorPort }] = await Promise.all([ask(client), ask(connector)])
    connector.send({ identity: await makeIdentity(), library, peerPort: clientPort })
    const settings = {
      identity: await makeIdentity(),
      library,
      peerPort: connectorPort,
      resourcePort: resource.address().port
    }
    const { doorPort } = await ask(client, settings)
    for (let at = 0; at < flows; at += 1) {
      const socket = net.connect(doorPort, "127.0.0.1")
      socket.on("error", () => {})
      if (direction === "up") pour(socket)
      else count(socket)
    }
    await new Promise((resolve) => setTimeout(resolve, 1000)) // past slow start
    const from = bytes
    const begun = performance.now()
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000))
    const mbps = (bytes - from) * 8 / 1e3 / (performance.now() - begun)
    const [atClient, atConnector] = await Promise.all([ask(client, "stats"), ask(connector, "stats")])
    return {
      direction,
      flows,
      seconds,
      mbps: Math.round(mbps),
      client: { ...atClient.usage, ...atClient.stats },
      connector: atConnector.usage,
      node: process.version,
      cpus: os.cpus().length,
      load: Number(os.loadavg()[0].toFixed(1))
    }
  } finally {
    client.kill()
    connector.kill()
    fs.rmSync(library, { force: true })
  }
}

if (process.argv[2] === "client" || process.argv[2] === "connector") await child(process.argv[2])
else {
  const { values } = parseArgs({
    options: {
      direction: { type: "string", default: "up" },
      flows: { type: "string", default: "1" },
      seconds: { type: "string", default: "5" }
    }
  })
  const result = await measure({
    direction: values.direction,
    flows: Number(values.flows),
    seconds: Number(values.seconds)
  })
  console.log(JSON.stringify(result))
  process.exit(0)
}
