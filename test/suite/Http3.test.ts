/** HTTP/3 at the relay, against peers that are no clients of it: strangers, abusers, and networks that change under a link. */
import { Effect, Either, Queue } from "effect"
import { randomBytes } from "node:crypto"
import { createSocket, type Socket } from "node:dgram"
import { afterEach, describe, expect, it } from "vitest"
import * as Http3 from "../../src/protocol/Http3.ts"
import * as Qpack from "../../src/protocol/Qpack.ts"
import * as Varint from "../../src/protocol/Varint.ts"
import type { Link } from "../../src/transport/link/Link.ts"
import * as Kit from "./RelayLinkKit.ts"
import * as RawHttp3 from "./support/RawHttp3.ts"

const promise = <A>(run: () => Promise<A>) => Effect.promise(run)
const { ErrorCode, FrameType, Setting, StreamType } = Http3

const bytes = (...parts: ReadonlyArray<Uint8Array | number>): Buffer =>
  Buffer.concat(parts.map((part) => typeof part === "number" ? Varint.encode(part) : part))
const headers = (...fields: ReadonlyArray<readonly [string, string]>) =>
  Http3.frame(FrameType.headers, Qpack.encode(fields))
const CONTROL = bytes(StreamType.control, Http3.encodeSettings({ [Setting.h3Datagram]: 1 }))
const CONNECT = (path = "/signal") =>
  headers([":method", "CONNECT"], [":protocol", "webtransport"], [":scheme", "https"], [":authority", "localhost"], [
    ":path",
    path
  ])

/** The statuses that came on a request's stream. */
const statuses = (raw: RawHttp3.RawHttp3, stream: number): ReadonlyArray<string> =>
  Either.getOrThrow(new Http3.FrameReader(8192).push(raw.heard(stream))).flatMap(({ payload, type }) =>
    type === FrameType.headers
      ? Either.getOrThrow(Qpack.decode(payload, 8192)).flatMap(([name, value]) => (name === ":status" ? [value] : []))
      : []
  )

const raws: Array<RawHttp3.RawHttp3> = []
afterEach(() => {
  for (const raw of raws.splice(0)) raw.close()
})
const rawTo = Effect.fnUntraced(function*(server: Kit.Served, control: Uint8Array | null = CONTROL) {
  const raw = RawHttp3.open(server.port)
  raws.push(raw)
  yield* promise(() => raw.established)
  if (control !== null) raw.say(2, control)
  return raw
})
/** With an open session of the request on stream 0. */
const sessionAt = Effect.fnUntraced(function*(server: Kit.Served) {
  const raw = yield* rawTo(server)
  raw.say(0, CONNECT())
  expect(yield* promise(() => Kit.within(3000, () => statuses(raw, 0).includes("200")))).toBe(true)
  return raw
})
const echoes = Effect.fnUntraced(function*(link: Link, text = "hello") {
  yield* promise(() => link.write(Buffer.from(text)))
  expect((yield* promise(() => Kit.readBytes(link, text.length))).toString()).toBe(text)
})

describe("what a peer says", () => {
  const faults: ReadonlyArray<readonly [string, number, (raw: RawHttp3.RawHttp3) => void]> = [
    [
      "no settings first",
      ErrorCode.missingSettings,
      (raw) => raw.say(2, bytes(0, Http3.frame(FrameType.goAway, bytes(0))))
    ],
    ["settings twice", ErrorCode.frameUnexpected, (raw) => raw.say(2, bytes(CONTROL, Http3.encodeSettings({})))],
    [
      "a setting of HTTP/2",
      ErrorCode.settings,
      (raw) => raw.say(2, bytes(0, Http3.frame(FrameType.settings, bytes(2, 0))))
    ],
    ["a request on the control stream", ErrorCode.frameUnexpected, (raw) => raw.say(2, bytes(CONTROL, CONNECT()))],
    ["the end of the control stream", ErrorCode.closedCriticalStream, (raw) => raw.say(2, CONTROL, true)],
    ["two control streams", ErrorCode.streamCreation, (raw) => {
      raw.say(2, CONTROL)
      raw.say(6, CONTROL)
    }],
    ["a dynamic table", ErrorCode.qpackEncoderStream, (raw) => raw.say(6, bytes(StreamType.qpackEncoder, 0x3f))],
    ["a frame of HTTP/2", ErrorCode.frameUnexpected, (raw) => raw.say(0, Http3.frame(0x06, new Uint8Array(8)))],
    ["a frame without end", ErrorCode.excessiveLoad, (raw) => raw.say(0, bytes(FrameType.headers, 2 ** 40))],
    [
      "headers that decode to nothing",
      ErrorCode.qpackDecompression,
      (raw) => raw.say(0, Http3.frame(FrameType.headers, Uint8Array.of(0, 0, 0xff, 0xff)))
    ],
    ["a malformed request", ErrorCode.message, (raw) => raw.say(0, headers([":method", "CONNECT"], ["Upper", "case"]))],
    [
      "a stream of a session that is none",
      ErrorCode.bufferedStreamRejected,
      (raw) => raw.say(0, Http3.webTransportHead(4))
    ]
  ]
  it.each(faults)("ends the connection with the right code: %s", (_, code, say) =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve()
      const raw = yield* rawTo(server, null)
      say(raw)
      expect(yield* promise(() => Promise.race([raw.closed, Kit.sleep(5000)]))).toMatchObject({
        application: true,
        code
      })
      expect(yield* promise(() => Kit.within(3000, () => server.http3.stats.connections === 0))).toBe(true)
    })))

  it("is answered: 404 for what is no session, 429 for a second one, 404 for a path of nobody's", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve()
      const raw = yield* sessionAt(server)
      raw.say(
        4,
        headers([":method", "GET"], [":scheme", "https"], [":authority", "localhost"], [":path", "/healthz"]),
        true
      )
      raw.say(8, CONNECT())
      expect(yield* promise(() => Kit.within(3000, () => statuses(raw, 8).length === 1))).toBe(true)
      expect([statuses(raw, 4), statuses(raw, 8)]).toEqual([["404"], ["429"]])
      const lost = yield* rawTo(server)
      lost.say(0, CONNECT("/elsewhere"))
      expect(yield* promise(() => Kit.within(3000, () => statuses(lost, 0).includes("404")))).toBe(true)
    })))

  it("costs a peer its connection: a second stream of its session", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve()
      const raw = yield* sessionAt(server)
      raw.say(4, Http3.webTransportHead(0))
      raw.say(8, Http3.webTransportHead(0))
      expect(yield* promise(() => raw.closed)).toMatchObject({ code: ErrorCode.bufferedStreamRejected })
    })))

  it("is passed over: unknown streams, frames, capsules, and datagrams of no session", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve()
      const raw = yield* sessionAt(server)
      raw.say(10, bytes(0x21, randomBytes(500))) // RFC 9114, section 6.2.3
      raw.say(2, Http3.frame(0x21, randomBytes(50)))
      raw.say(0, Http3.frame(FrameType.data, bytes(0x1234, 100, randomBytes(100))))
      raw.datagram(bytes(7, randomBytes(100)))
      raw.datagram(new Uint8Array(0))
      yield* promise(() => Kit.sleep(200))
      expect(raw.isClosed()).toBe(false)
      expect(server.http3.stats).toMatchObject({ connections: 1, strangers: 0 })
    })))

  it("ends the link when its stream is reset", () =>
    Kit.run(Effect.gen(function*() {
      const links = yield* Queue.unbounded<Link>()
      const server = yield* Kit.serve({ onLink: (link) => Effect.zipRight(links.offer(link), Effect.never) })
      const raw = yield* sessionAt(server)
      raw.say(4, Http3.webTransportHead(0))
      yield* promise(() => Kit.sleep(200))
      raw.reset(4)
      const started = performance.now()
      expect(yield* promise(() => Promise.race([raw.closed, Kit.sleep(5000)]))).toMatchObject({
        code: ErrorCode.noError
      })
      expect(performance.now() - started).toBeLessThan(3000)
      expect(yield* promise(() => Kit.within(3000, () => server.stats().connections === 0))).toBe(true)
    })))
})

/** As long as an Initial is, and with its head; it cannot be opened. */
const initialLike = (version: number) =>
  Buffer.concat([
    Buffer.from([0xc3, 0, 0, 0, version, 16]),
    randomBytes(16),
    Buffer.from([0, 0, 0x44, 0x80]),
    randomBytes(1174)
  ])

describe("strangers", () => {
  it("do no harm with 20,000 datagrams of garbage, many of them like QUIC's", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve()
      const { link } = yield* Kit.connect(server, "webtransport-h3")
      const socket = createSocket("udp4")
      const before = process.memoryUsage().rss
      for (let i = 0; i < 20_000; i++) {
        const datagram = i % 3 === 0 ? initialLike(i % 5) : randomBytes(1 + i % 1400)
        if (i % 3 === 1) datagram[0] = 0x40 | (datagram[0]! & 0x3f)
        socket.send(datagram, server.port, "127.0.0.1")
        if (i % 200 === 0) yield* promise(() => Kit.sleep(1))
      }
      yield* echoes(link)
      expect(process.memoryUsage().rss - before).toBeLessThan(150 * 1024 * 1024)
      socket.close()
      expect(yield* promise(() => Kit.within(9000, () => server.http3.stats.connections === 1))).toBe(true)
      yield* echoes(link)
    })))

  it("are asked to prove their addresses when there are many, are bounded, and are cut in time", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve({ http3: { handshakeMs: 2500, strangers: 80 } })
      const silent = yield* Effect.forEach(Array.from({ length: 64 }), () => rawTo(server, null), { concurrency: 8 })
      expect(server.http3.stats).toMatchObject({ strangers: 64, retries: 0 })
      const { link } = yield* Kit.connect(server, "webtransport-h3")
      expect(server.http3.stats.retries).toBeGreaterThan(0)
      yield* echoes(link)
      const more = Array.from({ length: 30 }, () => RawHttp3.open(server.port))
      raws.push(...more)
      yield* promise(() => Kit.sleep(500))
      expect(server.http3.stats.strangers).toBeLessThanOrEqual(80)
      expect(server.http3.stats.refused.full).toBeGreaterThan(0)
      for (const raw of silent) yield* promise(() => raw.closed)
      for (const raw of more) raw.close()
      expect(server.http3.stats.refused.late).toBeGreaterThanOrEqual(64)
      expect(yield* promise(() => Kit.within(9000, () => server.http3.stats.strangers === 0))).toBe(true)
      yield* echoes(link)
    })))

  it("are refused above their rate", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve({ http3: { acceptBurst: 3, acceptsPerSecond: 0.01 } })
      for (let i = 0; i < 3; i++) yield* rawTo(server)
      const socket = createSocket("udp4")
      socket.send(initialLike(1), server.port, "127.0.0.1")
      expect(yield* promise(() => Kit.within(3000, () => server.http3.stats.refused.rate === 1))).toBe(true)
      socket.close()
    })))
})

/** A translator between a client and the server's port, whose mapping can be made to change. */
const translator = (port: number) => {
  const inside = createSocket("udp4")
  const outsides: Array<Socket> = []
  let client: { readonly port: number; readonly address: string } | undefined
  const rebind = () => {
    const outside = createSocket("udp4")
    outsides.push(outside)
    outside.on(
      "message",
      (packet) => client && outside === outsides.at(-1) && inside.send(packet, client.port, client.address)
    )
  }
  rebind()
  inside.on("message", (packet, from) => {
    client = from
    outsides.at(-1)!.send(packet, port, "127.0.0.1")
  })
  return {
    rebind,
    listen: () => new Promise<number>((resolve) => inside.bind(0, "127.0.0.1", () => resolve(inside.address().port))),
    close: () => {
      for (const socket of [inside, ...outsides]) socket.close()
    }
  }
}

describe("a link", () => {
  it("lives on when its client appears at another address, seven times", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve()
      const nat = translator(server.port)
      yield* Effect.addFinalizer(() => Effect.sync(nat.close))
      const port = yield* promise(nat.listen)
      const { link } = yield* Kit.connect({ port, authority: server.authority }, "webtransport-h3")
      expect(link.carrier).toBe("webtransport-h3")
      yield* echoes(link)
      for (let move = 0; move < 7; move++) {
        nat.rebind()
        yield* echoes(link, `after move ${move}`)
      }
      expect(server.http3.stats).toMatchObject({ connections: 1 })
    })))
})
