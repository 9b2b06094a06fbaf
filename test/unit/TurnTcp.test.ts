import { once } from "node:events"
import { connect, type Socket } from "node:net"
import { afterEach, expect, it } from "vitest"
import type { Client } from "../../src/transport/turn/TurnServer.ts"
import { TurnTcp } from "../../src/transport/turn/TurnTcp.ts"

const PERIODS = 4
/** How long a connection without an allocation may stay. */
const IDLE_SECONDS = 30

const open: Array<() => void> = []
afterEach(() => {
  for (const close of open.splice(0)) close()
})

it("cuts each connection that holds no allocation for long", async () => {
  let now = 0
  /** The client that holds an allocation. */
  let holder: Client | null = null
  const clients: Array<Client> = []
  const server = {
    has: (client: Client) => client === holder,
    onMessage: (_: Uint8Array, client: Client) => void clients.push(client),
    onGone: () => {}
  }
  const tcp = new TurnTcp({ server: server as never, now: () => now, limits: { connections: 10, perAddress: 10 } })
  open.push(() => tcp.close())
  const port = await tcp.listen("127.0.0.1", 0, () => {})
  const join = async () => {
    const socket: Socket = connect(port, "127.0.0.1")
    open.push(() => socket.destroy())
    const before = clients.length
    socket.write(Buffer.from("000100002112a442000000000000000000000000", "hex")) // a Binding request
    while (clients.length === before) await new Promise((resolve) => void setImmediate(resolve))
    return { socket, client: clients.at(-1)! }
  }
  const pass = (seconds: number) => {
    for (let second = 0; second < seconds; second++) {
      now += 1000
      tcp.tick()
    }
  }
  const lasting = await join()
  holder = lasting.client
  for (let period = 1; period <= PERIODS; period++) {
    const { socket } = await join()
    pass(IDLE_SECONDS - 1)
    expect(tcp.connections).toBe(2)
    const closed = once(socket.resume(), "close")
    pass(1)
    await closed
    while (tcp.connections > 1) await new Promise((resolve) => void setImmediate(resolve))
    expect(lasting.socket.destroyed).toBe(false)
  }
  holder = null // its allocation is over
  const closed = once(lasting.socket.resume(), "close")
  pass(IDLE_SECONDS)
  await closed
})
