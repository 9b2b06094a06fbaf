import { Either, Schema } from "effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import * as Documents from "../../src/protocol/trust/Documents.ts"
import * as GrantCheck from "../../src/protocol/trust/GrantCheck.ts"
import * as NodeKey from "../../src/protocol/trust/NodeKey.ts"
import * as ResourceMatch from "../../src/protocol/trust/ResourceMatch.ts"
import * as Signed from "../../src/protocol/trust/Signed.ts"
import { runs } from "../support/Runs.ts"

const kinds = ["membership", "grant", "credential", "ticket"] as const
const key = fc.uint8Array({ minLength: 32, maxLength: 32 }).map(NodeKey.fromBytes)
const name = fc.stringMatching(/^[a-z0-9][a-z0-9-]{0,62}$/)
const port = fc.integer({ min: 1, max: 65_535 })
const range = fc.tuple(port, port).map(([a, b]) => ({ from: Math.min(a, b), to: Math.max(a, b) }))
const address = fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6(), fc.domain().map((text) => `*.${text}`)).filter((text) =>
  text.length < 256
)
const resource = fc.record({
  name,
  network: name,
  address,
  tcp: fc.array(range, { maxLength: 3 }),
  udp: fc.array(range, { maxLength: 3 }),
  allowLoopback: fc.boolean()
})
const seconds = fc.integer({ min: 0, max: 2 ** 40 })
const grant = fc.record({
  id: fc.string({ minLength: 1, maxLength: 64 }),
  clientKey: key,
  clientName: name,
  connectorKey: key,
  connectorName: name,
  resources: fc.array(resource, { maxLength: 5 }),
  issuedAt: seconds,
  life: fc.integer({ min: 1, max: 300 })
}).map(({ life, ...rest }): Documents.Grant => Object.assign(rest, { expiresAt: rest.issuedAt + life }))

describe("documents", () => {
  it("come back as they were", () => {
    fc.assert(fc.property(grant, (grant) => {
      expect(Either.getOrThrow(Documents.decode("grant", Documents.encode("grant", grant)))).toEqual(grant)
    }))
  })

  it("never throw on random or mutated bytes, and keep rules", () => {
    const signed = (payload: Uint8Array) => ({ payload, signature: new Uint8Array(64) })
    const mutated = fc.tuple(grant, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 })).map(
      ([grant, changes]) => {
        const payload = Uint8Array.from(Documents.encode("grant", grant))
        for (const [at, value] of changes) payload[at % payload.length] = value
        return payload
      }
    )
    const json = fc.json().map((text) => new TextEncoder().encode(text))
    fc.assert(
      fc.property(
        fc.oneof(fc.uint8Array({ maxLength: 400 }), mutated, json),
        fc.constantFrom(...kinds),
        (payload, kind) => {
          const result = Documents.open(kind, signed(payload), () => true, 1000)
          if (Either.isLeft(result)) expect(result.left._tag).toBe("Rejected")
          const grant = Documents.decode("grant", payload)
          if (Either.isRight(grant)) {
            expect(grant.right.expiresAt - grant.right.issuedAt).toBeLessThanOrEqual(300)
            expect(grant.right.expiresAt).toBeGreaterThan(grant.right.issuedAt)
          }
        }
      ),
      { numRuns: runs(2000) }
    )
  })

  it("are verified before they are read", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), fc.constantFrom(...kinds), (payload, kind) => {
      const result = Documents.open(kind, { payload, signature: new Uint8Array(64) }, () => false, 1000)
      expect(Either.isLeft(result) && result.left.reason).toBe("forged")
    }))
  })

  it("never sign the same bytes for two kinds", () => {
    fc.assert(fc.property(
      fc.uint8Array({ maxLength: 50 }),
      fc.uint8Array({ maxLength: 50 }),
      fc.constantFrom(...kinds),
      fc.constantFrom(...kinds),
      (left, right, one, two) => {
        const same = Buffer.compare(Signed.signedBytes(one, left), Signed.signedBytes(two, right)) === 0
        expect(same).toBe(one === two && Buffer.compare(left, right) === 0)
      }
    ))
  })

  it("travel as bytes and as text", () => {
    const bytes = fc.uint8Array({ maxLength: 600 })
    fc.assert(fc.property(fc.uint8Array({ minLength: 64, maxLength: 64 }), bytes, (signature, payload) => {
      const signed = { signature, payload }
      expect(Either.getOrThrow(Signed.fromBytes(Signed.toBytes(signed)))).toEqual(signed)
      const text = Schema.encodeSync(Signed.SignedText)(signed)
      expect(Schema.decodeSync(Signed.SignedText)(text)).toEqual(signed)
    }))
    fc.assert(fc.property(fc.oneof(bytes, fc.string()), (input) => {
      if (typeof input === "string") Schema.decodeUnknownEither(Signed.SignedText)(input)
      else expect(Either.isRight(Signed.fromBytes(input))).toBe(input.length >= 64)
    }))
  })
})

describe("a node key", () => {
  it("has one text, and no other text is a key", () => {
    fc.assert(fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (bytes) => {
      const text = NodeKey.fromBytes(bytes)
      expect(NodeKey.toBytes(text)).toEqual(bytes)
      expect(Either.isRight(NodeKey.parse(text))).toBe(true)
      for (const last of "BCDFZabd19_-") expect(Either.isLeft(NodeKey.parse(text.slice(0, 42) + last))).toBe(true)
    }))
    fc.assert(fc.property(fc.string({ maxLength: 60 }), (text) => {
      const parsed = NodeKey.parse(text)
      if (Either.isRight(parsed)) expect(NodeKey.fromBytes(NodeKey.toBytes(parsed.right))).toBe(text)
    }))
  })
})

describe("a grant's check", () => {
  const hosts = fc.oneof(fc.string(), fc.domain(), fc.ipV4(), fc.ipV6(), name)

  it("permits only listed resources, between its nodes, in its time", () => {
    fc.assert(
      fc.property(
        grant,
        hosts,
        fc.boolean(),
        fc.integer({ min: -400, max: 400 }),
        port,
        key,
        (grant, other, own, offset, wanted, stranger) => {
          const host = own ? grant.resources[0]?.address ?? other : other
          const nowSeconds = grant.issuedAt + offset
          const { clientKey, connectorKey } = grant
          const ask = { host, protocol: "tcp", port: wanted, clientKey, connectorKey, nowSeconds } as const
          const verdict = GrantCheck.permits(grant, ask)
          if (verdict._tag === "Permitted") {
            expect(grant.resources).toContain(verdict.resource)
            expect(verdict.resource.tcp.some(({ from, to }) => from <= wanted && wanted <= to)).toBe(true)
            expect(nowSeconds).toBeLessThan(grant.expiresAt + 10)
            expect(nowSeconds).toBeGreaterThanOrEqual(grant.issuedAt - 10)
          }
          expect(GrantCheck.permits(grant, { ...ask, clientKey: stranger })._tag).toBe("Refused")
          expect(GrantCheck.permits(grant, { ...ask, connectorKey: stranger })._tag).toBe("Refused")
        }
      ),
      { numRuns: runs(500) }
    )
  })

  it("finds every resource by its name and its address", () => {
    fc.assert(fc.property(resource, (resource) => {
      const names = (host: string) => ResourceMatch.matches([resource], host).map((match) => match.resource.name)
      expect(names(resource.name.toUpperCase())).toEqual([resource.name])
      const asked = resource.address.replace("*", "some")
      expect(names(asked.toUpperCase())).toEqual([resource.name])
    }))
  })

  it("never throws, whatever is asked", () => {
    fc.assert(fc.property(
      fc.array(
        fc.record({
          name,
          network: name,
          address: fc.string({ maxLength: 255 }),
          tcp: fc.constant([]),
          udp: fc.constant([]),
          allowLoopback: fc.boolean()
        }),
        { maxLength: 5 }
      ),
      hosts,
      (resources, host) => {
        for (const match of ResourceMatch.matches(resources, host)) expect(resources).toContain(match.resource)
      }
    ))
  })
})
