import { assert, describe, it } from "@effect/vitest"
import { once } from "node:events"
import net from "node:net"
import type { Limit } from "../../src/services/telemetry/Limits.ts"
import { type FlowStream, READ_NOTHING } from "../../src/session/FlowStream.ts"
import { pump } from "../../src/transport/flow/FlowPump.ts"
import { connect, nextReadBytes } from "../../src/transport/flow/TcpReader.ts"
import { ENDED_FLOWS, QUIET_MS, Trim } from "../../src/transport/flow/Trim.ts"
import { BUDGET_BYTES, MAX_BYTES, MIN_BYTES, Unread, unread } from "../../src/transport/flow/Unread.ts"
import { until } from "../suite/support/MemoryWire.ts"

/** A stream without room that takes nothing until it is cut. */
class FullStream implements FlowStream {
  handler: FlowStream["handler"] = null
  readOver = false
  writeOver = false
  read() {
    return READ_NOTHING
  }
  write() {
    return 0
  }
  finish() {
    return false
  }
  reset() {
    this.writeOver = true
  }
  stop() {
    this.readOver = true
  }
  abort() {
    this.reset()
    this.stop()
  }
  pause() {}
}

describe("bytes that nobody reads", () => {
  it("are bounded in total over all flows, then freed", () => {
    const met: Array<Limit> = []
    const unread = new Unread((limit) => void met.push(limit))
    assert.strictEqual(unread.allowance, MAX_BYTES)
    const held: Array<number> = []
    for (let flow = 0; flow < 4096; flow += 1) {
      held.push(unread.allowance)
      unread.change(unread.allowance)
    }
    assert.isAtMost(unread.bytes, BUDGET_BYTES + 4096 * MIN_BYTES)
    assert.deepStrictEqual(met, ["buffers"])
    for (const bytes of held) unread.change(-bytes)
    assert.strictEqual(unread.bytes, 0)
    assert.strictEqual(unread.allowance, MAX_BYTES)
  })
})

describe("bytes that a stream has no room for", () => {
  it("are few while memory is short", async () => {
    const flows = 64
    const server = net.createServer((socket) => {
      socket.on("error", () => {})
      socket.write(Buffer.alloc(1024 * 1024))
    }).listen(0, "127.0.0.1")
    await once(server, "listening")
    const { port } = server.address() as net.AddressInfo
    unread.change(BUDGET_BYTES) // others hold all of it
    const readers = Array.from({ length: flows }, () => connect("127.0.0.1", port, 4))
    await Promise.all(readers.map(({ socket }) => once(socket, "connect")))
    const pumps = readers.map((socket) => pump({ stream: new FullStream(), socket, onDone: () => {} }))
    await until("every socket was read", () => readers.every(({ socket }) => socket.bytesRead > 0))
    const read = readers.reduce((sum, { socket }) => sum + socket.bytesRead, 0)
    assert.isAtMost(read, flows * MIN_BYTES)
    assert.strictEqual(unread.bytes, BUDGET_BYTES + read)
    for (const one of pumps) one.abort()
    server.close()
    unread.change(-BUDGET_BYTES)
    assert.strictEqual(unread.bytes, 0)
  }, 120_000)

  it("are read in pieces that the memory has room for", () => {
    const pieces = [MAX_BYTES, 256 * 1024, 100 * 1024, 32 * 1024, MIN_BYTES].map((bytes) => nextReadBytes(bytes) / 1024)
    assert.deepStrictEqual(pieces, [256, 256, 64, 32, 16])
  })
})

describe("memory of flows that ended", () => {
  it("is given back once many have ended", () => {
    let trimmed = 0
    const trim = new Trim(() => {
      trimmed += 1
    })
    trim.tick(ENDED_FLOWS, 0)
    trim.tick(0, 1000)
    trim.tick(0, 1000 + QUIET_MS - 1)
    assert.strictEqual(trimmed, 0)
    trim.tick(0, 1000 + QUIET_MS)
    trim.tick(0, 60_000)
    assert.strictEqual(trimmed, 1)
    trim.tick(ENDED_FLOWS - 1, 61_000)
    trim.tick(0, 62_000)
    trim.tick(0, 90_000)
    assert.strictEqual(trimmed, 1)
  })
})
