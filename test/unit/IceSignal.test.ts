import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import * as IceSignal from "../../src/protocol/candidate/IceSignal.ts"

const signals: ReadonlyArray<IceSignal.IceSignal> = [
  { kind: "offer", attempt: 1, sdp: "v=0\r\n" },
  { kind: "answer", attempt: 1_790_000_000_000, sdp: "v=0\r\n" },
  { kind: "candidate", attempt: 2, candidate: "a=candidate:1 1 UDP 2114977791 192.0.2.1 4000 typ host", mid: "0" },
  { kind: "end", attempt: 0 }
]

describe("signals of ICE", () => {
  it.each(signals)("come back as they were: $kind", (signal) => {
    expect(IceSignal.decode(IceSignal.encode(signal))).toEqual(signal)
  })

  it.each([
    ["an SDP past its limit", { kind: "offer", attempt: 1, sdp: "x".repeat(16_385) }],
    ["a kind that is not known", { kind: "rollback", attempt: 1 }],
    ["a negative attempt", { kind: "end", attempt: -1 }],
    ["no object", 7]
  ])("are refused: %s", (_, bad) => {
    expect(IceSignal.decode(Buffer.from(JSON.stringify(bad)))).toBeNull()
  })

  it("are refused without a crash whatever the bytes are", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      expect(IceSignal.decode(bytes)).toBeNull()
    }))
  })
})
