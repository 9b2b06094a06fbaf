import { Either } from "effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import * as PathMessage from "../../src/protocol/path/PathMessage.ts"
import { runs } from "../support/Runs.ts"

const txId = fc.uint8Array({ minLength: 8, maxLength: 8 })
const u32 = fc.integer({ min: 0, max: 0xffffffff })
const address = fc.record({
  host: fc.oneof(fc.ipV4(), fc.integer({ min: 1, max: 0xffff }).map((n) => `2001:db8::${n.toString(16)}`)),
  port: fc.integer({ min: 1, max: 65535 })
})
const candidate = fc.record({
  kind: fc.constantFrom("host" as const, "srflx" as const, "prflx" as const, "port-mapped" as const),
  address,
  priority: fc.integer({ min: 1, max: 0x7fffffff })
})
const message: fc.Arbitrary<PathMessage.PathMessage> = fc.oneof(
  fc.record({
    _tag: fc.constant("Ping" as const),
    txId,
    pathId: fc.option(fc.integer({ min: 0, max: 65534 })),
    flags: fc.integer({ min: 0, max: 255 }),
    padTo: fc.integer({ min: PathMessage.MIN_PING_BYTES, max: PathMessage.MAX_BYTES })
  }),
  fc.record({
    _tag: fc.constant("Pong" as const),
    txId,
    pathId: fc.option(fc.integer({ min: 0, max: 254 })),
    observed: fc.option(address)
  }),
  fc.record({ _tag: fc.constant("Candidates" as const), seq: u32, list: fc.array(candidate, { maxLength: 16 }) }),
  fc.record({ _tag: fc.constant("CandidatesAck" as const), seq: u32 }),
  fc.record({
    _tag: fc.constant("Switch" as const),
    reason: fc.constantFrom("path_blackholed" as const, "path_failed" as const, "network_changed" as const)
  })
)

describe("path messages", () => {
  it("are read as they were written", () => {
    fc.assert(
      fc.property(message, (it) => {
        expect(PathMessage.decode(PathMessage.encode(it))).toEqual(Either.right(it))
      })
    )
  })

  it("never throw, and what they accept is bounded", () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 500 }),
      fc.tuple(fc.integer({ min: 1, max: 5 }), fc.uint8Array({ maxLength: 450 })).map(([type, rest]) =>
        Uint8Array.of(type, ...rest)
      ),
      fc.tuple(message, fc.nat(), fc.integer({ min: 0, max: 255 })).map(([it, at, value]) => {
        const out = Uint8Array.from(PathMessage.encode(it))
        out[at % out.length] = value
        return out
      }),
      fc.tuple(message, fc.nat()).map(([it, cut]) => {
        const out = PathMessage.encode(it)
        return out.subarray(0, cut % (out.length + 1))
      })
    )
    fc.assert(
      fc.property(bytes, (input) => {
        const decoded = PathMessage.decode(input)
        if (Either.isRight(decoded) && decoded.right._tag === "Candidates") {
          expect(decoded.right.list.length).toBeLessThanOrEqual(16)
        }
      }),
      { numRuns: runs(5_000) }
    )
  })
})
