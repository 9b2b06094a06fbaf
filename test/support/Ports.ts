/** Ports for servers of a test that must know its port before it starts. */
import { createSocket } from "node:dgram"
import { once } from "node:events"
import { createServer } from "node:net"

/**
 * Ports of this range are handed out. Linux takes the ports of outgoing connections and of
 * `port: 0` from 32768 on, so no other socket of a test gets one of these by chance.
 */
const [FIRST, COUNT] = [18_000, 12_000]

const isFreeTcp = async (port: number): Promise<boolean> => {
  const server = createServer()
  try {
    await once(server.listen(port, "127.0.0.1"), "listening")
  } catch {
    return false
  }
  server.close()
  await once(server, "close")
  return true
}

const isFreeUdp = async (port: number): Promise<boolean> => {
  const socket = createSocket("udp4")
  try {
    socket.bind(port, "127.0.0.1")
    await once(socket, "listening")
  } catch {
    return false
  } finally {
    socket.close()
  }
  return true
}

/**
 * Returns a port that is free on 127.0.0.1 for TCP and for UDP. It is chosen at random, so that
 * test processes that run at the same time do not choose the same one.
 */
export const freePort = async (): Promise<number> => {
  for (;;) {
    const port = FIRST + Math.floor(Math.random() * COUNT)
    if (await isFreeTcp(port) && await isFreeUdp(port)) return port
  }
}
