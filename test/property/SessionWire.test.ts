import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { Decoder, encode, type SessionMessage } from "../../src/protocol/flow/SessionWire.ts"
import { LEG_KINDS } from "../../src/protocol/path/PathKind.ts"

const words = fc.string({ maxLength: 40 })
const body = fc.uint8Array({ maxLength: 300 })
const message: fc.Arbitrary<SessionMessage> = fc.oneof(
  fc.uint8Array({ minLength: 32, maxLength: 32 }).map((secret): SessionMessage => ({ _tag: "ProbeSecret", secret })),
  body.map((signed): SessionMessage => ({ _tag: "Grant", signed })),
  words.map((id): SessionMessage => ({ _tag: "GrantAck", id })),
  words.map((reason): SessionMessage => ({ _tag: "GrantRefused", reason })),
  fc.constantFrom(...LEG_KINDS).map((kind): SessionMessage => ({ _tag: "Leg", kind })),
  words.map((reason): SessionMessage => ({ _tag: "Goaway", reason }))
)

describe("SessionWire, for any input", () => {
  it("yields every sequence of messages, however the stream is cut", () => {
    fc.assert(
      fc.property(fc.array(message, { maxLength: 8 }), fc.array(fc.nat(), { maxLength: 10 }), (messages, cuts) => {
        const stream = Uint8Array.from(messages.flatMap((one) => [...(encode(one) ?? [])]))
        const decoder = new Decoder()
        const seen: Array<SessionMessage> = []
        let at = 0
        for (const cut of [...cuts.map((cut) => cut % (stream.length + 1)).toSorted((a, b) => a - b), stream.length]) {
          const step = decoder.push(stream.subarray(at, cut))
          if (step._tag === "Bad") throw new Error(step.reason)
          seen.push(...step.messages)
          at = cut
        }
        expect(seen).toEqual(messages)
      })
    )
  })

  it("never throws", () => {
    fc.assert(fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 6 }), (pieces) => {
      const decoder = new Decoder()
      for (const piece of pieces) if (decoder.push(piece)._tag === "Bad") return
    }))
  })
})
