import { X509Certificate } from "node:crypto"
import { afterEach, describe, expect, it } from "vitest"
import { NOTICE_BYTES, NOTICE_STREAM } from "../../src/transport/quic/EndNotice.ts"
import { READ_NOTHING, READ_RESET, WRITE_STOPPED } from "../../src/transport/quic/engine/QuicEngine.ts"
import { engine } from "../../src/transport/quic/engine/QuicheEngine.ts"
import { CloseCode } from "../../src/transport/quic/QuicSession.ts"
import { type QuicStream } from "../../src/transport/quic/QuicStream.ts"
import { type Identity, join, until, type Wire, type WireOptions } from "../suite/support/MemoryWire.ts"

const open: Array<Wire> = []
const start = async (options: WireOptions = {}): Promise<Wire> => {
  const wire = join(options)
  open.push(wire)
  await wire.established
  return wire
}
afterEach(() => {
  for (const wire of open.splice(0)) wire.close()
})

/** Collects what a stream says; writes `words` as soon as it can. */
const collect = (stream: QuicStream, words: Buffer = Buffer.alloc(0)) => {
  let left = words
  const write = () => {
    while (left.length > 0) {
      const taken = stream.write(left)
      if (taken <= 0) return
      left = left.subarray(taken)
    }
  }
  const seen = { bytes: 0, reset: false, closed: false, text: "" }
  const space = Buffer.alloc(65_536)
  stream.handler = {
    onReadable: () => {
      for (let got = stream.read(space); got !== READ_NOTHING; got = stream.read(space)) {
        if (got === READ_RESET) {
          seen.reset = true
          break
        }
        seen.bytes += got
        if (seen.text.length < 100) seen.text += space.toString("latin1", 0, got)
      }
    },
    onWritable: write,
    onClosed: () => {
      seen.closed = true
    }
  }
  write()
  return seen
}

/** Writes `total` bytes and ends. */
const pour = (stream: QuicStream, total: number) => {
  const chunk = Buffer.alloc(65_536, 7)
  let left = total
  const more = () => {
    while (left > 0) {
      const taken = stream.write(chunk.subarray(0, Math.min(left, chunk.length)), left)
      if (taken <= 0) return
      left -= taken
    }
    stream.finish()
  }
  stream.handler = { onReadable: () => {}, onWritable: more, onClosed: () => {} }
  more()
}

const pause = (ms: number) =>
  new Promise((resolve) => {
    setTimeout(resolve, ms)
  })

const openStream = (wire: Wire): QuicStream => {
  const stream = wire.client.openStream()
  if (stream === null) throw new Error("no stream")
  return stream
}

describe("QuicSession", () => {
  it("shows each side the other's certificate", async () => {
    const wire = await start()
    const seen = (certificate: Uint8Array | null) =>
      new X509Certificate(certificate ?? "").publicKey.export({ format: "jwk" })
    const own = (identity: Identity) => new X509Certificate(identity.certificate).publicKey.export({ format: "jwk" })
    expect(seen(wire.log.certificates.client)).toEqual(own(wire.identities.connector))
    expect(seen(wire.log.certificates.connector)).toEqual(own(wire.identities.client))
    expect(own(wire.identities.client)).not.toEqual(own(wire.identities.connector))
  })

  it("tells the peer and every stream when it closes", async () => {
    const seen: Array<ReturnType<typeof collect>> = []
    const wire = await start({ onStream: (stream) => seen.push(collect(stream)) })
    const stream = openStream(wire)
    const here = collect(stream)
    stream.write(Buffer.from("hello"))
    await until("stream", () => seen.length === 1)
    wire.client.close(CloseCode.goaway, "bye")
    expect(here.closed).toBe(true)
    await until("closed", () => wire.log.closed.connector !== null)
    expect(wire.log.closed.connector).toEqual({ kind: "peer", code: CloseCode.goaway, text: "bye" })
    expect(wire.log.closed.client).toEqual({ kind: "local", code: CloseCode.goaway, text: "bye" })
    expect(seen[0]?.closed).toBe(true)
    expect(stream.write(Buffer.from("x"))).toBe(WRITE_STOPPED)
    expect(wire.client.openStream()).toBeNull()
    await until("drained", () => wire.client.drained && wire.connector.drained)
  })

  it("falls silent after it closed, however early that was", async () => {
    for (let round = 0; round < 40; round += 1) {
      const wire = join()
      open.push(wire)
      if (round % 2 === 0) {
        await wire.established // not yet confirmed (RFC 9001, section 4.1.2)
        const begun = performance.now()
        while (performance.now() < begun + 0.4) { /* the peer's confirmation waits meanwhile */ }
      } else {for (let turn = 0; turn < round / 2; turn += 1) {
          await new Promise((resolve) => {
            setImmediate(resolve)
          })
        }}
      wire.close()
      await pause(5)
      expect(wire.log.packets[0]).toBeLessThan(60)
    }
    await until("drained", () => open.every(({ client, connector }) => client.drained && connector.drained))
  })

  it("gives up a handshake that nobody answers", async () => {
    let now = 0
    const wire = join({ loss: 1, client: { now: () => now } })
    open.push(wire)
    wire.client.schedule()
    await until("first packet", () => (wire.log.packets[0] ?? 0) > 0)
    now = 10_001
    wire.client.schedule()
    await until("closed", () => wire.log.closed.client !== null)
    expect(wire.log.closed.client?.code).toBe(CloseCode.handshakeTimeout)
  })

  it("carries both directions of a stream with their ends", async () => {
    let there: ReturnType<typeof collect> | null = null
    const wire = await start({
      loss: 0.02,
      onStream: (stream) => {
        there = collect(stream)
        stream.write(Buffer.from("answer"))
        stream.finish()
      }
    })
    const stream = openStream(wire)
    const here = collect(stream)
    stream.write(Buffer.from("question"))
    stream.finish()
    await until("both", () => here.text === "answer" && there?.text === "question")
    await until("forgotten", () => wire.client.stats().streams === 0 && wire.connector.stats().streams === 0)
  })

  it.each(["end", "reset"] as const)("makes a lost %s known after the stream was forgotten", async (kind) => {
    const seen: Array<ReturnType<typeof collect>> = []
    const there: Array<QuicStream> = []
    const wire = await start({
      onStream: (stream) => {
        there.push(stream)
        seen.push(collect(stream))
        stream.finish()
      }
    })
    const stream = openStream(wire)
    collect(stream, Buffer.from("words"))
    await until("words", () => seen[0]?.text === "words" && stream.readOver)
    wire.impair({ delayMs: 40 })
    stream.write(Buffer.from(", more"))
    await pause(5) // the bytes are on their way; their acknowledgement comes after the end was lost
    wire.dead.add(0)
    if (kind === "end") stream.finish()
    else stream.reset(1)
    await pause(5)
    wire.dead.delete(0)
    await until("over", () => there[0]?.readOver === true)
    expect(seen[0]?.reset).toBe(kind === "reset")
    await until("forgotten", () => wire.connector.stats().streams === 0)
  })

  it("forgets reset streams, and keeps its windows", async () => {
    // Each round leaves up to 512 KiB unread on either side: 3,000 rounds are far more than any one window.
    let resets = 0
    const wire = await start({
      onStream: (stream) => {
        stream.handler = { onReadable: () => {}, onWritable: () => {}, onClosed: () => {} }
        setImmediate(() => {
          resets += 1
          stream.pause()
          stream.abort(1)
        })
      }
    })
    const chunk = Buffer.alloc(20_000)
    for (let round = 0; round < 3000; round += 1) {
      const stream = openStream(wire)
      const seen = collect(stream, chunk)
      if (round % 3 === 0) stream.abort(1)
      else if (round % 20 === 1) await until(`reset ${round}`, () => seen.reset)
    }
    await until("all gone", () => wire.connector.stats().streams === 0 && resets > 1000)
    const stream = openStream(wire)
    stream.handler = null
    expect(stream.write(Buffer.from("still alive"))).toBe(11)
    expect(wire.log.closed).toEqual({ client: null, connector: null })
  })

  it("moves among three slots 2,000 times while a stream flows", async () => {
    const seen: Array<ReturnType<typeof collect>> = []
    const burst = { floodBurstBytes: 64 << 20 }
    const wire = await start({ onStream: (stream) => seen.push(collect(stream)), client: burst, connector: burst })
    for (const session of [wire.client, wire.connector]) {
      for (const slot of [1, 2]) session.pointSlot(slot, { headBytes: 2, maxPacket: 1440 })
    }
    const stream = openStream(wire)
    let sent = 0
    for (let round = 1; round <= 2000; round += 1) {
      const slot = round % 3
      if (!wire.client.isValidated(slot)) {
        wire.client.probeSlot(slot)
        await until(`validated ${slot}`, () => wire.client.isValidated(slot))
      }
      await until(`migrate ${round}`, () => wire.client.migrate(slot))
      sent += Math.max(0, stream.write(Buffer.alloc(500)))
      await until(`follows ${round}`, () => wire.connector.activeSlot === slot && seen[0]?.bytes === sent)
    }
    expect(sent).toBe(1_000_000)
    expect(wire.log.closed).toEqual({ client: null, connector: null })
    expect(wire.log.packets.slice(0, 3).every((packets) => packets > 1000)).toBe(true)
  })

  it("goes on over another slot without losing bytes", async () => {
    const seen: Array<ReturnType<typeof collect>> = []
    const wire = await start({ delayMs: 5, onStream: (stream) => seen.push(collect(stream)) })
    for (const session of [wire.client, wire.connector]) session.pointSlot(3, { headBytes: 2, maxPacket: 1300 })
    wire.client.probeSlot(3)
    await until("validated", () => wire.log.validated.client.includes(3))
    const total = 6_000_000
    pour(openStream(wire), total)
    await until("under way", () => (seen[0]?.bytes ?? 0) > 500_000)
    wire.dead.add(0)
    expect(wire.client.migrate(3)).toBe(true)
    await until("all", () => seen[0]?.bytes === total)
    expect(wire.log.migrated).toEqual([3])
    expect(wire.log.largest[3]).toBeLessThanOrEqual(1300)
    expect(wire.log.largest[0]).toBe(1440)
  })

  it("lets ten packets through a replaced path, then doubles", async () => {
    const sent: Array<{ at: number; bytes: number }> = []
    const seen: Array<ReturnType<typeof collect>> = []
    const wire = await start({ onStream: (stream) => seen.push(collect(stream)), delayMs: 1 })
    const stream = openStream(wire)
    stream.write(Buffer.from("x"))
    await until("stream", () => seen.length === 1)
    pour(stream, 30_000_000) // opens the congestion window wide
    await until("window", () => wire.client.stats().cwndBytes > 400_000 || (seen[0]?.bytes ?? 0) > 25_000_000)
    const before = wire.log.packets[0] ?? 0
    const at = performance.now()
    wire.client.pointSlot(0, { headBytes: 2, maxPacket: 1440, rttMs: 60 })
    await new Promise((resolve) => {
      setTimeout(resolve, 40)
    })
    sent.push({ at: performance.now() - at, bytes: 0 })
    // Acknowledgements come the other way and are counted, too: about one for every packet at most.
    expect((wire.log.packets[0] ?? 0) - before).toBeLessThanOrEqual(40)
    await until("second round", () => (wire.log.packets[0] ?? 0) - before > 60)
    await until("all", () => seen[0]?.bytes === 30_000_001)
  })

  it("closes a peer that sends packets without progress", async () => {
    const wire = await start({ connector: { floodBurstBytes: 300_000 }, onStream: (stream) => collect(stream) })
    pour(openStream(wire), 3_000_000)
    await until("poured", () => wire.client.stats().bytesSent > 3_000_000 && wire.connector.stats().streams === 1)
    expect(wire.log.closed.connector).toBeNull()
    const deadline = performance.now() + 15_000
    while (wire.log.closed.connector === null && performance.now() < deadline) {
      wire.client.ping()
      await new Promise((resolve) => {
        setImmediate(resolve)
      })
    }
    expect(wire.log.closed.connector?.code).toBe(CloseCode.flood)
    await until("told", () => wire.log.closed.client?.kind === "peer")
  })

  it("does not blame the peer for packets of others", async () => {
    const wire = await start({ connector: { floodBurstBytes: 50_000 }, onStream: (stream) => collect(stream) })
    for (let count = 0; count < 1000; count += 1) {
      const forged = Buffer.alloc(1200, count)
      forged[0] = 0x40
      wire.connector.receive(0, forged, 0, forged.length)
      wire.connector.schedule()
      if (count % 10 === 0) {
        await new Promise((resolve) => {
          setImmediate(resolve)
        })
      }
    }
    await new Promise((resolve) => {
      setTimeout(resolve, 20)
    })
    expect(wire.log.closed.connector).toBeNull()
  })

  /** Bulk flows that wait for room, given up by their reader, who has no more to say. */
  const giveUp = async (options: WireOptions) => {
    const stopped = new Set<number>()
    const wire = await start({
      ...options,
      onStream: (stream) => {
        const chunk = Buffer.alloc(65_536, 7)
        const more = () => {
          for (;;) {
            const taken = stream.write(chunk)
            if (taken === WRITE_STOPPED) stopped.add(stream.id)
            if (taken <= 0) return
          }
        }
        stream.handler = {
          onReadable: () => void stream.read(Buffer.alloc(10)),
          onWritable: more,
          onClosed: () => {}
        }
        more()
      }
    })
    const streams = Array.from({ length: 8 }, () => openStream(wire))
    const seen = streams.map((stream) => collect(stream, Buffer.from("d")))
    await until("bulk", () => seen.every(({ bytes }) => bytes > 2_000_000))
    for (const stream of streams) stream.finish()
    for (const stream of streams) stream.stop(1)
    return { stopped, wire }
  }

  it("tells every waiting writer that its reader has gone", async () => {
    for (let round = 0; round < 3; round += 1) {
      const { stopped, wire } = await giveUp({ delayMs: 3 })
      await until("stopped", () => stopped.size === 8 && wire.connector.stats().streams === 0)
      expect(wire.connector.stats().blockedStreams).toBe(0)
    }
  })

  it("does not blame the peer for bytes sent before resets", async () => {
    const { wire } = await giveUp({ delayMs: 50, client: { floodBurstBytes: 100_000 } })
    await until("gone", () => wire.connector.stats().streams === 0)
    await pause(200)
    expect(wire.log.closed).toEqual({ client: null, connector: null })
  })

  it("ends a session whose peer reads no notices", async () => {
    const deaf: typeof engine = {
      open: (options) => {
        const connection = engine.open(options)
        const write = connection.write.bind(connection)
        // Nothing on the notices' stream, so the connector has none to write to.
        return Object.assign(connection, {
          write: (stream: number, data: Uint8Array) => stream === NOTICE_STREAM ? data.length : write(stream, data)
        })
      }
    }
    let opened = 0
    const onStream = (stream: QuicStream) => {
      opened += 1
      collect(stream, Buffer.from("no"))
      stream.finish()
    }
    const wire = await start({ client: { engine: deaf }, onStream })
    await until("closed", () => {
      for (let i = 0; i < 64; i += 1) {
        const stream = wire.client.openStream()
        if (stream === null) break
        collect(stream, Buffer.from("x"))
        stream.finish()
      }
      return wire.log.closed.connector !== null
    })
    expect(wire.log.closed.connector).toMatchObject({ kind: "local", code: CloseCode.protocol })
    expect(opened * NOTICE_BYTES).toBeLessThan(300 * 1024)
  })

  it("serves a small writer beside a bulk one at once", async () => {
    const seen = new Map<number, ReturnType<typeof collect>>()
    const wire = await start({ delayMs: 2, onStream: (stream) => seen.set(stream.id, collect(stream)) })
    const bulk = openStream(wire)
    pour(bulk, 40_000_000)
    await until("bulk", () => (seen.get(bulk.id)?.bytes ?? 0) > 1_000_000)
    const small = openStream(wire)
    small.handler = {
      onReadable: () => {},
      onWritable: () => {
        small.write(Buffer.from("quick"))
      },
      onClosed: () => {}
    }
    if (small.write(Buffer.from("quick")) === 5) small.handler = null
    await until("small", () => seen.get(small.id)?.text === "quick")
    expect(seen.get(bulk.id)?.bytes).toBeLessThan(40_000_000)
  })
})
