import fs from "node:fs"
import net from "node:net"
import os from "node:os"
import path from "node:path"
import { afterEach, describe, expect, it } from "vitest"
import { type VerdictCode } from "../../src/protocol/flow/FlowWire.ts"
import { IDLE_MS, Places } from "../../src/transport/flow/Places.ts"
import { type Connect, MAX_HANDSHAKES, Socks5Server } from "../../src/transport/flow/Socks5Server.ts"
import { adopt, holderOf } from "../../src/transport/flow/TcpReader.ts"
import { until } from "../suite/support/MemoryWire.ts"

const servers: Array<Socks5Server> = []
const clients: Array<net.Socket> = []
afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy()
  await Promise.all(servers.splice(0).map((server) => server.stop()))
})

const start = async (
  connect: (request: Connect) => void,
  more: Omit<ConstructorParameters<typeof Socks5Server>[0], "listen" | "connect"> = {}
) => {
  const server = new Socks5Server({ listen: { host: "127.0.0.1", port: 0 }, connect, ...more })
  servers.push(server)
  const at = await server.start()
  return { server, port: "port" in at ? at.port : 0 }
}
const dial = (at: net.NetConnectOpts) => {
  const socket = net.connect(at)
  clients.push(socket)
  const seen = { bytes: Buffer.alloc(0), ended: false, error: "", closed: false }
  socket.on("data", (bytes: Buffer) => {
    seen.bytes = Buffer.concat([seen.bytes, bytes])
  })
  socket.on("end", () => {
    seen.ended = true
  })
  socket.on("error", (error: NodeJS.ErrnoException) => {
    seen.error = error.code ?? ""
  })
  socket.on("close", () => {
    seen.closed = true
  })
  return { socket, seen }
}
const HELLO = Buffer.from([5, 1, 0])
const CONNECT = Buffer.from([5, 1, 0, 3, 4, ...Buffer.from("wiki"), 0, 80])

describe("Socks5Server", () => {
  it("reports success only after the verdict, keeping early bytes", async () => {
    let request: Connect | null = null
    const { port } = await start((connect) => {
      request = connect
    })
    const { seen, socket } = dial({ port, host: "127.0.0.1" })
    socket.write(Buffer.concat([HELLO, CONNECT, Buffer.from("GET /")]))
    await until("request", () => request !== null)
    socket.write(" HTTP/1.1")
    await new Promise((resolve) => {
      setTimeout(resolve, 50)
    })
    expect([...seen.bytes]).toEqual([5, 0])
    const asked = request as Connect | null
    expect(asked?.target).toEqual({ host: "wiki", port: 80 })
    const early = asked?.answer({ code: "accepted", reason: "" })
    expect(Buffer.from(early ?? []).toString()).toBe("GET / HTTP/1.1")
    await until("reply", () => seen.bytes.length === 12)
    expect([...seen.bytes.subarray(2, 4)]).toEqual([5, 0])
    asked?.socket.write("hi")
    await until("open", () => seen.bytes.subarray(12).toString() === "hi")
  })

  it.each<[VerdictCode, number]>([["refused", 5], ["denied", 2], ["name_not_found", 4], ["timed_out", 4], [
    "internal",
    1
  ]])(
    "answers %s with %i and closes",
    async (code, reply) => {
      const { port } = await start(({ answer }) => expect(answer({ code, reason: "" })).toBeNull())
      const { seen, socket } = dial({ port, host: "127.0.0.1" })
      socket.write(Buffer.concat([HELLO, CONNECT]))
      await until("closed", () => seen.closed)
      expect([...seen.bytes]).toEqual([5, 0, 5, reply, 0, 1, 0, 0, 0, 0, 0, 0])
    }
  )

  it("gives HTTP a whole page, and reports it", async () => {
    const met: Array<string> = []
    const { port } = await start(() => {
      throw new Error("not to be asked")
    }, { onRefused: (reason) => void met.push(reason) })
    const { seen, socket } = dial({ port, host: "127.0.0.1" })
    socket.write("GET http://intranet/ HTTP/1.1\r\nHost: intranet\r\n\r\n")
    await until("closed", () => seen.closed)
    expect(seen.error).toBe("")
    expect(seen.bytes.toString()).toMatch(/^HTTP\/1\.1 501 [^]*<\/html>\n$/)
    const password = dial({ port, host: "127.0.0.1" })
    password.socket.write(Buffer.from([5, 1, 2]))
    await until("closed", () => password.seen.closed)
    expect([...password.seen.bytes]).toEqual([5, 255])
    expect(met).toEqual(["http", "method"])
  })

  it("answers SOCKS4a in its own words", async () => {
    const { port } = await start(({ answer, target }) => {
      expect(target).toEqual({ host: "wiki", port: 80 })
      answer({ code: "refused", reason: "" })
    })
    const { seen, socket } = dial({ port, host: "127.0.0.1" })
    socket.write(Buffer.from([4, 1, 0, 80, 0, 0, 0, 1, 0, ...Buffer.from("wiki"), 0]))
    await until("closed", () => seen.closed)
    expect([...seen.bytes]).toEqual([0, 91, 0, 0, 0, 0, 0, 0])
  })

  it("refuses UDP ASSOCIATE with 7", async () => {
    const { port } = await start(() => {
      throw new Error("not to be asked")
    })
    const { seen, socket } = dial({ port, host: "127.0.0.1" })
    socket.write(Buffer.concat([HELLO, Buffer.from([5, 3, 0, 1, 0, 0, 0, 0, 0, 0])]))
    await until("closed", () => seen.closed)
    expect([...seen.bytes.subarray(2, 4)]).toEqual([5, 7])
  })

  it("cuts a client that does not finish its handshake", async () => {
    const { port, server } = await start(() => {}, { handshakeTimeoutMs: 50 })
    const { seen, socket } = dial({ port, host: "127.0.0.1" })
    socket.write(HELLO)
    await until("cut", () => seen.closed)
    expect(seen.ended).toBe(false)
    await until("forgotten", () => server.connections === 0)
  })

  it("admits no more connections than allowed", async () => {
    let asked = 0
    const { port, server } = await start(() => {
      asked += 1
    }, { places: new Places({ flows: 2 }) })
    const two = [dial({ port, host: "127.0.0.1" }), dial({ port, host: "127.0.0.1" })]
    for (const { socket } of two) socket.write(Buffer.concat([HELLO, CONNECT]))
    await until("two", () => asked === 2)
    const third = dial({ port, host: "127.0.0.1" })
    await until("cut", () => third.seen.closed)
    expect(third.seen.error).toBe("ECONNRESET")
    two[0]?.socket.resetAndDestroy()
    await until("room", () => server.connections === 1)
    const fourth = dial({ port, host: "127.0.0.1" })
    fourth.socket.write(Buffer.concat([HELLO, CONNECT]))
    await until("fourth", () => asked === 3)
  })

  it("lets connections that say nothing shut nobody out", async () => {
    let asked = 0
    const { port, server } = await start(() => {
      asked += 1
    })
    const mute = Array.from({ length: MAX_HANDSHAKES }, () => dial({ port, host: "127.0.0.1" }))
    await until("accepted", () => server.connections === MAX_HANDSHAKES)
    const { socket } = dial({ port, host: "127.0.0.1" })
    socket.write(Buffer.concat([HELLO, CONNECT]))
    await until("asked", () => asked === 1)
    await until("the oldest is cut", () => mute.some(({ seen }) => seen.closed))
    expect(mute.filter(({ seen }) => seen.closed)).toHaveLength(1)
  })

  it("cuts the longest idle flow when there is no room", async () => {
    let now = 0
    const places = new Places({ flows: 2, now: () => now, met: () => undefined })
    const asked: Array<Connect> = []
    const { port } = await start((request) => {
      asked.push(request)
      adopt(request.socket) // as a flow does
    }, { places })
    const open = async () => {
      const it = dial({ port, host: "127.0.0.1" })
      const before = asked.length
      it.socket.write(Buffer.concat([HELLO, CONNECT]))
      await until("asked", () => asked.length === before + 1)
      return it
    }
    const idle = await open()
    now += 1
    const busy = await open()
    places.tick() // what the handshakes moved
    now = IDLE_MS
    const third = dial({ port, host: "127.0.0.1" })
    await until("refused", () => third.seen.closed)
    holderOf(asked[1]!.socket).write("still here")
    now = 2 * IDLE_MS
    await until("written", () => busy.seen.bytes.length > 10)
    places.tick()
    await open()
    await until("cut", () => idle.seen.closed)
    expect(busy.seen.closed).toBe(false)
  })

  it("tells when the application leaves before the answer", async () => {
    let request: Connect | null = null
    const { port } = await start((connect) => {
      request = connect
    })
    const { socket } = dial({ port, host: "127.0.0.1" })
    socket.write(Buffer.concat([HELLO, CONNECT]))
    await until("request", () => request !== null)
    const asked = request as Connect | null
    socket.resetAndDestroy()
    await until("gone", () => asked?.gone.aborted === true)
    expect(asked?.answer({ code: "accepted", reason: "" })).toBeNull()
  })

  it("listens on a unix socket, too", async () => {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), "socks-"))
    const at = { path: path.join(directory, "s") }
    const server = new Socks5Server({
      listen: at,
      connect: ({ answer }) => void answer({ code: "denied", reason: "" })
    })
    servers.push(server)
    expect(await server.start()).toEqual(at)
    const { seen, socket } = dial(at)
    socket.write(Buffer.concat([HELLO, CONNECT]))
    await until("closed", () => seen.closed)
    expect(seen.bytes[3]).toBe(2)
  })

  it("fails to start where another listens, with the system's error", async () => {
    const { port } = await start(() => {})
    const second = new Socks5Server({ listen: { host: "127.0.0.1", port }, connect: () => {} })
    await expect(second.start()).rejects.toMatchObject({ code: "EADDRINUSE" })
  })
})
