/** Jobs on plain timers: with fake timers each works in its fourth period as in its first. */
import { createSocket } from "node:dgram"
import { once } from "node:events"
import { afterEach, assert, beforeEach, describe, it, vi } from "vitest"
import * as Pulse from "../../src/actors/runtime/liveness/Pulse.ts"
import { FrameDatagrams } from "../../src/transport/http3/FrameDatagrams.ts"
import * as TurnProxy from "../../src/transport/webrtc/TurnProxy.ts"

const PERIODS = 4

/** The memory that a worker's thread shares with its supervisor; see `SHARED_BYTES`. */
const shared = vi.hoisted(() => new SharedArrayBuffer(8))
vi.mock(import("node:worker_threads"), async (original) => ({
  ...await original(),
  isMainThread: false,
  workerData: { pulse: shared }
}))

/** A STUN binding request without attributes. The proxy passes it on unread. */
const message = () => {
  const bytes = Buffer.alloc(20)
  bytes.writeUInt16BE(0x0001, 0)
  bytes.writeUInt32BE(0x2112a442, 4)
  return bytes
}

/** A UDP socket on loopback, and the next datagram that comes to it. */
const bound = async () => {
  const socket = createSocket("udp4")
  socket.bind(0, "127.0.0.1")
  await once(socket, "listening")
  const next = () => once(socket, "message") as Promise<[Buffer, { port: number }]>
  return { socket, next, port: socket.address().port }
}
/** Waits for sockets. They need turns of the event loop, whose own timers are not fake. */
const until = async (done: () => boolean) => {
  while (!done()) await new Promise((resolve) => void setImmediate(resolve))
}

beforeEach(() => void vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "performance"] }))
afterEach(() => void vi.useRealTimers())

describe("every period", () => {
  it("a worker thread shows that its event loop turns", () => {
    Pulse.begin()
    const pulse = Pulse.ofWorker(shared)
    for (let period = 1; period <= PERIODS; period++) {
      const { beats } = pulse.read()
      vi.advanceTimersByTime(500)
      assert.isAbove(pulse.read().beats, beats, `period ${period}`)
    }
    pulse.close()
  })

  it("the TURN proxy closes its idle sockets", async () => {
    const server = await bound()
    const [idle, used] = [await bound(), await bound()]
    const at = { host: "127.0.0.1", port: server.port, transport: "udp" } as const
    const proxy = await TurnProxy.TurnProxy.open(at, new TurnProxy.AgentPasswords())
    const send = async (from: typeof idle) => {
      const arrived = server.next()
      from.socket.send(message(), proxy.at.port, proxy.at.host)
      return (await arrived)[1].port
    }
    const lasting = await send(used)
    for (let period = 1; period <= PERIODS; period++) {
      await send(idle)
      assert.strictEqual(proxy.sockets, 2, `period ${period}`)
      for (let minute = 0; minute < 11; minute += 5) {
        assert.strictEqual(await send(used), lasting, `period ${period}`)
        vi.advanceTimersByTime(5 * 60_000)
      }
      await until(() => proxy.sockets === 1)
    }
    proxy.close()
    for (const { socket } of [server, idle, used]) socket.close()
  })

  it("a probe of HTTP/3 datagrams repeats until it returns", () => {
    vi.useRealTimers().useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] })
    const probes: Array<Uint8Array> = []
    const connection = { driver: { isClosed: false }, sendDatagram: (bytes: Uint8Array) => probes.push(bytes) > 0 }
    const datagrams = new FrameDatagrams(connection as never) // the part of it that is used here
    datagrams.start()
    for (let period = 1; period <= PERIODS; period++) {
      vi.advanceTimersByTime(250)
      assert.strictEqual(probes.length, 1 + period)
      assert.isFalse(datagrams.isReady)
    }
    datagrams.onDatagram(probes[0]!)
    vi.advanceTimersByTime(10_000)
    assert.deepStrictEqual([datagrams.isReady, probes.length], [true, 1 + PERIODS])
  })
})
