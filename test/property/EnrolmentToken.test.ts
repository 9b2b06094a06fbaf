import { Either, Redacted } from "effect"
import * as fc from "fast-check"
import { inspect } from "node:util"
import { describe, expect, it } from "vitest"
import * as EnrolmentToken from "../../src/protocol/trust/EnrolmentToken.ts"
import * as NodeKey from "../../src/protocol/trust/NodeKey.ts"
import { runs } from "../support/Runs.ts"

const key = fc.uint8Array({ minLength: 32, maxLength: 32 }).map(NodeKey.fromBytes)
const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length }).map((all) => Buffer.from(all))
const tokens = fc.record({
  host: fc.constantFrom("relay.example.com", "203.0.113.7", "2001:db8::1", "r", "a".repeat(253)),
  httpsPort: fc.integer({ min: 1, max: 65_535 }),
  tls: fc.oneof(
    fc.constantFrom<EnrolmentToken.RelayTrust>({ _tag: "Ca" }, { _tag: "Proxied" }),
    key.map((key): EnrolmentToken.RelayTrust => ({ _tag: "Pin", key }))
  ),
  authorityKey: key,
  id: bytes(8).map((id) => id.toString("hex")),
  secret: bytes(16).map((secret) => Redacted.make(secret.toString("base64url")))
})
const plain = (token: EnrolmentToken.EnrolmentToken) => ({ ...token, secret: Redacted.value(token.secret) })
const reasonOf = (text: string) =>
  Either.match(EnrolmentToken.parse(text), { onLeft: ({ reason }) => reason, onRight: () => "good" })

describe("an enrolment token", () => {
  it("comes back as it was, also wrapped over lines", () => {
    fc.assert(fc.property(tokens, fc.integer({ min: 20, max: 90 }), (token, width) => {
      const text = EnrolmentToken.encode(token)
      expect(text).toMatch(/^sp1_[A-Za-z0-9_-]+$/)
      const wrapped = `  ${text.replace(new RegExp(`.{1,${width}}`, "g"), "$&\r\n ")}\t`
      expect(plain(Either.getOrThrow(EnrolmentToken.parse(wrapped)))).toEqual(plain(token))
    }))
  })

  it("is reported as cut wherever its end is missing", () => {
    fc.assert(fc.property(tokens, fc.double({ min: 0, max: 1, noNaN: true }), (token, part) => {
      const text = EnrolmentToken.encode(token)
      const length = 4 + Math.floor((text.length - 4) * part)
      if (length < text.length) expect(reasonOf(text.slice(0, length))).toBe("truncated")
    }))
  })

  it("is never taken for good with one character changed", () => {
    const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    fc.assert(fc.property(tokens, fc.nat(), fc.constantFrom(...letters.split("")), (token, seed, letter) => {
      const text = EnrolmentToken.encode(token)
      const at = 4 + seed % (text.length - 4)
      const changed = text.slice(0, at) + letter + text.slice(at + 1)
      const result = EnrolmentToken.parse(changed)
      // The last character may have bits that stand for nothing.
      if (Either.isRight(result)) expect(plain(result.right)).toEqual(plain(token))
      else expect(["altered", "truncated"]).toContain(result.left.reason)
    }))
  })

  it("never throws, whatever is pasted, and repeats none of it", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string({ unit: "binary", maxLength: 300 }),
          fc.base64String({ maxLength: 300 }).map((text) => `sp1_${text}`),
          fc.uint8Array({ maxLength: 300 }).map((all) => `sp1_${Buffer.from(all).toString("base64url")}`)
        ),
        (text) => {
          const result = EnrolmentToken.parse(text)
          expect(Either.isLeft(result)).toBe(true)
          if (Either.isLeft(result) && text.length > 12) expect(result.left.message).not.toContain(text.slice(4, 12))
        }
      ),
      { numRuns: runs(2000) }
    )
  })

  it("names its version, or says why it is no token", () => {
    expect(reasonOf("")).toBe("empty")
    expect(reasonOf(" \n")).toBe("empty")
    expect(reasonOf("hello")).toBe("not_a_token")
    expect(reasonOf("sp1_")).toBe("truncated")
    expect(reasonOf("sp2_AAAA")).toBe("wrong_version")
    expect(reasonOf("sp1_!!!!")).toBe("malformed")
    expect(reasonOf("x".repeat(1_000_000))).toBe("not_a_token")
  })

  it("shows no secret when printed", () => {
    fc.assert(
      fc.property(tokens, (token) => {
        const parsed = Either.getOrThrow(EnrolmentToken.parse(EnrolmentToken.encode(token)))
        const secret = Redacted.value(token.secret)
        expect(inspect(parsed, { depth: 9 }) + JSON.stringify(parsed)).not.toContain(secret)
      }),
      { numRuns: runs(20) }
    )
  })
})
