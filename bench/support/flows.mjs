/** Flows as an application opens them: through the client's SOCKS5 listener (RFC 1928). */
import net from "node:net"
import { sleep } from "./processes.mjs"

const RETRY_MS = 20

/** An open flow through the client's SOCKS5 listener, or the reply code that refused it. */
export const dial = (socks, host, port) =>
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
export const echoes = (socket) =>
  new Promise((resolve, reject) => {
    socket.once("data", () => resolve())
    socket.once("close", () => reject(new Error("the flow ended before its time")))
    socket.write("x")
  })

/** Dials until the flow is accepted. */
export const open = async (socks, host, port) => {
  for (;;) {
    const flow = await dial(socks, host, port).catch(() => -1)
    if (typeof flow !== "number") return flow
    await sleep(RETRY_MS)
  }
}

/** A server on loopback that answers each byte with itself. */
export const echoServer = () =>
  new Promise((resolve) => {
    const server = net.createServer((socket) => socket.on("error", () => {}).pipe(socket))
    server.listen(0, "127.0.0.1", () => resolve({ port: server.address().port, close: () => server.close() }))
  })
