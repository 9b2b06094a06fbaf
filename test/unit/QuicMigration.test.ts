import { afterEach, describe, expect, it } from "vitest"
import type { QuicStream } from "../../src/transport/quic/QuicStream.ts"
import { join, until, type Wire } from "../suite/support/MemoryWire.ts"

const TOTAL = 3_000_000
const SPARE_SLOT = 3
const THIRD_SLOT = 5
const chunk = Buffer.alloc(64 * 1024, 7)
const into = Buffer.alloc(64 * 1024)

/** The connector's end of the stream: sends `TOTAL` bytes as fast as they are taken. */
const upload = (stream: QuicStream) => {
  let left = TOTAL
  const more = () => {
    while (left > 0) {
      const taken = stream.write(chunk.subarray(0, Math.min(left, chunk.length)))
      if (taken <= 0) return
      left -= taken
    }
  }
  stream.handler = { onReadable: () => void stream.read(into), onWritable: more, onClosed: () => undefined }
  more()
}

const downloading = async (open: Array<Wire>, onMigrated: (wire: Wire, slot: number) => void = () => {}) => {
  const onPeerMigrated = (slot: number) => {
    wire.log.migrated.push(slot)
    onMigrated(wire, slot)
  }
  const wire = join({ delayMs: 5, onStream: upload, connector: { onPeerMigrated } })
  open.push(wire)
  await wire.established
  for (const slot of [SPARE_SLOT, THIRD_SLOT]) {
    for (const session of [wire.client, wire.connector]) session.pointSlot(slot, { headBytes: 2, maxPacket: 1440 })
    wire.client.probeSlot(slot)
    await until("validated", () => wire.log.validated.client.includes(slot))
  }
  const stream = wire.client.openStream()
  if (stream === null) throw new Error("no stream")
  const seen = { bytes: 0 }
  stream.handler = {
    onReadable: () => {
      for (let got = stream.read(into); got > 0; got = stream.read(into)) seen.bytes += got
    },
    onWritable: () => undefined,
    onClosed: () => undefined
  }
  stream.write(Buffer.from("go"))
  await until("under way", () => seen.bytes > 200_000)
  return { seen, wire }
}

const pause = (ms: number) =>
  new Promise((resolve) => {
    setTimeout(resolve, ms)
  })

describe("a download whose path dies", () => {
  const open: Array<Wire> = []
  afterEach(() => open.splice(0).forEach((wire) => wire.close()))

  it("goes on when the client moves, with nothing missing", async () => {
    const { seen, wire } = await downloading(open)
    wire.dead.add(0)
    await pause(300) // as long as it takes to notice: by now both sides are silent
    expect(seen.bytes).toBeLessThan(TOTAL)
    expect(wire.client.migrate(SPARE_SLOT)).toBe(true)
    await until("all", () => seen.bytes === TOTAL)
    expect(wire.log.migrated).toEqual([SPARE_SLOT])
  })

  it("goes on soon though it moved twice with losses", async () => {
    // What the connector repeats on the second path arrives nowhere, either.
    const { seen, wire } = await downloading(open, ({ dead }, slot) => slot === SPARE_SLOT && dead.add(slot))
    wire.dead.add(0)
    await pause(300)
    wire.client.migrate(SPARE_SLOT)
    await until("the connector follows", () => wire.log.migrated.includes(SPARE_SLOT))
    await pause(300)
    const before = seen.bytes
    wire.client.migrate(THIRD_SLOT)
    await until("all", () => seen.bytes === TOTAL)
    expect(before).toBeLessThan(TOTAL / 2)
  })

  it("is measured truthfully after losses", async () => {
    let sender: QuicStream | null = null
    const wire = join({ delayMs: 5, onStream: (stream) => void (sender = stream) })
    open.push(wire)
    await wire.established
    const stream = wire.client.openStream()
    if (stream === null) throw new Error("no stream")
    let seen = 0
    const onReadable = () => {
      for (let got = stream.read(into); got > 0; got = stream.read(into)) seen += got
    }
    stream.handler = { onReadable, onWritable: () => undefined, onClosed: () => undefined }
    stream.write(Buffer.from("go"))
    await until("asked", () => sender !== null)
    const ignore = () => undefined
    sender!.handler = { onReadable: () => void sender!.read(into), onWritable: ignore, onClosed: ignore }
    const trickle = setInterval(() => void sender!.write(chunk.subarray(0, 20_000)), 20)
    try {
      for (let outage = 0; outage < 4; outage++) {
        await pause(150)
        wire.dead.add(0)
        await pause(60)
        wire.dead.delete(0)
        for (const session of [wire.client, wire.connector]) session.revive()
      }
      await pause(2_500)
    } finally {
      clearInterval(trickle)
    }
    const { cwndBytes, rttMs } = wire.connector.stats()
    expect(seen).toBeGreaterThan(1_000_000)
    expect(cwndBytes).toBeLessThan(120_000) // else nothing was lost, and this shows nothing
    expect(rttMs).toBeLessThan(150)
  })

  it("goes on soon after its only path returned", async () => {
    const { seen, wire } = await downloading(open)
    wire.dead.add(0)
    await pause(2_600) // long enough for QUIC's timer to back off
    wire.dead.delete(0)
    for (const session of [wire.client, wire.connector]) session.revive()
    await until("all", () => seen.bytes === TOTAL)
  })
})
