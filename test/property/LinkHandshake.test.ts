import { Either } from "effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import * as LinkHandshake from "../../src/protocol/relay/LinkHandshake.ts"
import { runs } from "../support/Runs.ts"

const exactly = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })
const text = fc.string({ unit: "grapheme", maxLength: 60 })
const purpose = fc.constantFrom<LinkHandshake.Purpose>("signal", "relay", "browser")
const enrol = fc.record({ tokenId: text, secret: text, name: text, role: text }, {
  requiredKeys: ["tokenId", "secret"]
})
const message: fc.Arbitrary<LinkHandshake.Message> = fc.oneof(
  fc.record({ _tag: fc.constant("Hello" as const), version: fc.integer({ min: 0, max: 255 }), purpose }),
  fc.record({
    _tag: fc.constant("Challenge" as const),
    nonce: exactly(32),
    endorsements: fc.array(exactly(64), { maxLength: 2 })
  }),
  fc.record({ _tag: fc.constant("Auth" as const), nodeKey: exactly(32), signature: exactly(64), enrol }, {
    requiredKeys: ["_tag", "nodeKey", "signature"]
  }),
  fc.record({ _tag: fc.constant("Welcome" as const), body: fc.uint8Array({ maxLength: 500 }) }),
  fc.record({ _tag: fc.constant("Refused" as const), code: text, message: text })
)

describe("LinkHandshake", () => {
  it("decodes what it encoded", () => {
    fc.assert(fc.property(message, (message) => {
      expect(Either.getOrThrow(LinkHandshake.decode(LinkHandshake.encode(message)))).toEqual(message)
    }))
  })

  it("refuses every message that is too short or too long", () => {
    fc.assert(fc.property(message.filter((m) => m._tag !== "Welcome"), fc.nat(), (message, seed) => {
      const bytes = LinkHandshake.encode(message)
      // A Challenge that is cut after a whole endorsement is a Challenge with fewer of them.
      const fixed = message._tag === "Challenge" ? { ...message, endorsements: [] } : message
      const cut = seed % LinkHandshake.encode(fixed).length
      expect(Either.isLeft(LinkHandshake.decode(bytes.slice(0, cut)))).toBe(true)
      expect(Either.isLeft(LinkHandshake.decode(Uint8Array.from([...bytes, 0])))).toBe(true)
    }))
  })

  it("never throws, and encodes accepted messages to the same bytes", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array({ maxLength: 300 }),
          fc.tuple(fc.integer({ min: 1, max: 5 }), fc.uint8Array({ maxLength: 200 })).map(([t, rest]) =>
            Uint8Array.from([t, ...rest])
          )
        ),
        (bytes) => {
          const decoded = LinkHandshake.decode(bytes)
          if (Either.isRight(decoded)) expect([...LinkHandshake.encode(decoded.right)]).toEqual([...bytes])
        }
      ),
      { numRuns: runs(2000) }
    )
  })

  it("signs other bytes for another purpose, nonce or certificate", () => {
    fc.assert(
      fc.property(purpose, exactly(32), exactly(32), purpose, exactly(32), exactly(32), (p, n, c, p2, n2, c2) => {
        const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex")
        const same = p === p2 && hex(n) === hex(n2) && hex(c) === hex(c2)
        const equal = hex(LinkHandshake.signedBytes(p, n, c)) === hex(LinkHandshake.signedBytes(p2, n2, c2))
        expect(equal).toBe(same)
      })
    )
    const [a, b] = [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)]
    expect(LinkHandshake.signedBytes("signal", a, b)).not.toEqual(LinkHandshake.signedBytes("relay", a, b))
    expect(LinkHandshake.signedBytes("signal", a, b)).not.toEqual(LinkHandshake.signedBytes("signal", b, a))
  })

  it("keeps the longest Auth within what a stranger may send", () => {
    const long = "é".repeat(512)
    const bytes = LinkHandshake.encode({
      _tag: "Auth",
      nodeKey: new Uint8Array(32),
      signature: new Uint8Array(64),
      enrol: { tokenId: long, secret: long, name: long, role: "connector" }
    })
    expect(bytes.length).toBeLessThanOrEqual(LinkHandshake.MAX_CLIENT_BYTES)
    expect(() => LinkHandshake.encode({ _tag: "Refused", code: "x", message: "y".repeat(1025) })).toThrow(RangeError)
  })
})
