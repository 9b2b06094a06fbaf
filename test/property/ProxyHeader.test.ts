import * as fc from "fast-check"
import { assert, describe, it } from "vitest"
import * as IpBytes from "../../src/protocol/bytes/IpBytes.ts"
import * as ProxyHeader from "../../src/protocol/relay/ProxyHeader.ts"

const text = (line: string) => new TextEncoder().encode(line)
const SIGNATURE = [13, 10, 13, 10, 0, 13, 10, 0x51, 0x55, 0x49, 0x54, 10]
const v2 = (command: number, family: number, body: ReadonlyArray<number>) =>
  Uint8Array.of(...SIGNATURE, command, family, body.length >> 8, body.length & 255, ...body)
const TAIL = [0x16, 3, 1]

const host = fc.oneof(
  fc.ipV4(),
  fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => IpBytes.format(bytes, 0, 16))
)
const port = fc.integer({ min: 0, max: 65_535 })

const bytesOf = (address: string) => {
  const out = new Uint8Array(16)
  return [...out.subarray(0, IpBytes.parse(address, out))]
}

/** The header of each version for one connection. */
const headers = (from: string, fromPort: number) => {
  const family = from.includes(":") ? "TCP6" : "TCP4"
  const to = from.includes(":") ? "2001:db8::1" : "192.0.2.1"
  const ports = [fromPort >> 8, fromPort & 255, 1, 187]
  return [
    text(`PROXY ${family} ${from} ${to} ${fromPort} 443\r\n`),
    v2(0x21, family === "TCP4" ? 0x11 : 0x21, [...bytesOf(from), ...bytesOf(to), ...ports]),
    v2(0x21, family === "TCP4" ? 0x11 : 0x21, [...bytesOf(from), ...bytesOf(to), ...ports, 0xea, 0, 2, 1, 2])
  ]
}

describe("a PROXY header", () => {
  it("names a connection's source, however its bytes are cut", () => {
    fc.assert(fc.property(host, port, (from, fromPort) => {
      for (const header of headers(from, fromPort)) {
        for (let length = 0; length < header.length; length++) {
          assert.strictEqual(ProxyHeader.read(header.subarray(0, length))._tag, "More")
        }
        const step = ProxyHeader.read(Uint8Array.of(...header, ...TAIL))
        assert.strictEqual(step._tag, "Header")
        if (step._tag !== "Header") return
        assert.strictEqual(step.length, header.length)
        assert.deepStrictEqual([bytesOf(step.source?.host ?? ""), step.source?.port], [bytesOf(from), fromPort])
      }
    }))
  })

  it("may say nothing of a client", () => {
    for (
      const header of [
        text("PROXY UNKNOWN\r\n"),
        text("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"),
        v2(0x20, 0, []),
        v2(0x20, 0x11, Array.from({ length: 12 }, () => 1)),
        v2(0x21, 0, []),
        v2(0x21, 0x31, Array.from({ length: 216 }, () => 1))
      ]
    ) assert.deepStrictEqual(ProxyHeader.read(header), { _tag: "Header", length: header.length, source: null })
  })

  it.each([
    ["TLS", Uint8Array.of(...TAIL)],
    ["HTTP", text("GET / HTTP/1.1\r\n")],
    ["an endless line", text(`PROXY TCP4 ${"1".repeat(200)}`)],
    ["a name", text("PROXY TCP4 localhost 127.0.0.1 1 2\r\n")],
    ["the other family", text("PROXY TCP6 127.0.0.1 127.0.0.1 1 2\r\n")],
    ["a port too high", text("PROXY TCP4 127.0.0.1 127.0.0.1 65536 2\r\n")],
    ["a word too many", text("PROXY TCP4 127.0.0.1 127.0.0.1 1 2 3\r\n")],
    ["a zone", text("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n")],
    ["another version", v2(0x31, 0x11, Array.from({ length: 12 }, () => 1))],
    ["another command", v2(0x22, 0x11, Array.from({ length: 12 }, () => 1))],
    ["too few bytes", v2(0x21, 0x11, [1, 2, 3])],
    ["too many bytes", Uint8Array.of(...SIGNATURE, 0x21, 0x11, 255, 255)]
  ])("is refused if it is %s", (_, bytes) => {
    assert.strictEqual(ProxyHeader.read(bytes)._tag, "Bad")
  })

  it("reads any bytes without waiting beyond its limit", () => {
    const begun = fc.constantFrom(text("PROXY "), Uint8Array.of(...SIGNATURE), new Uint8Array(0))
    const rest = fc.uint8Array({ minLength: ProxyHeader.MAX_BYTES, maxLength: ProxyHeader.MAX_BYTES + 10 })
    fc.assert(fc.property(begun, rest, (head, more) => {
      const step = ProxyHeader.read(Uint8Array.of(...head, ...more))
      assert.notStrictEqual(step._tag, "More")
      if (step._tag === "Header") assert.isAtMost(step.length, ProxyHeader.MAX_BYTES)
    }))
  })
})
