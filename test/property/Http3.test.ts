import { assert, describe, it } from "@effect/vitest"
import { Either, FastCheck as fc } from "effect"
import { Buffer } from "node:buffer"
import * as Varint from "../../src/protocol/bytes/Varint.ts"
import * as Http3 from "../../src/protocol/http3/Http3.ts"
import { runs } from "../support/Runs.ts"

const { Capsule, ErrorCode, FrameType, Setting } = Http3
type Fields = ReadonlyArray<readonly [string, string]>
type Reader = Http3.FrameReader | Http3.CapsuleReader

const hex = (text: string) => Uint8Array.from(Buffer.from(text.replace(/\s/g, ""), "hex"))
const concat = (parts: ReadonlyArray<Uint8Array>) => Uint8Array.from(Buffer.concat(parts))
const codeOf = <A>(result: Either.Either<A, Http3.Http3Fault>): number =>
  Either.match(result, { onLeft: (fault) => fault.code, onRight: () => 0 })
/** What comes of the pieces of a stream, one after the other. */
const readAll = (reader: Reader, pieces: ReadonlyArray<Uint8Array>): ReadonlyArray<Http3.Frame> =>
  pieces.flatMap((piece) => [...Either.getOrThrow(reader.push(piece))])
/** As text, so that it is quick to compare. */
const textOf = (frames: ReadonlyArray<Http3.Frame>): string =>
  frames.map(({ payload, type }) => `${type}:${Buffer.from(payload).toString("hex")}`).join(" ")

const HEAD_BYTES = 16 // the longest type and length
const KNOWN_TYPES = [0x00, 0x01, 0x03, 0x04, 0x05, 0x07, 0x0d]
const UNKNOWN_TYPES = [0x21, 0x40, 0xf0700, 0x1f * 123_456_789 + 0x21]
const integer = fc.oneof(fc.nat(70), fc.nat(0x8000), fc.nat(), fc.maxSafeNat())
const payload = fc.oneof(fc.uint8Array({ maxLength: 5 }), fc.uint8Array({ minLength: 60, maxLength: 70 }))
const frameOf = (...types: ReadonlyArray<number>) =>
  fc.record({ type: fc.constantFrom(...types), payload: fc.oneof(payload, fc.constant(new Uint8Array(600).fill(7))) })
const noise = fc.uint8Array({ maxLength: 40 })
const mutated = (sources: ReadonlyArray<Uint8Array>) =>
  fc.tuple(fc.constantFrom(...sources), noise, fc.nat()).map(([source, noise, at]) => {
    const bytes = source.slice()
    for (let i = 0; i + 1 < noise.length; i += 8) bytes[(at + noise[i]!) % bytes.length] = noise[i + 1]!
    return bytes
  })

const GET: Fields = [
  [":method", "GET"],
  [":scheme", "https"],
  [":authority", "[2001:db8::1]:4433"],
  [":path", "/app?x=1&y=%20|"],
  ["user-agent", "Mozilla/5.0 (X11; Linux x86_64)\tcaf\u{e9}"],
  ["te", "trailers"],
  ["x-empty", ""]
]
const SESSION: Fields = [
  [":method", "CONNECT"],
  [":scheme", "https"],
  [":authority", "127.0.0.1:4433"],
  [":path", "/sallyport"],
  [":protocol", "webtransport"],
  ["origin", "https://app.example"]
]
const without = (fields: Fields, name: string): Fields => fields.filter((field) => field[0] !== name)
const replaced = (fields: Fields, name: string, value: string): Fields =>
  fields.map((field) => field[0] === name ? [name, value] : field)

describe("Varint", () => {
  it("reads and writes the examples of RFC 9000, appendix A.1", () => {
    const examples: ReadonlyArray<readonly [string, number]> = [["25", 37], ["7bbd", 15_293], ["9d7f3e7d", 494_878_333]]
    for (const [bytes, value] of examples) {
      assert.deepStrictEqual(Varint.read(hex(bytes), 0), { value, end: bytes.length / 2 })
      assert.deepStrictEqual(Varint.encode(value), hex(bytes))
    }
    assert.deepStrictEqual(Varint.read(hex("4025"), 0), { value: 37, end: 2 })
    assert.deepStrictEqual(Varint.read(hex("c2197c5eff14e88c"), 0), { value: Number.MAX_SAFE_INTEGER, end: 8 })
    assert.deepStrictEqual(Varint.read(hex("c020000000000000"), 0)?.value, Number.MAX_SAFE_INTEGER)
    assert.deepStrictEqual(Varint.read(hex("c01ffffffffffffe"), 0)?.value, Number.MAX_SAFE_INTEGER - 1)
  })

  it("reads what it writes, in the fewest bytes", () =>
    fc.assert(fc.property(integer, fc.nat(5), (value, at) => {
      const size = Varint.sizeOf(value)
      const bytes = new Uint8Array(at + size)
      assert.strictEqual(Varint.write(bytes, at, value), at + size)
      assert.deepStrictEqual(Varint.read(bytes, at), { value, end: at + size })
      assert.isNull(Varint.read(bytes.subarray(0, at + size - 1), at))
      assert.isTrue(size === 1 || value >= 2 ** (4 * size - 2)) // it fits no smaller size
    })))
})

describe("Http3 frames", () => {
  it("yields the same frames wherever the stream is cut", () =>
    fc.assert(
      fc.property(fc.array(frameOf(...KNOWN_TYPES, ...UNKNOWN_TYPES), { maxLength: 5 }), (frames) => {
        const stream = concat(frames.map(({ payload, type }) => Http3.frame(type, payload)))
        const known = textOf(frames.filter(({ type }) => KNOWN_TYPES.includes(type)))
        let end = 0
        const ends = new Set([0, ...frames.map(({ payload, type }) => end += Http3.frame(type, payload).length)])
        const bytewise = new Http3.FrameReader(600)
        assert.strictEqual(textOf(readAll(bytewise, Array.from(stream, (byte) => Uint8Array.of(byte)))), known)
        assert.isFalse(bytewise.isPartial)
        for (let cut = 0; cut <= stream.length; cut++) {
          const reader = new Http3.FrameReader(600)
          const first = readAll(reader, [stream.subarray(0, cut)])
          if (reader.isPartial === ends.has(cut)) assert.fail(`isPartial is wrong at ${cut}`)
          const all = [...first, ...readAll(reader, [stream.subarray(cut)])]
          if (textOf(all) !== known) assert.fail(`other frames when cut at ${cut}`)
        }
      }),
      { numRuns: runs(20) }
    ))

  it("skips an unknown frame of any length, and keeps nothing", () => {
    const reader = new Http3.FrameReader(100)
    const head = concat([Varint.encode(0x21), Varint.encode(2 ** 22)])
    assert.deepStrictEqual(Either.getOrThrow(reader.push(head)), [])
    for (let i = 0; i < 64; i++) {
      assert.deepStrictEqual(Either.getOrThrow(reader.push(new Uint8Array(2 ** 16))), [])
      assert.strictEqual(reader.heldBytes, 0)
    }
    assert.isFalse(reader.isPartial)
    assert.strictEqual(textOf(readAll(reader, [hex("0001aa")])), "0:aa")
    assert.deepStrictEqual(Either.getOrThrow(reader.push(hex("21 ffffffffffffffff"))), [])
    assert.deepStrictEqual(Either.getOrThrow(reader.push(new Uint8Array(2 ** 16))), [])
  })

  it("refuses a frame over the limit before it allocates anything", () => {
    for (const Reader of [Http3.FrameReader, Http3.CapsuleReader]) {
      const type = Reader === Http3.FrameReader ? FrameType.data : Capsule.closeSession
      const most = Http3.frame(type, new Uint8Array(70_000))
      assert.strictEqual(codeOf(new Reader(69_999).push(most.subarray(0, 8))), ErrorCode.excessiveLoad)
      const reader = new Reader(70_000)
      assert.strictEqual(codeOf(reader.push(most.subarray(0, 9))), 0)
      assert.isAtMost(reader.heldBytes, 1024)
      assert.deepStrictEqual(readAll(reader, [most.subarray(9)])[0]?.payload.length, 70_000)
      assert.strictEqual(reader.heldBytes, 0)
    }
  })

  it("refuses HTTP/2's frames, and a session's stream inside a stream", () => {
    for (const type of [0x02, 0x06, 0x08, 0x09]) {
      const stream = concat([Http3.frame(FrameType.data, hex("aa")), Http3.frame(type, new Uint8Array(0))])
      assert.strictEqual(codeOf(new Http3.FrameReader(100).push(stream)), ErrorCode.frameUnexpected)
    }
    assert.strictEqual(codeOf(new Http3.FrameReader(100).push(Http3.webTransportHead(4))), ErrorCode.frame)
  })

  it("tells a request from a stream of a session", () => {
    assert.deepStrictEqual(Http3.webTransportHead(4), hex("404104"))
    assert.deepStrictEqual(Http3.bidiHead(hex("404104ff")), { _tag: "WebTransport", session: 4, end: 3 })
    assert.deepStrictEqual(Http3.bidiHead(hex("01")), { _tag: "Request" })
    fc.assert(fc.property(integer, noise, (session, rest) => {
      const head = Http3.webTransportHead(session)
      assert.deepStrictEqual(Http3.bidiHead(concat([head, rest])), {
        _tag: "WebTransport",
        session,
        end: head.length
      })
      for (let length = 0; length < head.length; length++) assert.isNull(Http3.bidiHead(head.subarray(0, length)))
    }))
  })
})

describe("Http3 settings", () => {
  const setting = fc.tuple(integer.filter((id) => id > 0x33 && id < Number.MAX_SAFE_INTEGER), integer)

  it("decodes a SETTINGS payload that it encoded", () => {
    assert.deepStrictEqual(
      Http3.encodeSettings({ [Setting.enableConnectProtocol]: 1, [Setting.enableWebTransportDraft02]: 1 }),
      hex("04 07 0801 ab603742 01")
    )
    fc.assert(fc.property(fc.uniqueArray(setting, { selector: ([id]) => id, maxLength: 8 }), (settings) => {
      const [frame] = readAll(new Http3.FrameReader(200), [Http3.encodeSettings(Object.fromEntries(settings))])
      assert.strictEqual(frame?.type, FrameType.settings)
      const decoded = Either.getOrThrow(Http3.decodeSettings(frame!.payload))
      assert.deepStrictEqual(new Map(decoded), new Map(settings))
    }))
  })

  it("refuses HTTP/2 settings, duplicates, bad booleans and partial settings", () => {
    for (const id of ["00", "02", "03", "04", "05"]) {
      assert.strictEqual(codeOf(Http3.decodeSettings(hex(`${id}00`))), ErrorCode.settings)
    }
    assert.strictEqual(codeOf(Http3.decodeSettings(hex("0801 0801"))), ErrorCode.settings)
    assert.strictEqual(codeOf(Http3.decodeSettings(hex("2101 4021 01"))), ErrorCode.settings)
    assert.strictEqual(codeOf(Http3.decodeSettings(hex("0802"))), ErrorCode.settings)
    assert.strictEqual(codeOf(Http3.decodeSettings(hex("3302"))), ErrorCode.settings)
    assert.strictEqual(codeOf(Http3.decodeSettings(hex("0801 33"))), ErrorCode.frame)
    assert.strictEqual(codeOf(Http3.decodeSettings(hex("0801 0640"))), ErrorCode.frame)
    assert.strictEqual(codeOf(Http3.decodeSettings(hex("0801 3301 0100"))), 0)
  })

  it("does not treat two unknown large settings as duplicates", () =>
    assert.strictEqual(codeOf(Http3.decodeSettings(hex("ffffffffffffff00 01 ffffffffffffff01 01"))), 0))
})

describe("Http3 messages", () => {
  it("reads a request, and the one that opens a session", () => {
    assert.deepStrictEqual(Either.getOrThrow(Http3.toRequest(GET)), {
      method: "GET",
      scheme: "https",
      authority: "[2001:db8::1]:4433",
      path: "/app?x=1&y=%20|",
      protocol: null,
      headers: GET.slice(4)
    })
    assert.deepStrictEqual(Either.getOrThrow(Http3.toRequest(SESSION)), {
      method: "CONNECT",
      scheme: "https",
      authority: "127.0.0.1:4433",
      path: "/sallyport",
      protocol: "webtransport",
      headers: SESSION.slice(5)
    })
  })

  it("accepts host instead of :authority, or an equal one", () => {
    const host: Fields = [...without(GET, ":authority"), ["host", "a.example"]]
    assert.strictEqual(Either.getOrThrow(Http3.toRequest(host)).authority, "a.example")
    assert.strictEqual(codeOf(Http3.toRequest([...GET, ["host", "[2001:db8::1]:4433"]])), 0)
    assert.strictEqual(codeOf(Http3.toRequest([...GET, ["host", "b.example"]])), ErrorCode.message)
    assert.strictEqual(codeOf(Http3.toRequest([...host, ["host", "b.example"]])), ErrorCode.message)
    assert.strictEqual(codeOf(Http3.toRequest(replaced(host, "host", "u@a.example"))), ErrorCode.message)
  })

  it("takes other legal requests", () => {
    const options = replaced(GET, ":method", "OPTIONS")
    assert.strictEqual(codeOf(Http3.toRequest(replaced(options, ":path", "*"))), 0)
    const plain: Fields = [[":method", "CONNECT"], [":authority", "a.example:443"]]
    assert.strictEqual(codeOf(Http3.toRequest(plain)), 0)
    assert.strictEqual(codeOf(Http3.toRequest([[":method", "GET"], [":scheme", "x"], [":path", ""]])), 0)
  })

  const malformed: Readonly<Record<string, Fields>> = {
    "nothing": [],
    ...Object.fromEntries(
      [":method", ":scheme", ":authority", ":path"].map((name) => [`no ${name}`, without(GET, name)])
    ),
    ...Object.fromEntries(
      [":method", ":scheme", ":authority", ":path"].map((name) => [`session, no ${name}`, without(SESSION, name)])
    ),
    "session, only a host": [...without(SESSION, ":authority"), ["host", "127.0.0.1:4433"]],
    "session without :protocol": without(SESSION, ":protocol"),
    ":protocol without CONNECT": replaced(SESSION, ":method", "GET"),
    "twice": [[":method", "GET"], ...GET],
    "late": [...without(GET, ":path"), [":path", "/"]],
    "unknown pseudo-header": [[":status", "200"], ...GET],
    "bad method": replaced(GET, ":method", "GE T"),
    "empty method": replaced(GET, ":method", ""),
    "bad scheme": replaced(GET, ":scheme", "1http"),
    "userinfo": replaced(GET, ":authority", "user@a.example"),
    "control character in :authority": replaced(GET, ":authority", "a.exa\u{1}mple"),
    "path in :authority": replaced(GET, ":authority", "a.example/x"),
    "empty :authority": replaced(GET, ":authority", ""),
    "empty :path": replaced(GET, ":path", ""),
    "relative :path": replaced(GET, ":path", "app"),
    "star": replaced(GET, ":path", "*"),
    "space in :path": replaced(GET, ":path", "/a b"),
    "fragment": replaced(GET, ":path", "/a#b"),
    "non-ASCII :path": replaced(GET, ":path", "/\u{e9}"),
    "line break in :path": replaced(GET, ":path", "/a\n"),
    "upper-case name": [...GET, ["X-Upper", "1"]],
    "empty name": [...GET, ["", "1"]],
    "space in a name": [...GET, ["x y", "1"]],
    "colon in a name": [...GET, ["x:y", "1"]],
    "line break in a name": [...GET, ["x\n", "1"]],
    "line break in a value": [...GET, ["x", "1\r\nx: 2"]],
    "NUL in a value": [...GET, ["x", "1\0"]],
    "DEL in a value": [...GET, ["x", "1\u{7f}"]],
    "no byte in a value": [...GET, ["x", "\u{10a}"]],
    "space before a value": [...GET, ["x", " 1"]],
    "tab after a value": [...GET, ["x", "1\t"]],
    "te": replaced(GET, "te", "gzip"),
    "connection": [...GET, ["connection", "close"]],
    "keep-alive": [...GET, ["keep-alive", "1"]],
    "proxy-connection": [...GET, ["proxy-connection", "1"]],
    "transfer-encoding": [...GET, ["transfer-encoding", "chunked"]],
    "upgrade": [...GET, ["upgrade", "websocket"]]
  }
  it.each(Object.entries(malformed))(
    "refuses a malformed request: %s",
    (_, fields) => assert.strictEqual(codeOf(Http3.toRequest(fields)), ErrorCode.message)
  )

  it("reads the status of a response", () => {
    assert.strictEqual(Either.getOrThrow(Http3.statusOf([[":status", "200"], ["server", "x"]])), 200)
    const bad: ReadonlyArray<Fields> = [
      [],
      [["server", "x"]],
      [["server", "x"], [":status", "200"]],
      [[":status", "200"], [":status", "200"]],
      [[":status", "200"], [":path", "/"]],
      [[":status", "200"], ["connection", "close"]],
      ...["", "20", "2000", "abc", "+20", "099", " 20", "101"].map((status): Fields => [[":status", status]])
    ]
    for (const fields of bad) assert.strictEqual(codeOf(Http3.statusOf(fields)), ErrorCode.message, String(fields))
  })
})

describe("Http3 capsules", () => {
  it("yields the same capsules wherever the stream is cut", () =>
    fc.assert(
      fc.property(
        fc.array(frameOf(Capsule.closeSession, Capsule.drainSession, 0x00, 0x21), { maxLength: 3 }),
        (capsules) => {
          const stream = concat(capsules.map(({ payload, type }) => Http3.frame(type, payload)))
          const known = textOf(capsules.filter(({ type }) => type > 0x21))
          for (let cut = 0; cut <= stream.length; cut++) {
            const read = readAll(new Http3.CapsuleReader(600), [stream.subarray(0, cut), stream.subarray(cut)])
            if (textOf(read) !== known) {
              assert.fail(`other capsules when cut at ${cut}`)
            }
          }
        }
      ),
      { numRuns: runs(20) }
    ))

  it("decodes the end of a session that it encodes", () => {
    assert.deepStrictEqual(Http3.encodeClose(7, "bye"), hex("6843 07 00000007 627965"))
    fc.assert(
      fc.property(fc.nat(0xffff_ffff), fc.string({ unit: "grapheme", maxLength: 100 }), (code, reason) => {
        const [capsule] = readAll(new Http3.CapsuleReader(1028), [Http3.encodeClose(code, reason)])
        assert.strictEqual(capsule?.type, Capsule.closeSession)
        assert.deepStrictEqual(Http3.decodeClose(capsule!.payload), { code, reason })
      })
    )
  })

  it("cuts a reason at 1024 bytes, and refuses longer ones", () => {
    const reasonOf = (reason: string) =>
      Http3.decodeClose(readAll(new Http3.CapsuleReader(1028), [Http3.encodeClose(0xffff_ffff, reason)])[0]!.payload)
    assert.deepStrictEqual(reasonOf("a".repeat(1025)), { code: 0xffff_ffff, reason: "a".repeat(1024) })
    assert.deepStrictEqual(reasonOf(`a${"\u{1f6aa}".repeat(256)}`)?.reason, `a${"\u{1f6aa}".repeat(255)}`)
    assert.deepStrictEqual(reasonOf(`\u{feff}x`)?.reason, `\u{feff}x`)
    assert.isNotNull(Http3.decodeClose(new Uint8Array(1028)))
    assert.isNull(Http3.decodeClose(new Uint8Array(1029)))
    assert.isNull(Http3.decodeClose(new Uint8Array(3)))
  })
})

describe("Http3 on any bytes", () => {
  const MAX_BYTES = 48
  /** Pushes them in two pieces, and after each looks at what is held. */
  const held = (reader: Reader, bytes: Uint8Array): void => {
    for (const piece of [bytes.subarray(0, bytes.length >> 1), bytes.subarray(bytes.length >> 1)]) {
      const frames = reader.push(piece)
      if (reader.heldBytes > MAX_BYTES + HEAD_BYTES) assert.fail(`holds ${reader.heldBytes} bytes`)
      if (Either.isLeft(frames)) return
      for (const { payload } of frames.right) {
        if (payload.length > MAX_BYTES) assert.fail(`gives ${payload.length} bytes`)
      }
    }
  }
  const text = (fields: Fields) => Uint8Array.from(Buffer.from(fields.flat().join("\n"), "latin1"))
  const fieldsOf = (bytes: Uint8Array): Fields => {
    const parts = Buffer.from(bytes).toString("latin1").split("\n")
    return Array.from({ length: parts.length >> 1 }, (_, i): [string, string] => [parts[2 * i]!, parts[2 * i + 1]!])
  }

  it("never throws, and keeps no more than the bound", () => {
    const streams = [
      concat([
        Http3.encodeSettings({ 1: 0, 8: 1, 0x33: 1, [Setting.webTransportMaxSessionsDraft07]: 1 }),
        hex("0702404a")
      ]),
      concat([Http3.frame(0x21, new Uint8Array(9)), Http3.frame(FrameType.data, Http3.encodeClose(1, "why not"))]),
      concat([Http3.encodeClose(1, "why not"), Http3.frame(Capsule.drainSession, new Uint8Array(0))]),
      Http3.webTransportHead(4)
    ]
    fc.assert(
      fc.property(fc.oneof(noise, mutated(streams)), (bytes) => {
        held(new Http3.FrameReader(MAX_BYTES), bytes)
        held(new Http3.CapsuleReader(MAX_BYTES), bytes)
        const end = Http3.bidiHead(bytes)
        assert.isAtMost(end?._tag === "WebTransport" ? end.end : 0, bytes.length)
        assert.isAtMost(Varint.read(bytes, 0)?.value ?? 0, Number.MAX_SAFE_INTEGER)
        Http3.decodeSettings(bytes.subarray(2))
        Http3.decodeClose(bytes.subarray(3))
      }),
      { numRuns: runs(10_000) }
    )
  })

  it("never throws on fields, and refuses characters unsafe for HTTP/1.1", () =>
    fc.assert(
      fc.property(
        fc.oneof(noise, mutated([text(GET), text(SESSION), text([[":status", "200"], ["a", "b"]])])),
        (bytes) => {
          const fields = fieldsOf(bytes)
          Http3.statusOf(fields)
          const request = Http3.toRequest(fields)
          if (Either.isLeft(request)) return assert.strictEqual(request.left.code, ErrorCode.message)
          const { authority, headers, method, path, protocol, scheme } = request.right
          const line = `${method} ${scheme}://${authority}${path} ${protocol}`
          if (!/^[!-~]+ [!-~]+ [!-~]+$/.test(line)) assert.fail(line)
          for (const [name, value] of headers) {
            // oxlint-disable-next-line no-control-regex -- they are what is looked for
            if (!/^[!-9;-@[-~]+$/.test(name) || /[\0-\x08\x0a-\x1f\x7f]/.test(value)) assert.fail(`${name}: ${value}`)
          }
        }
      ),
      { numRuns: runs(10_000) }
    ))
})
