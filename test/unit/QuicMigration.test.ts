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

interface Hooks {
  readonly onMigrated?: (wire: Wire, slot: number) => void
  /** Called as soon as the client's check of a path has succeeded. */
  readonly onValidated?: (wire: Wire, slot: number) => void
}

const downloading = async (open: Array<Wire>, { onMigrated, onValidated }: Hooks = {}) => {
  const onPeerMigrated = (slot: number) => {
    wire.log.migrated.push(slot)
    onMigrated?.(wire, slot)
  }
  const onPathValidated = (slot: number) => {
    wire.log.validated.client.push(slot)
    onValidated?.(wire, slot)
  }
  const wire = join({ delayMs: 5, onStream: upload, client: { onPathValidated }, connector: { onPeerMigrated } })
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
  return { seen, stream, wire }
}

const pause = (ms: number) =>
  new Promise((resolve) => {
    setTimeout(resolve, ms)
  })

/** Reports every 50 ms to both sessions that their path answers, as pings and pongs do. */
const reportAlive = (wire: Wire) =>
  setInterval(() => {
    for (const session of [wire.client, wire.connector]) session.onPathAlive()
  }, 50)

const isOver = ({ log }: Wire) => log.closed.client !== null || log.closed.connector !== null

/** Moves a download at random among six slots, of which up to three are dead, and then lets it end. */
const wander = async (seed: number, open: Array<Wire>) => {
  let state = seed * 7919 + 1
  const roll = () => (state = (state * 1103515245 + 12345) & 0x7fffffff) / 0x7fffffff
  let sent = 0
  let seen = 0
  const answers: Array<QuicStream> = []
  const onStream = (stream: QuicStream) => {
    answers.push(stream)
    stream.handler = {
      onReadable: () => void stream.read(into),
      onWritable: () => undefined,
      onClosed: () => undefined
    }
  }
  const wire = join({ delayMs: 3, loss: 0.02, onStream, reorder: 0.3, seed })
  open.push(wire)
  await wire.established
  for (let slot = 1; slot < 6; slot += 1) {
    for (const session of [wire.client, wire.connector]) session.pointSlot(slot, { headBytes: 2, maxPacket: 1440 })
  }
  const stream = wire.client.openStream()
  if (stream === null) throw new Error("no stream")
  const onReadable = () => {
    for (let got = stream.read(into); got > 0; got = stream.read(into)) seen += got
  }
  stream.handler = { onReadable, onWritable: () => undefined, onClosed: () => undefined }
  stream.write(Buffer.from("go"))
  const alive = reportAlive(wire)
  for (let step = 0; step < 300 && !isOver(wire); step += 1) {
    const slot = Math.floor(roll() * 6)
    const choice = roll()
    if (choice < 0.3) wire.client.probeSlot(slot)
    else if (choice < 0.8) void (wire.client.isValidated(slot) && wire.client.migrate(slot))
    else if (choice < 0.9 && wire.dead.size < 3) wire.dead.add(slot)
    else wire.dead.clear()
    sent += Math.max(0, answers.at(-1)?.write(chunk.subarray(0, 20_000)) ?? 0)
    await pause(roll() * 20)
  }
  wire.dead.clear()
  wire.impair({ loss: 0 })
  await until("all", () => seen === sent || isOver(wire)).finally(() => clearInterval(alive))
  return { closed: wire.log.closed, isComplete: seen === sent && sent > 1_000_000 }
}

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
    const { seen, wire } = await downloading(open, {
      onMigrated: ({ dead }, slot) => slot === SPARE_SLOT && dead.add(slot)
    })
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
    // an estimate that feeds itself would reach many seconds
    expect(rttMs).toBeLessThan(100 + 4 * wire.log.slowestMs)
  })

  it("goes on by a path that failed the connector's check", async () => {
    // The client's answers to the connector's path challenges are lost, so the connector gives up the path.
    const { seen, stream, wire } = await downloading(open, { onValidated: ({ dead }, slot) => dead.add(slot) })
    wire.dead.add(0)
    await pause(1_500)
    expect(wire.log.validated.connector).toEqual([])
    wire.dead.delete(SPARE_SLOT)
    expect(wire.client.migrate(SPARE_SLOT)).toBe(true)
    stream.write(chunk) // several packets arrive at once
    const alive = reportAlive(wire)
    await until("all", () => seen.bytes === TOTAL || isOver(wire)).finally(() => clearInterval(alive))
    expect(wire.log.closed.connector).toBeNull()
    expect(wire.log.migrated).toEqual([SPARE_SLOT])
  })

  it("ends by itself only, however its paths change", async () => {
    const walks = await Promise.all(Array.from({ length: 20 }, (_, seed) => wander(seed + 1, open)))
    expect(walks.filter(({ isComplete }) => !isComplete)).toEqual([])
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
