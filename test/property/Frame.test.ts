import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import * as Frame from "../../src/protocol/bytes/Frame.ts"
import * as IpBytes from "../../src/protocol/bytes/IpBytes.ts"
import { runs } from "../support/Runs.ts"

const tag = fc.nat(2 ** 48 - 1)
const relayed = (length: number, tag: number): Uint8Array => {
  const frame = new Uint8Array(length).fill(0x45)
  Frame.writeRelayedHead(frame, 0, length, tag)
  return frame
}
const joined = (parts: ReadonlyArray<Uint8Array>): Uint8Array => Uint8Array.from(parts.flatMap((part) => [...part]))

describe("Frame", () => {
  it("reads the heads that it writes", () =>
    fc.assert(fc.property(fc.integer({ min: 8, max: Frame.MAX_FRAME_BYTES }), tag, fc.nat(9), (length, tag, at) => {
      const buf = new Uint8Array(at + length)
      Frame.writeRelayedHead(buf, at, length, tag)
      assert.strictEqual(Frame.lengthAt(buf, at), length)
      assert.strictEqual(Frame.tagAt(buf, at), tag)
      assert.strictEqual(Frame.kindOfFirstByte(buf[at]!), Frame.Kind.relayed)
      Frame.writeDirectHead(buf, at, length)
      assert.strictEqual(Frame.lengthAt(buf, at), length)
      assert.strictEqual(Frame.kindOfFirstByte(buf[at]!), Frame.Kind.direct)
    })))

  it("writes the documented bytes", () => {
    assert.deepStrictEqual([...relayed(0x123, 0xa1b2c3d4e5f6).subarray(0, 9)], [
      0x21,
      0x23,
      0xa1,
      0xb2,
      0xc3,
      0xd4,
      0xe5,
      0xf6,
      0x45
    ])
  })

  it("cuts any bytes without throwing or leaving the buffer", () =>
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.integer({ min: -3, max: 320 }), (buf, start) => {
        assert.isAtMost(Math.max(0, start) + Frame.lengthAt(buf, start), Math.max(buf.length, start))
        let at = 0
        for (;;) {
          const length = Frame.lengthAt(buf, at)
          const run = Frame.runAt(buf, at)
          assert.isTrue(length === 0 ? run === 0 : run >= length && at + run <= buf.length)
          if (length === 0) break
          at += length
          assert.isAtMost(at, buf.length)
        }
      }),
      { numRuns: runs(2000) }
    ))

  it("takes a run of equal frames and a shorter last", () =>
    fc.assert(
      fc.property(
        fc.integer({ min: 9, max: 60 }),
        fc.integer({ min: 1, max: 6 }),
        fc.nat(2 ** 48 - 2),
        (length, count, tag) => {
          const full = Array.from({ length: count }, () => relayed(length, tag))
          const last = relayed(8, tag)
          assert.strictEqual(Frame.runAt(joined([...full, last, relayed(8, tag)]), 0), count * length + 8)
          assert.strictEqual(Frame.runAt(joined([...full, relayed(length, tag + 1)]), 0), count * length)
          assert.strictEqual(Frame.runAt(joined([...full, relayed(length + 1, tag)]), 0), count * length)
          assert.strictEqual(
            Frame.runAt(joined([...full, relayed(length, tag).subarray(0, length - 1)]), 0),
            count * length
          )
        }
      )
    ))

  it("tells kinds apart over all first bytes", () => {
    const kinds = Array.from({ length: 256 }, (_, byte) => Frame.kindOfFirstByte(byte))
    const count = (kind: Frame.Kind) => kinds.filter((one) => one === kind).length
    assert.deepStrictEqual([count(Frame.Kind.stun), count(Frame.Kind.relayed), count(Frame.Kind.direct)], [4, 16, 16])
  })

  it("reads tags as a ticket writes them", () =>
    fc.assert(
      fc.property(tag, (tag) => assert.strictEqual(Frame.tagFromHex(tag.toString(16).padStart(12, "0")), tag))
    ))

  it("has no number for text that is no tag", () => {
    for (const text of ["", "12", "0x1234567890", "A1B2C3D4E5F6", "1234567890123"]) assert.isNaN(Frame.tagFromHex(text))
  })
})

describe("IpBytes", () => {
  it("reads what it writes", () =>
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 16, maxLength: 16 }),
        fc.boolean(),
        fc.nat(15),
        fc.nat(15),
        (bytes, v4, from, to) => {
          bytes.fill(0, from, to) // so that runs of zeros are common
          const length = v4 ? 4 : 16
          const out = new Uint8Array(16)
          assert.strictEqual(IpBytes.parse(IpBytes.format(bytes, 0, length), out), length)
          assert.deepStrictEqual(out.subarray(0, length), bytes.subarray(0, length))
        }
      ),
      { numRuns: runs(1000) }
    ))

  it("writes IPv6 as the kernel does", () => {
    const out = new Uint8Array(16)
    const same = [
      "::",
      "::1",
      "2001:db8::1",
      "fe80::1:0:0:1",
      "1:0:0:2::3",
      "1:2:3:4:5:6:7:8",
      "::ffff:192.0.2.1",
      "1::"
    ]
    for (const text of same) {
      assert.strictEqual(IpBytes.parse(text, out), 16, text)
      assert.strictEqual(IpBytes.format(out, 0, 16), text)
    }
    assert.strictEqual(IpBytes.parse("FE80::0001%eth0", out), 16)
    assert.strictEqual(IpBytes.format(out, 0, 16), "fe80::1")
  })

  it("refuses what is no literal address", () => {
    const out = new Uint8Array(16)
    const bad = [
      "",
      "1.2.3",
      "1.2.3.4.5",
      "1.2.3.256",
      "01.2.3.4",
      "1.2.3.",
      "a.b.c.d",
      ":",
      ":1",
      "1:",
      "1::2::3",
      "1:2:3:4:5:6:7",
      "1:2:3:4:5:6:7:8:9",
      "12345::",
      "::1.2.3",
      "1:2:3:4:5:6:7::8",
      "g::",
      "localhost"
    ]
    for (const text of bad) assert.strictEqual(IpBytes.parse(text, out), 0, text)
  })

  it("never throws, whatever the text", () =>
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom(...Array.from("0123456789abcdef:.%xg")), maxLength: 50 }),
        (text) => {
          IpBytes.parse(text, new Uint8Array(16))
        }
      ),
      { numRuns: runs(3000) }
    ))
})
