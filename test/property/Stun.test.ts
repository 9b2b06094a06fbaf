import { assert, describe, it } from "@effect/vitest"
import { Either, FastCheck as fc } from "effect"
import { Buffer } from "node:buffer"
import { crc32 } from "node:zlib"
import * as IpBytes from "../../src/protocol/bytes/IpBytes.ts"
import type { SocketAddr } from "../../src/protocol/bytes/SocketAddr.ts"
import * as Stun from "../../src/protocol/nat/Stun.ts"
import { runs } from "../support/Runs.ts"

const txId = fc.uint8Array({ minLength: 12, maxLength: 12 })
const addr = fc.record({
  host: fc.tuple(fc.uint8Array({ minLength: 16, maxLength: 16 }), fc.boolean()).map(([ip, v4]) =>
    IpBytes.format(ip, 0, v4 ? 4 : 16)
  ),
  port: fc.integer({ min: 1, max: 65535 })
})
const hex = (text: string) => Uint8Array.from(Buffer.from(text.replace(/\s/g, ""), "hex"))
const right = (bytes: Uint8Array): Stun.Message => Either.getOrThrow(Stun.decode(bytes))
const answer = (bytes: Uint8Array, from: SocketAddr, server?: Stun.Server): Uint8Array | null => {
  const decoded = Either.getOrNull(Stun.decode(bytes))
  return decoded?._tag === "Request" ? Stun.answer(decoded, bytes.length, from, server) : null
}
/** A request with one attribute and no FINGERPRINT. */
const withAttribute = (type: number, length = 4) => {
  const bytes = new Uint8Array(20 + 4 + length)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, 1)
  view.setUint16(2, 4 + length)
  view.setUint32(4, Stun.MAGIC_COOKIE)
  view.setUint16(20, type)
  view.setUint16(22, length)
  return bytes
}

describe("Stun", () => {
  it("decodes the successes that it encodes, of both families", () =>
    fc.assert(fc.property(txId, addr, fc.option(addr, { nil: undefined }), (txId, mapped, other) => {
      const bytes = Stun.encodeSuccess({ txId, mapped, ...(other === undefined ? {} : { other, origin: mapped }) })
      assert.deepStrictEqual(right(bytes), {
        _tag: "Success",
        txId,
        mapped,
        origin: other === undefined ? null : mapped,
        other: other ?? null,
        alternatePort: null
      })
      assert.strictEqual(Stun.lengthAt(bytes, 0), bytes.length)
    })))

  it("decodes the second port of a server with one address", () => {
    const mapped = { host: "192.0.2.1", port: 7 }
    const reply = right(Stun.encodeSuccess({ txId: new Uint8Array(12), mapped, alternatePort: 3479 }))
    assert.strictEqual(reply._tag === "Success" ? reply.alternatePort : null, 3479)
  })

  it("decodes requests and errors", () =>
    fc.assert(
      fc.property(txId, fc.boolean(), fc.boolean(), fc.integer({ min: 300, max: 699 }), (txId, address, port, code) => {
        assert.deepStrictEqual(right(Stun.encodeRequest({ txId })), {
          _tag: "Request",
          txId,
          change: null,
          responsePort: null,
          unknown: []
        })
        const change = { address, port }
        assert.deepStrictEqual(right(Stun.encodeRequest({ txId, change })), {
          _tag: "Request",
          txId,
          change,
          responsePort: null,
          unknown: []
        })
        const asked = right(Stun.encodeRequest({ txId, responsePort: code }))
        assert.strictEqual(asked._tag === "Request" ? asked.responsePort : null, code)
        assert.deepStrictEqual(right(Stun.encodeError({ txId, code })), { _tag: "Error", txId, code, reason: "" })
      })
    ))

  // RFC 5769, sections 2.2 and 2.3: the address and fingerprint are those of a published message.
  it("reads the RFC 5769 sample responses, whose FINGERPRINT others computed", () => {
    const v4 = hex(`0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643
      000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96`)
    const v6 = hex(
      `010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9
      00080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c`
    )
    const first = right(v4)
    const second = right(v6)
    assert.deepStrictEqual(first._tag === "Success" ? first.mapped : null, { host: "192.0.2.1", port: 32853 })
    assert.deepStrictEqual(second._tag === "Success" ? second.mapped : null, {
      host: "2001:db8:1234:5678:11:2233:4455:6677",
      port: 32853
    })
    v4[40] = v4[40]! ^ 1
    assert.deepStrictEqual(Stun.decode(v4), Either.left("BadFingerprint"))
  })

  it("accepts messages without a fingerprint, but no wrong one", () =>
    fc.assert(
      fc.property(txId, addr, fc.nat(), fc.integer({ min: 1, max: 255 }), (txId, mapped, at, flip) => {
        const bytes = Stun.encodeSuccess({ txId, mapped })
        const where = at % bytes.length
        bytes[where] = bytes[where]! ^ flip
        const decoded = Stun.decode(bytes)
        // a change in the type of the FINGERPRINT attribute itself makes it another, optional one
        assert.isTrue(Either.isLeft(decoded) || where >= bytes.length - 8)
      }),
      { numRuns: runs(2000) }
    ))

  it("requires FINGERPRINT to be the last attribute", () => {
    const bytes = new Uint8Array([...Stun.encodeRequest({ txId: new Uint8Array(12), bytes: 28 }), 0x80, 0x22, 0, 0])
    bytes[3] = bytes.length - 20
    new DataView(bytes.buffer).setUint32(24, (crc32(bytes.subarray(0, 20)) ^ 0x5354554e) >>> 0)
    assert.deepStrictEqual(Stun.decode(bytes), Either.left("BadFingerprint"))
    const cut = bytes.slice(0, 28) // the same without what follows
    cut[3] = 8
    new DataView(cut.buffer).setUint32(24, (crc32(cut.subarray(0, 20)) ^ 0x5354554e) >>> 0)
    assert.isTrue(Either.isRight(Stun.decode(cut)))
  })

  it("requires the header's length to match the datagram", () => {
    const bytes = Stun.encodeSuccess({ txId: new Uint8Array(12), mapped: { host: "192.0.2.1", port: 1 } })
    for (const length of [8, 12, 24]) { // cuts the address; leaves out FINGERPRINT; wants more than there is
      bytes[3] = length
      assert.deepStrictEqual(Stun.decode(bytes), Either.left("BadLength"))
    }
  })

  it("never throws, and never answers with more bytes", () => {
    const noise = fc.uint8Array({ maxLength: 120 })
    const request = fc.tuple(txId, fc.integer({ min: 28, max: 200 }), noise, fc.nat(200)).map(
      ([txId, size, noise, at]) => {
        const bytes = Stun.encodeRequest({ txId, bytes: size })
        if (at < bytes.length) bytes.set(noise.subarray(0, Math.min(3, bytes.length - at)), at)
        return bytes
      }
    )
    const headed = noise.map((noise) => noise.subarray(0, noise.length & 0xfc)).map((body) =>
      Uint8Array.from([0, 1, 0, body.length, 0x21, 0x12, 0xa4, 0x42, ...new Uint8Array(12), ...body])
    )
    fc.assert(
      fc.property(fc.oneof(noise, request, headed), addr, (bytes, from) => {
        Stun.decode(bytes)
        assert.isAtMost(Stun.lengthAt(bytes, 0), bytes.length)
        assert.isAtMost(answer(bytes, from, { origin: from, other: from })?.length ?? 0, bytes.length)
      }),
      { numRuns: runs(5000) }
    )
  })

  it("answers our own requests in full, with three IPv6 addresses", () => {
    const six = { host: "2001:db8:1:2:3:4:5:6", port: 65535 }
    const request = Stun.encodeRequest({ txId: new Uint8Array(12).fill(9) })
    assert.strictEqual(request.length, Stun.REQUEST_BYTES)
    const reply = right(answer(request, six, { origin: six, other: six })!)
    assert.deepStrictEqual(reply, {
      _tag: "Success",
      txId: new Uint8Array(12).fill(9),
      mapped: six,
      origin: six,
      other: six,
      alternatePort: null
    })
  })

  it("drops optional attributes from an answer that is too long", () => {
    const from = { host: "192.0.2.1", port: 7 }
    const txId = new Uint8Array(12)
    const reply = right(answer(Stun.encodeRequest({ txId, bytes: 40 }), from, { origin: from, other: from })!)
    assert.deepStrictEqual(reply, {
      _tag: "Success",
      txId,
      mapped: from,
      origin: null,
      other: null,
      alternatePort: null
    })
    const bare = hex("000100002112a442000000000000000000000000")
    assert.isNull(answer(bare, from))
    assert.isNotNull(answer(bare, from, { allowLonger: true }))
  })

  it("answers 420 and names the unknown required attributes", () => {
    const bytes = withAttribute(0x0024, 40)
    const reply = answer(bytes, { host: "192.0.2.1", port: 7 })!
    assert.deepStrictEqual(right(reply), { _tag: "Error", txId: new Uint8Array(12), code: 420, reason: "" })
    assert.deepStrictEqual([...reply.subarray(28, 34)], [0, 0x0a, 0, 2, 0, 0x24])
    const change = Stun.encodeRequest({ txId: new Uint8Array(12), change: { address: true, port: true } })
    assert.strictEqual(right(answer(change, { host: "192.0.2.1", port: 7 })!)._tag, "Error")
    assert.strictEqual(
      right(answer(change, { host: "192.0.2.1", port: 7 }, { supportsChange: true })!)._tag,
      "Success"
    )
    assert.strictEqual(right(withAttribute(0x8024))._tag, "Request")
  })
})
