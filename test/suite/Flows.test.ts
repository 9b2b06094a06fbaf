import net from "node:net"
import { afterEach, describe, expect, it } from "vitest"
import { Checker, fill, type Rig, send, start } from "./support/FlowRig.ts"
import { until, type WireOptions } from "./support/MemoryWire.ts"

let rig: Rig | null = null
afterEach(async () => {
  await rig?.close()
  rig = null
})

/** Which side ends its sending first: the application, the resource, or each as soon as it has sent all. */
const ORDERS = ["application", "resource", "both"] as const

interface Pair {
  readonly up: Checker
  readonly down: Checker
}

/**
 * Opens `count` flows and, once all are open, moves `bytes` each way through every one. The first two bytes of a flow tell the
 * resource its number; three of five flows are half-closed, in either order, while the other direction still has all to send.
 */
const run = async (count: number, bytes: number, options: WireOptions): Promise<ReadonlyArray<Pair>> => {
  const pairs = Array.from({ length: count }, (_, id): Pair => ({ up: new Checker(id), down: new Checker(id + 1000) }))
  const orderOf = (id: number) => id % 5 < 3 ? ORDERS[id % 2] : "both"
  const begin: Array<() => void> = []
  let open = 0
  const opened = () => {
    open += 1
    if (open === count) { for (const act of begin) act() }
  }
  const sendDown = (socket: net.Socket, { down }: Pair) => send(socket, down.id, bytes)
  const sendUp = (socket: net.Socket, { up }: Pair) => send(socket, up.id, bytes)
  const serve = (socket: net.Socket) => {
    socket.on("error", () => {})
    socket.once("data", (hello: Buffer) => {
      const pair = pairs[hello.readUInt16BE(0)]
      if (pair === undefined) throw new Error("no such flow")
      const order = orderOf(pair.up.id)
      if (order !== "application") begin.push(() => sendDown(socket, pair))
      socket.on("data", (chunk: Buffer) => pair.up.push(chunk))
      socket.on("end", () => {
        pair.up.end()
        if (order === "application") sendDown(socket, pair)
      })
      opened()
    })
  }
  rig = await start(serve, options)
  const { port } = rig
  for (const [id, pair] of pairs.entries()) {
    const socket = net.connect({ port, host: "127.0.0.1", allowHalfOpen: true })
    const hello = Buffer.alloc(2)
    hello.writeUInt16BE(id)
    socket.write(hello)
    socket.on("error", () => {})
    const order = orderOf(id)
    if (order !== "resource") begin.push(() => sendUp(socket, pair))
    socket.on("data", (chunk: Buffer) => pair.down.push(chunk))
    socket.on("end", () => {
      pair.down.end()
      if (order === "resource") sendUp(socket, pair)
    })
  }
  return pairs
}

const isDone = (pairs: ReadonlyArray<Pair>) => pairs.every(({ down, up }) => up.ended && down.ended)
const unfinished = (pairs: ReadonlyArray<Pair>) => pairs.filter(({ down, up }) => !up.ended || !down.ended).length

const verify = async (count: number, bytes: number, options: WireOptions): Promise<ReadonlyArray<Pair>> => {
  const pairs = await run(count, bytes, options)
  await until("all flows", () => isDone(pairs)).catch((error: unknown) => {
    throw new Error(`${unfinished(pairs)} of ${count} flows did not finish`, { cause: error })
  })
  for (const checker of pairs.flatMap(({ down, up }) => [up, down])) {
    const { id, received, wrongAt } = checker
    expect({ id, received, wrongAt }).toEqual({ id, received: bytes, wrongAt: -1 })
  }
  const here = rig
  if (here === null) throw new Error("no rig")
  await until("pumps", () => here.outcomes.client.length === count && here.outcomes.connector.length === count)
  expect(here.outcomes.client.every(({ how }) => how === "ended")).toBe(true)
  expect(here.outcomes.connector.every(({ how }) => how === "ended")).toBe(true)
  await until("streams forgotten", () => here.wire.client.stats().streams + here.wire.connector.stats().streams === 0)
  return pairs
}

describe("flows through two sessions", () => {
  it("moves every byte of 500 parallel flows with half-closes", async () => {
    await verify(500, 200_000, {})
  })

  it("moves every byte of 500 flows under 5 % loss", async () => {
    for (const seed of [42, 43]) {
      await verify(500, 20_000, { loss: 0.05, delayMs: 1, seed })
      await rig?.close()
    }
  })

  it("keeps other flows going while twenty readers have stopped", async () => {
    const stuck: Array<net.Socket> = []
    rig = await start((socket) => {
      socket.on("error", () => {})
      socket.once("data", (hello: Buffer) => {
        if (hello[0] === 1) send(socket, 1, 64 << 20)
        else socket.end(fill(9, 0, 300_000))
      })
    }, {})
    for (let count = 0; count < 20; count += 1) {
      const socket = net.connect({ port: rig.port, host: "127.0.0.1" })
      socket.on("error", () => {})
      socket.write(Buffer.of(1))
      socket.pause()
      stuck.push(socket)
    }
    await new Promise((resolve) => {
      setTimeout(resolve, 500)
    })
    const checker = new Checker(9)
    const socket = net.connect({ port: rig.port, host: "127.0.0.1" })
    socket.write(Buffer.of(2))
    socket.on("data", (bytes: Buffer) => checker.push(bytes))
    socket.on("end", () => checker.end())
    await until("the other flow", () => checker.ended)
    expect({ bytes: checker.received, wrongAt: checker.wrongAt }).toEqual({ bytes: 300_000, wrongAt: -1 })
    expect(rig.wire.log.closed.client).toBeNull()
    for (const one of stuck) one.resetAndDestroy()
    const here = rig
    await until("cut", () => here.outcomes.connector.length === 21 && here.outcomes.client.length === 21)
  })
})
