import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import {
  decodeOpen,
  decodeVerdict,
  encodeOpen,
  encodeVerdict,
  MAX_VERDICT_BYTES,
  type Open,
  VERDICTS
} from "../../src/protocol/flow/FlowWire.ts"

const hex = (length: number) =>
  fc.string({ unit: fc.constantFrom(..."0123456789abcdef".split("")), minLength: length, maxLength: length })
const traceparent = fc.tuple(hex(32), hex(16), hex(2)).map(([trace, span, flags]) => `00-${trace}-${span}-${flags}`)
const open: fc.Arbitrary<Open> = fc.record({
  kind: fc.constant("tcp" as const),
  resource: fc.string({ maxLength: 15, unit: "grapheme" }).filter((text) =>
    new TextEncoder().encode(text).length <= 63
  ),
  host: fc.oneof(fc.domain().filter((name) => name.length <= 253), fc.ipV4(), fc.ipV6()),
  port: fc.integer({ min: 1, max: 65_535 }),
  traceparent: fc.option(traceparent)
})

describe("FlowWire, for any input", () => {
  it("gives back each Open, whatever follows it", () => {
    fc.assert(fc.property(open, fc.uint8Array({ maxLength: 40 }), (value, rest) => {
      const bytes = encodeOpen(value)
      if (bytes === null) throw new Error("not encodable")
      const step = decodeOpen(Uint8Array.from([...bytes, ...rest]))
      expect(step).toEqual({ _tag: "Done", value, used: bytes.length })
    }))
  })

  it("never throws or asks for more than the longest Open", () => {
    fc.assert(fc.property(fc.uint8Array({ minLength: 0, maxLength: 800 }), (noise) => {
      const bytes = Uint8Array.from([1, 1, ...noise])
      const step = decodeOpen(bytes)
      if (step._tag === "Done") expect(step.used).toBeLessThanOrEqual(bytes.length)
      if (noise.length === 800) expect(step._tag).not.toBe("More")
    }))
  })

  it("gives back each verdict", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...VERDICTS),
        fc.string({ maxLength: 60, unit: "grapheme" }).filter((text) => new TextEncoder().encode(text).length <= 255),
        (code, reason) => {
          const bytes = encodeVerdict({ code, reason })
          expect(bytes.length).toBeLessThanOrEqual(MAX_VERDICT_BYTES)
          expect(decodeVerdict(bytes)).toEqual({ _tag: "Done", value: { code, reason }, used: bytes.length })
        }
      )
    )
  })
})
