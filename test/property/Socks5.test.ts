import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { Handshake, type Step } from "../../src/protocol/flow/Socks5.ts"

/** All steps of one conversation, fed in pieces; stops at the first final one. */
const feed = (bytes: Uint8Array, cuts: ReadonlyArray<number>) => {
  const handshake = new Handshake()
  const written: Array<number> = []
  let at = 0
  let last: Step | null = null
  for (const cut of [...cuts.map((cut) => cut % (bytes.length + 1)).toSorted((a, b) => a - b), bytes.length]) {
    last = handshake.push(bytes.subarray(at, cut))
    written.push(...last.write)
    if (last._tag !== "More") return { last, written, fed: cut }
    at = cut
  }
  return { last, written, fed: at }
}
const plausible = fc.tuple(
  fc.constant([5, 1, 0, 5, 1, 0]),
  fc.oneof(
    fc.uint8Array({ minLength: 6, maxLength: 6 }).map((rest) => [1].concat([...rest])),
    fc.uint8Array({ minLength: 1, maxLength: 30 }).map((name) => [3, name.length].concat([...name], [0, 80]))
  ),
  fc.uint8Array({ maxLength: 20 })
).map(([front, address, early]) => Uint8Array.from([...front, ...address, ...early]))

describe("Socks5, for any input", () => {
  it("comes to the same end however the bytes are cut", () => {
    fc.assert(
      fc.property(
        fc.oneof(plausible, fc.uint8Array({ maxLength: 64 })),
        fc.array(fc.nat(), { maxLength: 8 }),
        (bytes, cuts) => {
          const whole = feed(bytes, [])
          const pieces = feed(bytes, cuts)
          expect(pieces.last?._tag).toBe(whole.last?._tag)
          expect(pieces.written).toEqual(whole.written)
          if (whole.last?._tag === "Connect" && pieces.last?._tag === "Connect") {
            expect(pieces.last.target).toEqual(whole.last.target)
            expect([...pieces.last.early, ...bytes.subarray(pieces.fed)]).toEqual([...whole.last.early])
          }
        }
      )
    )
  })
})
