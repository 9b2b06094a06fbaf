/**
 * TCP bulk traffic between two processes, the same for every contender: a server that pours or counts, and a client that
 * counts or pours, straight or through a SOCKS5 listener. Who receives does the counting. Driven by messages.
 */
import net from "node:net"
import { fileURLToPath } from "node:url"
import { cpuSeconds, rounded, sleep } from "./processes.mjs"

const SELF = fileURLToPath(import.meta.url)
const CHUNK_BYTES = 256 * 1024
/** Slow start, and what the first bytes find in empty buffers. */
const WARM_MS = 700
/** When a flow was closed at the client, its other end at the server is gone before this. */
const QUIET_MS = 20_000

/** Starts one end on a host. Its `ask` sends a question and answers with the reply. */
async function startEnd({ start }, place, kind) {
  const child = start(place, process.execPath, [SELF, kind], { stdio: ["ignore", "inherit", "inherit", "ipc"] })
  const ready = await reply(child)
  const ask = (question) => {
    const answered = reply(child)
    child.send(question)
    return answered
  }
  return { ask, port: ready.port }
}

const reply = (child) =>
  new Promise((resolve, reject) => {
    const onExit = () => reject(new Error("a traffic process ended"))
    child.once("exit", onExit)
    child.once("message", (said) => {
      child.off("exit", onExit)
      if (said.error === undefined) resolve(said)
      else reject(new Error(said.error))
    })
  })

/** Both ends. `server.port` is open at all addresses of the server's host. */
export const startTraffic = async (processes, clientPlace, serverPlace) => ({
  client: await startEnd(processes, clientPlace, "client"),
  server: await startEnd(processes, serverPlace, "server")
})

/**
 * What `flows` connections move in `seconds`, Mbit/s, with the processor time that `pids` took meanwhile and what `meter`
 * (optional) counted. `target` is {host, port} and, for a way through SOCKS5, {socks}: the listener's port.
 */
export async function measure({ client, server }, { flows, meter, pids, seconds, target, up }) {
  await client.ask({ open: { ...target, flows, up } })
  await sleep(WARM_MS)
  const receiver = up ? server : client
  const cpu = () => pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0)
  const meteredBefore = await meter?.()
  const before = await receiver.ask({ read: true })
  const cpuBefore = cpu()
  await sleep(seconds * 1000)
  const after = await receiver.ask({ read: true })
  const cpuUsed = cpu() - cpuBefore
  const metered = meter === undefined ? undefined : await meter() - meteredBefore
  await client.ask({ close: true })
  await server.ask({ quiet: true })
  const bytes = after.bytes - before.bytes
  return {
    mbps: rounded(bytes * 8 / 1000 / (after.atMs - before.atMs), 1),
    cpuSecondsPerGB: rounded(cpuUsed / (bytes / 1e9)),
    ...(metered === undefined ? {} : { meteredPerByte: rounded(metered / bytes) })
  }
}

/** Moves `bytes` down one connection and closes it. */
export async function transfer({ client, server }, target, bytes) {
  await client.ask({ open: { ...target, flows: 1, up: false } })
  await client.ask({ moved: bytes })
  await client.ask({ close: true })
  await server.ask({ quiet: true })
}

/** False: nobody answers there yet. */
export const reaches = async ({ client, server }, target) => {
  const opened = await client.ask({ open: { ...target, flows: 1, up: false, tryMs: 1000 } }).then(
    () => true,
    () => false
  )
  await client.ask({ close: true })
  await server.ask({ quiet: true })
  return opened
}

// ------------------------------------------------------------------------------------------------------ the two programs

const UP = 0x75
const DOWN = 0x64
const chunk = Buffer.alloc(CHUNK_BYTES, 7)
let received = 0

const read = () => process.send({ bytes: received, atMs: performance.now() })

/** All connections read into one buffer: the figures are to be the contenders', not this program's. */
const onread = (onBytes = () => {}) => ({
  buffer: Buffer.allocUnsafeSlow(CHUNK_BYTES),
  callback: (length, buffer) => {
    received += length
    onBytes(buffer.subarray(0, length))
    return true
  }
})

const pour = (socket) => {
  const more = () => {
    while (!socket.destroyed && socket.write(chunk)) { /* until it is full */ }
  }
  socket.on("drain", more)
  more()
}

function serve() {
  const open = new Set()
  let quiet = null
  const giveUp = () => {
    quiet = null
    process.send({ error: `${open.size} flows that the client closed are still open at the server` })
  }
  const server = net.createServer({ noDelay: true }, (socket) => {
    open.add(socket)
    socket.on("error", () => {})
    socket.once("close", () => {
      open.delete(socket)
      if (open.size > 0 || quiet === null) return
      clearTimeout(quiet)
      quiet = null
      process.send({ quiet: true })
    })
    socket.once("data", (first) => {
      if (first[0] === DOWN) return pour(socket)
      received += first.length
      socket.on("data", (bytes) => (received += bytes.length))
    })
  })
  server.listen(0, "0.0.0.0", () => process.send({ port: server.address().port }))
  process.on("message", (said) => {
    if (said.read) read()
    else if (open.size === 0) process.send({ quiet: true })
    else quiet = setTimeout(giveUp, QUIET_MS)
  })
}

function drive() {
  let sockets = []
  let awaited = Infinity
  const onBytes = () => {
    if (received < awaited) return
    awaited = Infinity
    process.send({ moved: received })
  }
  const open = async ({ flows, host, port, socks, tryMs = 10_000, up }) => {
    const connected = await Promise.all(
      Array.from({ length: flows }, () => connect({ host, port, socks, tryMs, onBytes, keep: (s) => sockets.push(s) }))
    )
    for (const socket of connected) {
      socket.write(Buffer.of(up ? UP : DOWN))
      if (up) pour(socket)
    }
    return { opened: flows }
  }
  process.on("message", (said) => {
    if (said.read) read()
    else if (said.open) {
      open(said.open).then((ok) => process.send(ok), ({ message }) => process.send({ error: message }))
    } else if (said.moved) {
      awaited = said.moved
      received = 0
    } else {
      for (const socket of sockets) socket.destroy()
      sockets = []
      process.send({ closed: true })
    }
  })
  process.send({ ready: true })
}

/** A connection that is ready to carry bytes. */
const connect = ({ host, keep, onBytes, port, socks, tryMs }) =>
  new Promise((resolve, reject) => {
    let answer = Buffer.alloc(0)
    let ready = socks === undefined
    const onSocks = (bytes) => {
      answer = Buffer.concat([answer, bytes])
      if (answer.length < 12) return
      if (answer[3] !== 0) return fail(`SOCKS5 reply ${answer[3]}`)
      ready = true
      done()
    }
    const socket = net.connect({
      host: socks === undefined ? host : "127.0.0.1",
      port: socks ?? port,
      noDelay: true,
      onread: onread((bytes) => (ready ? onBytes(bytes) : onSocks(bytes)))
    })
    keep(socket)
    const fail = (why) => {
      clearTimeout(late)
      socket.destroy()
      reject(new Error(`${host}:${port}: ${why}`))
    }
    const done = () => {
      clearTimeout(late)
      resolve(socket)
    }
    const late = setTimeout(fail, tryMs, "no answer")
    socket.on("error", ({ message }) => fail(message))
    socket.once("connect", () => {
      if (socks === undefined) return done()
      const name = Buffer.from(host)
      socket.write(
        Buffer.concat([Buffer.of(5, 1, 0, 5, 1, 0, 3, name.length), name, Buffer.of(port >> 8, port & 255)])
      )
    })
  })

if (process.argv[1] === SELF) {
  process.on("disconnect", () => process.exit(0))
  if (process.argv[2] === "server") serve()
  else drive()
}
