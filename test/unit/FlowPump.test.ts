import { mkdtempSync, rmSync } from "node:fs"
import net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import type { ListenAt } from "../../src/protocol/flow/LocalListener.ts"
import { resetSocket } from "../../src/transport/flow/FlowPump.ts"
import { listen, type Listener } from "../../src/transport/flow/Listener.ts"
import { Places } from "../../src/transport/flow/Places.ts"
import { MAX_BYTES, unread } from "../../src/transport/flow/Unread.ts"
import { Checker, fill, type Rig, send, start } from "../suite/support/FlowRig.ts"
import { until, type WireOptions } from "../suite/support/MemoryWire.ts"

let rig: Rig | null = null
const sockets: Array<net.Socket> = []
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy()
  await rig?.close()
  rig = null
})

/** What a socket saw of its other side. */
const watch = (socket: net.Socket) => {
  const seen = { bytes: 0, ended: false, error: "", closed: false }
  sockets.push(socket)
  socket.on("data", (chunk: Buffer) => {
    seen.bytes += chunk.length
  })
  socket.on("end", () => {
    seen.ended = true
  })
  socket.on("error", (error: NodeJS.ErrnoException) => {
    seen.error = error.code ?? error.message
  })
  socket.on("close", () => {
    seen.closed = true
  })
  return seen
}

/** One flow: the application's socket and the resource's, both open. */
const oneFlow = async (options: WireOptions = {}) => {
  let resource: net.Socket | null = null
  const here = await start((socket) => {
    resource = socket
    socket.on("error", () => {})
  }, options)
  rig = here
  const application = net.connect({ port: here.port, host: "127.0.0.1", allowHalfOpen: true })
  const app = watch(application)
  await until("resource", () => resource !== null)
  if (resource === null) throw new Error("no resource")
  const far: net.Socket = resource
  return { rig: here, application, app, far, resource: watch(far) }
}

describe.skipIf(process.platform === "win32").each(["unix socket", "TCP port"])("a connection at a %s", (kind) => {
  let dir: string
  let at: ListenAt
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "sallyport-flow-"))
    at = kind === "TCP port" ? { host: "127.0.0.1", port: 0 } : { path: join(dir, "socket") }
  })
  afterEach(() => rmSync(dir, { recursive: true }))
  /** The connection as its program sees it. */
  const connectTo = ({ address }: Listener) => watch(net.connect("path" in address ? address : { ...address }))

  it("is closed at once when there is no room", async () => {
    const listener = await listen({ at, isSettled: true, onSocket: () => {}, places: new Places({ flows: 0 }) })
    const app = connectTo(listener)
    await until("closed", () => app.closed)
    expect(listener.connections()).toBe(0)
    await listener.close()
  })

  it("is closed when its flow is reset", async () => {
    let accepted: net.Socket | null = null
    const listener = await listen({ at, isSettled: true, onSocket: (socket) => (accepted = socket) })
    const app = connectTo(listener)
    await until("accepted", () => accepted !== null)
    resetSocket(accepted!)
    await until("closed", () => app.closed && listener.connections() === 0)
    await listener.close()
  })
})

describe("FlowPump", () => {
  it("passes on the application's half-close, and the answer", async () => {
    const { app, application, far, resource, rig } = await oneFlow()
    application.end("question")
    await until("end", () => resource.ended)
    expect(resource.bytes).toBe(8)
    expect(app.ended).toBe(false)
    far.end("answer!")
    await until("answer", () => app.ended && app.closed)
    expect(app).toEqual({ bytes: 7, ended: true, error: "", closed: true })
    await until("done", () => rig.outcomes.client.length === 1 && rig.outcomes.connector.length === 1)
    expect(rig.outcomes.client[0]).toEqual({ sent: 8, received: 7, how: "ended" })
    expect(rig.outcomes.connector[0]).toEqual({ sent: 7, received: 8, how: "ended" })
  })

  it("passes on the resource's half-close, and goes on upwards", async () => {
    const { app, application, far, resource } = await oneFlow()
    far.end("banner")
    await until("end", () => app.ended)
    expect(resource.ended).toBe(false)
    application.end("late words")
    await until("words", () => resource.ended)
    expect(resource.bytes).toBe(10)
  })

  it("resets the resource when the application resets", async () => {
    const { application, resource, rig } = await oneFlow()
    application.write("x")
    await until("byte", () => resource.bytes === 1)
    application.resetAndDestroy()
    await until("reset", () => resource.closed)
    expect(resource.error).toBe("ECONNRESET")
    expect(resource.ended).toBe(false)
    await until("done", () => rig.outcomes.client.length === 1 && rig.outcomes.connector.length === 1)
    expect(rig.outcomes.client[0]?.how).toBe("socket_reset")
    expect(rig.outcomes.connector[0]?.how).toBe("peer_reset")
  })

  it("resets the application when the resource resets", async () => {
    const { app, application, far, resource } = await oneFlow()
    application.end("x")
    await until("end", () => resource.ended)
    far.resetAndDestroy()
    await until("reset", () => app.closed)
    expect(app.error).toBe("ECONNRESET")
    expect(app.ended).toBe(false)
  })

  it("resets both sides when the session ends", async () => {
    const { app, resource, rig } = await oneFlow()
    rig.wire.client.close(0, "over")
    await until("both", () => app.closed && resource.closed)
    expect([app.error, resource.error]).toEqual(["ECONNRESET", "ECONNRESET"])
    expect([app.ended, resource.ended]).toEqual([false, false])
    await until("done", () => rig.outcomes.connector.length === 1)
    expect(rig.outcomes.connector[0]?.how).toBe("session_closed")
  })

  it("stops the resource while the application does not read", async () => {
    const { application, far, rig } = await oneFlow()
    application.pause()
    const total = 40 << 20
    const checker = new Checker(5)
    application.on("data", (bytes: Buffer) => checker.push(bytes))
    application.on("end", () => checker.end())
    application.pause()
    send(far, 5, total)
    await until("under way", () => rig.wire.client.stats().bytesReceived > 1_000_000)
    await new Promise((resolve) => {
      setTimeout(resolve, 500)
    })
    // Sockets' buffers, 1 MiB in the pump and a stream window of 4 MiB are all that may be under way.
    expect(rig.wire.connector.stats().bytesSent).toBeLessThan(16 << 20)
    await until("held", () => unread.bytes > 0)
    expect(unread.bytes).toBeLessThanOrEqual(2 * MAX_BYTES)
    application.resume()
    await until("all", () => checker.ended)
    expect(unread.bytes).toBe(0)
    expect({ bytes: checker.received, wrongAt: checker.wrongAt }).toEqual({ bytes: total, wrongAt: -1 })
  })

  it("forgets what nobody read when the flow is cut", async () => {
    const { app, application, far, rig } = await oneFlow()
    application.pause()
    send(far, 5, 40 << 20)
    await until("held", () => unread.bytes > 0)
    application.destroy()
    await until("closed", () => app.closed && rig.outcomes.client.length === 1)
    await until("forgotten at both ends", () => unread.bytes === 0)
  }, 30_000)

  it("delivers what the resource said before it stopped listening", async () => {
    const { app, application, far } = await oneFlow()
    const flood = setInterval(() => application.write(Buffer.alloc(100_000)), 1)
    far.pause()
    far.end(fill(1, 0, 50_000), () => far.destroy()) // closed with bytes unread: its kernel resets whoever goes on writing
    await until("closed", () => app.closed).finally(() => clearInterval(flood))
    expect(app.bytes).toBe(50_000)
  })

  it("carries early bytes through a slow dial, in order", async () => {
    const received: Array<Buffer> = []
    const here = await start((socket) => {
      socket.on("data", (bytes: Buffer) => received.push(bytes))
      socket.on("end", () => socket.end("ok"))
    }, { delayMs: 30 })
    rig = here
    const application = net.connect({ port: here.port, host: "127.0.0.1", allowHalfOpen: true })
    const app = watch(application)
    application.end(fill(3, 0, 200_000))
    await until("answer", () => app.ended)
    expect(Buffer.concat(received).equals(fill(3, 0, 200_000))).toBe(true)
    expect(app.bytes).toBe(2)
  })

  it("resets the application when the resource refuses, and says so", async () => {
    const free = net.createServer().listen(0, "127.0.0.1")
    await until("port", () => free.listening)
    const { port } = free.address() as net.AddressInfo
    free.close()
    rig = await start(() => {}, { resourcePort: port })
    const app = watch(net.connect({ port: rig.port, host: "127.0.0.1" }))
    await until("reset", () => app.closed)
    expect(app).toEqual({ bytes: 0, ended: false, error: "ECONNRESET", closed: true })
    expect(rig.verdicts).toEqual([{
      code: "refused",
      reason: "the resource's host refused the connection (ECONNREFUSED)"
    }])
    const here = rig
    await until("forgotten", () => here.wire.client.stats().streams + here.wire.connector.stats().streams === 0)
  })
})
