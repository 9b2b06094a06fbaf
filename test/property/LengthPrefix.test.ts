import { Either } from "effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import * as LengthPrefix from "../../src/protocol/bytes/LengthPrefix.ts"

const concat = (parts: ReadonlyArray<Uint8Array>) => new Uint8Array(Buffer.concat(parts))
const cut = (bytes: Uint8Array, sizes: ReadonlyArray<number>) => {
  const out: Array<Uint8Array> = []
  let at = 0
  for (let i = 0; at < bytes.length; i++) {
    const size = sizes[i % sizes.length]!
    out.push(bytes.slice(at, at + size))
    at += size
  }
  return out
}

describe("LengthPrefix", () => {
  it("gives back the same bodies, however the stream is cut", () => {
    fc.assert(fc.property(
      fc.array(fc.uint8Array({ maxLength: 3000 }), { maxLength: 12 }),
      fc.array(fc.integer({ min: 1, max: 1500 }), { minLength: 1, maxLength: 8 }),
      (bodies, sizes) => {
        const decoder = new LengthPrefix.Decoder()
        const got: Array<Uint8Array> = []
        for (const piece of cut(concat(bodies.map(LengthPrefix.encode)), sizes)) {
          got.push(...Either.getOrThrow(decoder.push(piece)))
        }
        expect(got.map((body) => Buffer.from(body).toString("hex"))).toEqual(
          bodies.map((body) => Buffer.from(body).toString("hex"))
        )
        expect(decoder.heldBytes).toBe(0)
      }
    ))
  })

  it("refuses a length above its limit before it allocates anything", () => {
    const decoder = new LengthPrefix.Decoder(100)
    expect(Either.getLeft(decoder.push(Uint8Array.of(0, 0, 0, 101)))).toMatchObject({
      value: { bytes: 101, maxBytes: 100 }
    })
    expect(decoder.heldBytes).toBeLessThan(10)
    expect(Either.isLeft(new LengthPrefix.Decoder().push(Uint8Array.of(255, 255, 255, 255)))).toBe(true)
    expect(Either.isRight(new LengthPrefix.Decoder().push(Uint8Array.of(0, 1, 0, 0)))).toBe(true)
  })

  it("allocates little for a large length before its bytes arrive", () => {
    const decoder = new LengthPrefix.Decoder()
    Either.getOrThrow(decoder.push(Uint8Array.of(0, 1, 0, 0, 7)))
    expect(decoder.heldBytes).toBeLessThanOrEqual(2048)
  })

  it("costs little for many small pieces or single bytes", () => {
    const bodies = Array.from({ length: 112 }, () => LengthPrefix.encode(new Uint8Array(64 * 1024)))
    const pieces = cut(concat(bodies), [16_384])
    const before = process.cpuUsage()
    const decoder = new LengthPrefix.Decoder()
    let count = 0
    for (const piece of pieces) count += Either.getOrThrow(decoder.push(piece)).length
    const one = LengthPrefix.encode(new Uint8Array(64 * 1024))
    for (let i = 0; i < one.length; i++) count += Either.getOrThrow(decoder.push(one.subarray(i, i + 1))).length
    expect(count).toBe(113)
    expect(process.cpuUsage(before).user / 1000).toBeLessThan(5000) // some 50; with copies of all that came before, minutes
  })
})
