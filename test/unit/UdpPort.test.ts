import { afterEach, assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { Buffer } from "node:buffer"
import { createSocket } from "node:dgram"
import { readdirSync } from "node:fs"
import { Worker } from "node:worker_threads"
import * as Sockaddr from "../../src/transport/udp/Sockaddr.ts"
import * as UdpPort from "../../src/transport/udp/UdpPort.ts"

type Received = { readonly bytes: Buffer; readonly port: number; readonly address: string }
const opened: Array<UdpPort.UdpPort> = []
const HOST = { 4: "127.0.0.1", 6: "::1" } as const

const start = async (options: Partial<UdpPort.Options> = {}) => {
  const received: Array<Received> = []
  const family = options.family ?? 4
  const port = await UdpPort.open({
    host: HOST[family],
    port: 0,
    family,
    segment: 1200,
    onMessage: (bytes, from) => received.push({ bytes, port: from.port, address: from.address }),
    onError: (cause) => assert.fail(cause.message),
    ...options
  })
  opened.push(port)
  return { port, received }
}

const until = async (done: () => boolean, ms = 3000) => {
  const end = performance.now() + ms
  while (!done() && performance.now() < end) await new Promise((resolve) => setTimeout(resolve, 5))
  assert.isTrue(done(), "waited in vain")
}
const bytesOf = (received: ReadonlyArray<Received>) => received.reduce((sum, one) => sum + one.bytes.length, 0)
const numbered = (length: number) => Buffer.from(Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 8)) & 255))

afterEach(() => {
  for (const port of opened.splice(0)) port.close()
})

for (const offload of [true, false]) {
  for (const family of [4, 6] as const) {
    describe(`UdpPort, offload ${offload}, IPv${family}`, () => {
      it("reports its own address and each datagram's source", async () => {
        const a = await start({ offload, family })
        const b = await start({ offload, family })
        assert.isAbove(a.port.address().port, 0)
        a.port.send(Buffer.from("..hello.."), 2, 5, b.port.address().port, HOST[family])
        await until(() => b.received.length === 1)
        assert.strictEqual(b.received[0]!.bytes.toString(), "hello")
        assert.strictEqual(b.received[0]!.address, HOST[family])
        assert.strictEqual(b.received[0]!.port, a.port.address().port)
      })

      it("sends every byte of a train with a short end", async () => {
        const a = await start({ offload, family })
        const b = await start({ offload, family })
        const train = numbered(1200 * 20 + 77)
        a.port.sendTrain(train, train.length, 1200, b.port.address().port, HOST[family])
        await until(() => bytesOf(b.received) === train.length)
        assert.deepStrictEqual(Buffer.concat(b.received.map((one) => one.bytes)), train)
        assert.strictEqual(a.port.counters.packets, 21)
      })

      it("changes the segment between trains, and cuts no datagram", async () => {
        const a = await start({ offload, family })
        const plain = createSocket(family === 4 ? "udp4" : "udp6") // has no GRO: shows the datagrams as they travel
        const sizes: Array<number> = []
        plain.on("message", (bytes) => sizes.push(bytes.length))
        await new Promise<void>((resolve) => plain.bind(0, HOST[family], resolve))
        const to = plain.address().port
        a.port.sendTrain(numbered(1500), 1500, 500, to, HOST[family])
        a.port.sendTrain(numbered(2100), 2100, 1000, to, HOST[family])
        a.port.send(numbered(1400), 0, 1400, to, HOST[family])
        a.port.send(numbered(30), 0, 30, to, HOST[family])
        a.port.sendTrain(numbered(250), 200, 100, to, HOST[family], 50)
        await until(() => sizes.length === 10)
        plain.close()
        assert.deepStrictEqual(sizes, [500, 500, 500, 1000, 1000, 100, 1400, 30, 100, 100])
      })

      it("splits a train that one call cannot carry", async () => {
        const a = await start({ offload, family })
        const b = await start({ offload, family })
        const train = numbered(1300 * 60)
        a.port.sendTrain(train, train.length, 1300, b.port.address().port, HOST[family])
        await until(() => bytesOf(b.received) === train.length)
        assert.deepStrictEqual(Buffer.concat(b.received.map((one) => one.bytes)), train)
        assert.strictEqual(a.port.counters.sends, 2)
      })

      it("counts what cannot be sent, and goes on", async () => {
        const a = await start({ offload, family })
        const b = await start({ offload, family })
        const to = b.port.address().port
        a.port.send(numbered(70_000), 0, 70_000, to, HOST[family])
        a.port.send(numbered(10), 0, 10, 0, HOST[family])
        a.port.send(numbered(10), 0, 10, to, "no address")
        await until(() => Object.values(a.port.counters.errors).reduce((x, y) => x + y, 0) === 3)
        assert.strictEqual(a.port.counters.errors["EMSGSIZE"], 1)
        a.port.send(numbered(10), 0, 10, to, HOST[family])
        await until(() => b.received.length === 1)
      })

      it("does nothing after it was closed", async () => {
        const a = await start({ offload, family })
        const b = await start({ offload, family })
        a.port.close()
        a.port.close()
        a.port.send(numbered(10), 0, 10, b.port.address().port, HOST[family])
        a.port.sendTrain(numbered(100), 100, 10, b.port.address().port, HOST[family])
        assert.strictEqual(a.port.counters.packets, 0)
      })

      it("fails with the code and a remedy for taken ports", async () => {
        const a = await start({ offload, family })
        const { port } = a.port.address()
        const failure = await start({ offload, family, port }).then(() => null, (cause: unknown) => cause)
        assert.instanceOf(failure, UdpPort.UdpOpenError)
        assert.strictEqual(failure.code, "EADDRINUSE")
        assert.include(failure.message, "configure another port")
      })
    })
  }

  it(`lets IPv4 and IPv6 share a port number (offload ${offload})`, async () => {
    const six = await start({ offload, family: 6, host: "::" })
    const four = await start({ offload, family: 4, host: "0.0.0.0", port: six.port.address().port })
    assert.strictEqual(four.port.address().port, six.port.address().port)
  })

  it(`closes and frees descriptors 500 times (offload ${offload})`, async () => {
    const fds = () => readdirSync("/proc/self/fd").length
    const before = fds()
    for (let i = 0; i < 500; i++) {
      const scope = await Effect.runPromise(Scope.make())
      const port = await Effect.runPromise(
        UdpPort.openScoped({
          host: "127.0.0.1",
          port: 0,
          family: 4,
          segment: 1200,
          offload,
          onMessage: () => {},
          onError: () => {}
        }).pipe(Scope.extend(scope))
      )
      assert.isFalse(port.closed)
      await Effect.runPromise(Scope.close(scope, Exit.void))
      assert.isTrue(port.closed)
    }
    assert.isAtMost(fds() - before, 2)
  })
}

describe("UdpPort", () => {
  it.runIf(UdpPort.offloadUnavailable() === null)(
    "joins a train into few reads with kernel support",
    async () => {
      const a = await start({ offload: true })
      const b = await start({ offload: true })
      assert.isTrue(a.port.segmenting)
      const train = numbered(1200 * 40)
      a.port.sendTrain(train, train.length, 1200, b.port.address().port, "127.0.0.1")
      await until(() => bytesOf(b.received) === train.length)
      assert.strictEqual(a.port.counters.sends, 1)
      assert.isBelow(b.received.length, 10)
    }
  )

  it("refuses an address that is not of its family", async () => {
    const failure = await start({ offload: true, family: 4, host: "::1" }).then(() => null, (cause: unknown) => cause)
    assert.instanceOf(failure, UdpPort.UdpOpenError)
  })

  it("works in a worker that ends with it open", async () => {
    // Node 20 cannot load .ts in a worker: the same calls by hand, which is what is to be shown safe.
    const script = `
      const dgram = require("node:dgram"), { parentPort } = require("node:worker_threads"), koffi = require("koffi")
      const lib = koffi.load(null), socket = lib.func("int socket(int, int, int)"), sendto = lib.func("intptr_t sendto(int, const void *, uintptr_t, int, const void *, uint32_t)")
      const fd = socket(2, 2 | 0o4000 | 0o2000000, 0), s = dgram.createSocket("udp4")
      s.bind({ fd }, () => { const to = Buffer.from([2, 0, 0, 9, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]); parentPort.postMessage(Number(sendto(fd, Buffer.from("x"), 1, 0, to, 16))) })
    `
    for (let i = 0; i < 5; i++) {
      const worker = new Worker(script, { eval: true })
      const sent = await new Promise((resolve, reject) => {
        worker.once("message", resolve)
        worker.once("error", reject)
      })
      assert.strictEqual(sent, 1)
      await worker.terminate()
    }
  })
})

describe("Sockaddr", () => {
  it("writes what the kernel reads", () => {
    assert.deepStrictEqual([...Sockaddr.make("192.0.2.1", 0x1234, 4)!], [
      2,
      0,
      0x12,
      0x34,
      192,
      0,
      2,
      1,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0
    ])
    assert.deepStrictEqual([...Sockaddr.make("fe80::1%7", 1, 6)!].slice(-8), [0, 0, 0, 1, 7, 0, 0, 0])
    assert.isNull(Sockaddr.make("::1", 1, 4))
    assert.isNull(Sockaddr.make("example.org", 1, 4))
  })

  it("keeps destinations apart, however many there are", () => {
    const all = new Sockaddr.Destinations(4)
    for (let i = 0; i < 20_000; i++) {
      const host = `10.0.${(i >> 8) & 255}.${i & 255}`
      assert.deepStrictEqual(all.get(host, 1 + (i % 5)), Sockaddr.make(host, 1 + (i % 5), 4))
    }
  })
})
