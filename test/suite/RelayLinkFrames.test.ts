import { RpcSerialization } from "@effect/rpc"
import { Effect, Queue } from "effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import * as Frame from "../../src/protocol/bytes/Frame.ts"
import type { Link } from "../../src/session/Link.ts"
import * as MsgPackCheck from "../../src/session/MsgPackCheck.ts"
import { FrameReader, MAX_BACKLOG_BYTES, RelayLinkFrames } from "../../src/transport/link/RelayLinkFrames.ts"
import { runs } from "../support/Runs.ts"
import * as Kit from "./RelayLinkKit.ts"

const frameOf = (tag: number, payload: Uint8Array) => {
  const frame = new Uint8Array(Frame.RELAYED_HEAD_BYTES + payload.length)
  Frame.writeRelayedHead(frame, 0, frame.length, tag)
  frame.set(payload, Frame.RELAYED_HEAD_BYTES)
  return frame
}
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex")

describe("FrameReader", () => {
  it("gives back every frame, however the stream is cut", () => {
    fc.assert(fc.property(
      fc.array(
        fc.oneof(
          fc.uint8Array({ maxLength: 40 }),
          fc.uint8Array({ minLength: 1000, maxLength: Frame.MAX_FRAME_BYTES - 8 })
        ),
        { maxLength: 20 }
      ),
      fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 9 }),
      (payloads, sizes) => {
        const frames = payloads.map((payload, i) => frameOf(i, payload))
        const stream = Buffer.concat(frames)
        const got: Array<string> = []
        const reader = new FrameReader((frame) => got.push(hex(frame)))
        for (let at = 0, i = 0; at < stream.length; at += sizes[i % sizes.length]!, i++) {
          expect(reader.push(stream.subarray(at, at + sizes[i % sizes.length]!))).toBe(true)
        }
        expect(got).toEqual(frames.map(hex))
      }
    ))
  })

  it("refuses anything but relayed frames, at its first bytes", () => {
    const push = (...bytes: Array<number>) =>
      new FrameReader(() => {}).push(Uint8Array.from(bytes)) ? "taken" : "refused"
    expect(push(0x30, 20)).toBe("refused")
    expect(push(0x20, 7)).toBe("refused")
    expect(push(0x00)).toBe("refused")
    const inTwo = new FrameReader(() => {})
    expect(inTwo.push(Uint8Array.of(0x20))).toBe(true)
    expect(inTwo.push(Uint8Array.of(3))).toBe(false)
  })

  it("never throws or yields a frame of the wrong length", () => {
    fc.assert(fc.property(fc.array(fc.uint8Array({ maxLength: 50 }), { maxLength: 10 }), (pieces) => {
      const reader = new FrameReader((frame) => expect(Frame.lengthAt(frame, 0)).toBe(frame.length))
      for (const piece of pieces) if (!reader.push(piece)) return
    }))
  })
})

const pairOver = (carrier: Kit.CarrierName) =>
  Effect.gen(function*() {
    const links = yield* Queue.unbounded<Link>()
    const server = yield* Kit.serve({ onLink: (link) => Effect.zipRight(links.offer(link), Effect.never) })
    const { link: client } = yield* Kit.connect(server, carrier, { purpose: "relay" })
    return { client, server: yield* links.take }
  })

describe.each(["websocket", "webtransport"] as const)("relayed frames over the stream of %s", (carrier) => {
  const pair = pairOver(carrier)

  it("arrive whole and in order, both ways", () =>
    Kit.run(Effect.gen(function*() {
      const { client, server } = yield* pair
      const got: Array<string> = []
      const back = new RelayLinkFrames(server, (frame) => void back.send(frame)) // the sender may reuse what it gave
      const frames = new RelayLinkFrames(client, (frame) => got.push(hex(frame)))
      const sent: Array<string> = []
      const scratch = new Uint8Array(1300)
      for (let i = 0; i < 2000; i++) {
        const length = 8 + (i * 37) % 1292
        Frame.writeRelayedHead(scratch, 0, length, i)
        scratch.fill(i, 8, length)
        sent.push(hex(scratch.subarray(0, length)))
        expect(frames.send(scratch.subarray(0, length))).toBe(true)
        if (i % 100 === 99) yield* Effect.promise(() => Kit.sleep(2))
      }
      yield* Effect.promise(() => Kit.within(Kit.HANG_MS, () => got.length === sent.length))
      expect(got).toEqual(sent)
      expect(frames.counters).toEqual({ sent: 2000, received: 2000, dropped: 0 })
    })))

  it("are dropped and counted above the backlog, then flow again", () =>
    Kit.run(Effect.gen(function*() {
      const { client, server } = yield* pair
      const frames = new RelayLinkFrames(client, () => {})
      const frame = frameOf(7, new Uint8Array(1200))
      let most = 0
      for (let i = 0; i < 60_000; i++) { // 72 MB at a peer that does not read
        frames.send(frame)
        if (i % 500 === 0) {
          yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
          most = Math.max(most, client.bufferedBytes())
        }
      }
      expect(frames.counters.dropped).toBeGreaterThan(1000)
      expect(most).toBeLessThanOrEqual(MAX_BACKLOG_BYTES + 64 * 1024)
      let received = 0
      const reading = new RelayLinkFrames(server, () => received++)
      expect(yield* Effect.promise(() => Kit.within(Kit.HANG_MS, () => received === frames.counters.sent))).toBe(true)
      expect(frames.send(frame)).toBe(true)
      expect(
        yield* Effect.promise(() => Kit.within(Kit.HANG_MS, () => reading.counters.received === frames.counters.sent))
      )
        .toBe(true)
    })))

  it("close a link that carries anything else", () =>
    Kit.run(Effect.gen(function*() {
      const { client, server } = yield* pair
      void new RelayLinkFrames(server, () => {})
      yield* Effect.promise(() => client.write(Uint8Array.of(0x40, 1, 2, 3)))
      expect(yield* Effect.promise(() => client.closed)).toMatchObject({ by: "peer", code: 1002 })
    })))
})

describe("relayed frames over the datagrams of HTTP/3", () => {
  const pair = pairOver("webtransport-h3")

  it("use datagrams once the largest fits, without loss or duplicates", () =>
    Kit.run(Effect.gen(function*() {
      const { client, server } = yield* pair
      const got = new Set<string>()
      const back = new RelayLinkFrames(server, (frame) => void back.send(frame))
      const frames = new RelayLinkFrames(client, (frame) => {
        expect(got.has(hex(frame))).toBe(false)
        got.add(hex(frame))
      })
      const sent: Array<string> = []
      for (let i = 1; i <= 2000; i++) {
        const frame = frameOf(i, new Uint8Array((i * 37) % 1201).fill(i))
        sent.push(hex(frame))
        expect(frames.send(frame)).toBe(true)
        if (i === 1000) expect(yield* Effect.promise(() => Kit.within(Kit.HANG_MS, () => isReady(client)))).toBe(true)
        if (i % 50 === 0) yield* Effect.promise(() => Kit.sleep(4))
      }
      expect(yield* Effect.promise(() => Kit.within(Kit.HANG_MS, () => got.size === sent.length))).toBe(true)
      expect([...got].sort()).toEqual(sent.sort())
      expect(isReady(server)).toBe(true)
    })))

  it("fit their carrier, except the relay's own messages", () =>
    Kit.run(Effect.gen(function*() {
      const { client, server } = yield* pair
      const got: Array<number> = []
      void new RelayLinkFrames(server, (frame) => got.push(frame.length))
      const frames = new RelayLinkFrames(client, () => {})
      for (const wait of [false, true]) {
        if (wait) expect(yield* Effect.promise(() => Kit.within(Kit.HANG_MS, () => isReady(client)))).toBe(true)
        expect(frames.send(frameOf(7, new Uint8Array(1201)))).toBe(false)
        expect(frames.send(frameOf(7, new Uint8Array(1200)))).toBe(true)
        expect(frames.send(frameOf(0, new Uint8Array(3000)))).toBe(true)
      }
      expect(yield* Effect.promise(() => Kit.within(Kit.HANG_MS, () => got.length === 4))).toBe(true)
      expect(got.sort((a, b) => a - b)).toEqual([1208, 1208, 3008, 3008])
    })))

  it("are dropped without room, with bounded memory, then flow again", () =>
    Kit.run(Effect.gen(function*() {
      const { client, server } = yield* pair
      let received = 0
      void new RelayLinkFrames(server, () => received++)
      const frames = new RelayLinkFrames(client, () => {})
      expect(yield* Effect.promise(() => Kit.within(Kit.HANG_MS, () => isReady(client)))).toBe(true)
      const frame = frameOf(7, new Uint8Array(1200))
      const before = process.memoryUsage()
      for (let i = 0; i < 60_000; i++) { // 72 MB in an instant
        frames.send(frame)
        if (i % 5000 === 0) yield* Effect.promise(() => Kit.sleep(0))
      }
      const after = process.memoryUsage()
      expect(after.external - before.external).toBeLessThan(32 * 1024 * 1024) // array buffers among them
      yield* Effect.promise(() => Kit.sleep(500))
      expect(received).toBeGreaterThan(100)
      expect(received).toBeLessThan(59_000)
      const soFar = received
      for (let i = 0; i < 20; i++) {
        frames.send(frame)
        yield* Effect.promise(() => Kit.sleep(10))
      }
      expect(yield* Effect.promise(() => Kit.within(Kit.HANG_MS, () => received >= soFar + 20))).toBe(true)
    })))
})

const isReady = (link: Link) => link.datagrams?.isReady === true

/** How many values a decoded one has in it, itself included. */
const valuesIn = (value: unknown): number => {
  if (value instanceof Map) return [...value].reduce((sum, [k, v]) => sum + valuesIn(k) + valuesIn(v), 1)
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return 1
  return Object.values(value).reduce((sum: number, it) => sum + valuesIn(it), 1)
}

describe("MsgPackCheck", () => {
  const parser = RpcSerialization.makeMsgPack({ useRecords: false }).unsafeMake()

  it("passes whatever the encoder makes of messages", () => {
    const value = fc.letrec((tie) => ({
      any: fc.oneof(
        { depthSize: "medium" },
        fc.constantFrom(null, undefined, true, false),
        fc.integer(),
        fc.double(),
        fc.string({ maxLength: 400 }),
        fc.uint8Array({ maxLength: 400 }),
        fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
        fc.array(tie("any"), { maxLength: 20 }),
        fc.dictionary(fc.string({ maxLength: 20 }), tie("any"), { maxKeys: 20 })
      )
    })).any
    fc.assert(fc.property(value, (value) => {
      const bytes = parser.encode(value) as Uint8Array
      expect(MsgPackCheck.isOneValue(bytes)).toBe(true)
      expect(MsgPackCheck.isOneValue(bytes.slice(0, -1))).toBe(false)
      expect(MsgPackCheck.isOneValue(Uint8Array.from([...bytes, 0xc0]))).toBe(false)
    }))
  })

  it("bounds the decoder's cost, and never throws", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        if (!MsgPackCheck.isOneValue(bytes)) return
        let value: unknown
        try {
          value = parser.decode(bytes)
        } catch {
          return // refused by the decoder: as good
        }
        expect(valuesIn(value)).toBeLessThanOrEqual(bytes.length + 1) // the parser puts them into a list
      }),
      { numRuns: runs(5000) }
    )
    expect(MsgPackCheck.isOneValue(Uint8Array.of(0xdd, 1, 0xff, 0xff, 0xff))).toBe(false)
    const nested = Uint8Array.from(Array.from({ length: 9000 }, (_, i) => [0xdc, 0x10, 0x00][i % 3]!))
    expect(MsgPackCheck.isOneValue(nested)).toBe(false)
    expect(MsgPackCheck.isOneValue(new Uint8Array(0))).toBe(false)
  })
})
