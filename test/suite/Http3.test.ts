/** HTTP/3 at the relay, against peers that are no clients of it: strangers, abusers, and networks that change under a link. */
import { Effect, Either, Fiber, Queue } from "effect"
import { randomBytes } from "node:crypto"
import { createSocket, type Socket } from "node:dgram"
import { afterEach, describe, expect, it } from "vitest"
import * as Varint from "../../src/protocol/bytes/Varint.ts"
import * as Http3 from "../../src/protocol/http3/Http3.ts"
import * as Qpack from "../../src/protocol/http3/Qpack.ts"
import type { Link } from "../../src/session/Link.ts"
import * as QuicheHttp3 from "../../src/transport/http3/QuicheHttp3.ts"
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
  expect(yield* promise(() => Kit.within(Kit.HANG_MS, () => statuses(raw, 0).includes("200")))).toBe(true)
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
      expect(yield* promise(() => Promise.race([raw.closed, Kit.sleep(Kit.HANG_MS)]))).toMatchObject({
        application: true,
        code
      })
      expect(yield* promise(() => Kit.within(Kit.HANG_MS, () => server.http3.stats.connections === 0))).toBe(true)
    })))

  it("answers 404 or 429 to what is no valid session", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve()
      const raw = yield* sessionAt(server)
      raw.say(
        4,
        headers([":method", "GET"], [":scheme", "https"], [":authority", "localhost"], [":path", "/healthz"]),
        true
      )
      raw.say(8, CONNECT())
      expect(yield* promise(() => Kit.within(Kit.HANG_MS, () => statuses(raw, 8).length === 1))).toBe(true)
      expect([statuses(raw, 4), statuses(raw, 8)]).toEqual([["404"], ["429"]])
      const lost = yield* rawTo(server)
      lost.say(0, CONNECT("/elsewhere"))
      expect(yield* promise(() => Kit.within(Kit.HANG_MS, () => statuses(lost, 0).includes("404")))).toBe(true)
    })))

  it("closes a peer's connection for a second session stream", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve()
      const raw = yield* sessionAt(server)
      raw.say(4, Http3.webTransportHead(0))
      raw.say(8, Http3.webTransportHead(0))
      expect(yield* promise(() => raw.closed)).toMatchObject({ code: ErrorCode.bufferedStreamRejected })
    })))

  it("ignores unknown streams, frames, capsules and foreign datagrams", () =>
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
      expect(yield* promise(() => Promise.race([raw.closed, Kit.sleep(Kit.HANG_MS)]))).toMatchObject({
        code: ErrorCode.noError
      })
      expect(yield* promise(() => Kit.within(Kit.HANG_MS, () => server.stats().connections === 0))).toBe(true)
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

describe("a session", () => {
  it.each([
    ["a scheme that is no web's", ":x", "x"],
    ["a path that is none", "relay", "https"]
  ])("is not had by %s, and the relay goes on", (_, path, scheme) =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve()
      const raw = yield* rawTo(server)
      raw.say(
        0,
        headers([":method", "CONNECT"], [":protocol", "webtransport"], [":scheme", scheme], [":authority", "a"], [
          ":path",
          path
        ])
      )
      yield* promise(() => Promise.race([raw.closed, Kit.within(Kit.HANG_MS, () => statuses(raw, 0).length > 0)]))
      expect(statuses(raw, 0)).not.toContain("200")
      const { link } = yield* Kit.connect(server, "webtransport-h3")
      yield* echoes(link)
    })))

  it.each([
    [2000, "a code that WebSocket lacks", 1000, "a code that WebSocket lacks"],
    [999_999, "another", 1000, "another"],
    [1000, "\u20ac".repeat(100), 1000, "\u20ac".repeat(41)],
    [3999, "ours", 3999, "ours"]
  ])(
    "may end with any code and reason: %s %s",
    (code, reason, heardCode, heardReason) =>
      Kit.run(Effect.gen(function*() {
        const links = yield* Queue.unbounded<Link>()
        const server = yield* Kit.serve({ onLink: (link) => Effect.zipRight(links.offer(link), Effect.never) })
        const { link: client } = yield* Kit.connect(server, "webtransport-h3")
        const link = yield* links.take
        client.close(reason, code)
        expect(yield* promise(() => link.closed)).toEqual({ by: "peer", code: heardCode, reason: heardReason })
        const { link: other } = yield* Kit.connect(server, "webtransport-h3")
        const back = yield* links.take
        back.close(reason, code)
        expect(yield* promise(() => other.closed)).toEqual({ by: "peer", code: heardCode, reason: heardReason })
      }))
  )

  it("lets a fast reader pause while its window is full", () =>
    Kit.run(Effect.gen(function*() {
      const links = yield* Queue.unbounded<Link>()
      const server = yield* Kit.serve({ onLink: (link) => Effect.zipRight(links.offer(link), Effect.never) })
      const { link: client } = yield* Kit.connect(server, "webtransport-h3")
      const link = yield* links.take
      const piece = new Uint8Array(64 * 1024)
      const pauses = 12
      let written = 0
      const writing = yield* Effect.fork(promise(async () => {
        for (; written < 16 * (24 + 3 * pauses); written++) await client.write(piece)
      }))
      yield* promise(() => Kit.readBytes(link, 24 * 1024 * 1024)) // the window has grown to its largest size
      for (let pause = 0; pause < pauses; pause++) {
        for (let before = -1; before !== written;) {
          before = written
          yield* promise(() => Kit.sleep(100))
        }
        yield* promise(() => Kit.readBytes(link, 3 * 1024 * 1024 - 20_000 * pause))
      }
      yield* promise(() => Kit.readBytes(link, 20_000 * pauses * (pauses - 1) / 2))
      yield* Fiber.join(writing)
    })))

  it("ends for the hub, too, when its peer reads nothing", () =>
    Kit.run(Effect.gen(function*() {
      const links = yield* Queue.unbounded<Link>()
      const server = yield* Kit.serve({
        http3: { stuckMs: 500 },
        onLink: (link) => Effect.zipRight(links.offer(link), Effect.never)
      })
      yield* Kit.connect(server, "webtransport-h3") // never read
      const link = yield* links.take
      const writing = promise(async () => {
        for (let i = 0; i < 200; i++) await link.write(new Uint8Array(64 * 1024))
      }).pipe(Effect.exit)
      yield* Effect.timeout(writing, Kit.HANG_MS)
      expect(yield* promise(() => link.closed)).toMatchObject({ by: "network" })
      expect(yield* promise(() => Kit.within(Kit.HANG_MS, () => server.http3.stats.connections === 0))).toBe(true)
    })))

  it("ends a peer that sends empty or endless frames", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve()
      for (
        const [stream, frame] of [[0, Http3.frame(FrameType.data, new Uint8Array(0))], [
          2,
          Http3.frame(0x21, randomBytes(9))
        ]] as const
      ) {
        const raw = yield* sessionAt(server)
        const many = Buffer.concat(Array.from({ length: 20_000 }, () => frame)).subarray(0, 40_000)
        for (let i = 0; i < 4 && !raw.isClosed(); i++) {
          raw.say(stream, many.subarray(0, many.length - many.length % frame.length))
          yield* promise(() => Kit.sleep(100))
        }
        expect(yield* promise(() => Promise.race([raw.closed, Kit.sleep(Kit.HANG_MS)]))).toMatchObject({
          code: ErrorCode.excessiveLoad
        })
      }
    })))
})

describe("strangers", () => {
  it("get at most three times what they sent until proved", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve({ http3: { handshakeMs: 2000 } })
      const socket = createSocket("udp4")
      let received = 0
      socket.on("message", ({ length }) => (received += length))
      const quic = QuicheHttp3.connect(QuicheHttp3.clientConfig(null), "localhost")
      const hello = Buffer.alloc(1500)
      const length = quic.send(hello)
      socket.send(hello.subarray(0, length), server.port, "127.0.0.1")
      yield* promise(() => Kit.sleep(3000))
      expect(received).toBeGreaterThan(length / 2)
      expect(received).toBeLessThanOrEqual(3 * length)
      expect(server.http3.stats).toMatchObject({ connections: 0, strangers: 0, refused: { late: 1 } })
      socket.close()
    })))

  it("do no harm with 20,000 datagrams of garbage", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve()
      const { link } = yield* Kit.connect(server, "webtransport-h3")
      const socket = createSocket("udp4")
      const before = process.memoryUsage().rss
      for (let i = 0; i < 20_000; i++) {
        const datagram = i % 3 === 0 ? initialLike(i % 5) : randomBytes(1 + i % 1400)
        if (i % 3 === 1) datagram[0] = 0x40 | (datagram[0]! & 0x3f)
        socket.send(datagram, server.port, "127.0.0.1")
        if (i % 200 === 0) yield* echoes(link) // so that the server has read what came before, however busy this host is
      }
      expect(process.memoryUsage().rss - before).toBeLessThan(150 * 1024 * 1024)
      socket.close()
      expect(yield* promise(() => Kit.within(Kit.HANG_MS, () => server.http3.stats.connections === 1))).toBe(true)
      yield* echoes(link)
    })))

  it("must prove their addresses if many, and are bounded", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve({ http3: { handshakeMs: Kit.HANG_MS, strangers: 80 } })
      yield* Effect.forEach(Array.from({ length: 64 }), () => rawTo(server, null), { concurrency: 8 })
      expect(server.http3.stats).toMatchObject({ strangers: 64, retries: 0 })
      const { link } = yield* Kit.connect(server, "webtransport-h3")
      expect(server.http3.stats.retries).toBeGreaterThan(0)
      yield* echoes(link)
      raws.push(...Array.from({ length: 30 }, () => RawHttp3.open(server.port)))
      expect(yield* promise(() => Kit.within(Kit.HANG_MS, () => server.http3.stats.refused.full > 0))).toBe(true)
      expect(server.http3.stats.strangers).toBeLessThanOrEqual(80)
      yield* echoes(link)
    })))

  it("are forgotten if they stay silent", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve({ http3: { handshakeMs: 2_000 } })
      const silent = yield* Effect.forEach(Array.from({ length: 8 }), () => rawTo(server, null), { concurrency: 8 })
      for (const raw of silent) yield* promise(() => raw.closed)
      expect(server.http3.stats.refused.late).toBe(8)
      expect(yield* promise(() => Kit.within(Kit.HANG_MS, () => server.http3.stats.strangers === 0))).toBe(true)
    })))

  it("are refused above their rate", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve({ http3: { acceptBurst: 3, acceptsPerSecond: 0.01 } })
      for (let i = 0; i < 3; i++) yield* rawTo(server)
      const socket = createSocket("udp4")
      socket.send(initialLike(1), server.port, "127.0.0.1")
      expect(yield* promise(() => Kit.within(Kit.HANG_MS, () => server.http3.stats.refused.rate === 1))).toBe(true)
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
  let last = Buffer.alloc(0)
  inside.on("message", (packet, from) => {
    client = from
    last = packet
    outsides.at(-1)!.send(packet, port, "127.0.0.1")
  })
  return {
    rebind,
    /** The client's last packet. */
    last: () => last,
    listen: () => new Promise<number>((resolve) => inside.bind(0, "127.0.0.1", () => resolve(inside.address().port))),
    close: () => {
      for (const socket of [inside, ...outsides]) socket.close()
    }
  }
}

describe("a link", () => {
  it("keeps its client's paths despite look-alike packets", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve()
      const nat = translator(server.port)
      yield* Effect.addFinalizer(() => Effect.sync(nat.close))
      const port = yield* promise(nat.listen)
      const { link } = yield* Kit.connect({ port, authority: server.authority }, "webtransport-h3")
      yield* echoes(link)
      for (let i = 0; i < 10; i++) {
        const other = createSocket("udp4")
        const forged = Buffer.concat([nat.last().subarray(0, 17), randomBytes(60)])
        yield* promise(() => new Promise((resolve) => other.send(forged, server.port, "127.0.0.1", resolve)))
        yield* promise(() => Kit.sleep(20))
        other.close()
      }
      nat.rebind()
      yield* echoes(link, "still here")
      expect(server.http3.stats).toMatchObject({ connections: 1 })
    })))

  it("survives when its client's address changes seven times", () =>
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
