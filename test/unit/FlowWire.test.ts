import { describe, expect, it } from "vitest"
import {
  decodeOpen,
  decodeVerdict,
  encodeOpen,
  encodeVerdict,
  MAX_OPEN_BYTES,
  type Open,
  VERDICTS
} from "../../src/protocol/flow/FlowWire.ts"

const open: Open = {
  kind: "tcp",
  resource: "wiki",
  host: "wiki.internal",
  port: 443,
  traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
}
const encoded = (value: Open): Uint8Array => {
  const bytes = encodeOpen(value)
  if (bytes === null) throw new Error("not encodable")
  return bytes
}

describe("FlowWire", () => {
  it("has this layout", () => {
    const bytes = encoded({ kind: "tcp", resource: "r", host: "ab", port: 0x1234, traceparent: null })
    expect([...bytes]).toEqual([1, 1, 1, 114, 2, 97, 98, 0x12, 0x34, 0])
    expect([...encodeVerdict({ code: "port_not_listed", reason: "no" })]).toEqual([6, 2, 110, 111])
  })

  it("decodes an Open byte by byte, and counts its bytes", () => {
    const bytes = encoded(open)
    for (let length = 0; length < bytes.length; length += 1) {
      expect(decodeOpen(bytes.subarray(0, length))._tag).toBe("More")
    }
    const followed = new Uint8Array([...bytes, 1, 2, 3])
    expect(decodeOpen(followed)).toEqual({ _tag: "Done", value: open, used: bytes.length })
    expect(bytes.length).toBeLessThanOrEqual(MAX_OPEN_BYTES)
  })

  it("carries every verdict", () => {
    for (const [index, code] of VERDICTS.entries()) {
      const bytes = encodeVerdict({ code, reason: "because" })
      expect(bytes[0]).toBe(index)
      expect(decodeVerdict(bytes)).toEqual({ _tag: "Done", value: { code, reason: "because" }, used: bytes.length })
    }
  })

  it("treats an unknown verdict as an internal error", () => {
    expect(decodeVerdict(Uint8Array.of(200, 0))).toEqual({
      _tag: "Done",
      value: { code: "internal", reason: "" },
      used: 2
    })
  })

  it("cuts a reason that is too long at a character", () => {
    const step = decodeVerdict(encodeVerdict({ code: "denied", reason: "ü".repeat(300) }))
    expect(step._tag === "Done" && step.value.reason).toBe("ü".repeat(127))
  })

  it.each([
    ["a version from the future", Uint8Array.of(2), "version"],
    ["an unknown kind", Uint8Array.of(1, 9), "kind"],
    ["port 0", Uint8Array.of(1, 1, 0, 1, 97, 0, 0, 0), "port"],
    ["no host", Uint8Array.of(1, 1, 0, 0, 0, 80, 0), "host"],
    ["a host with a space", Uint8Array.of(1, 1, 0, 1, 32, 0, 80, 0), "host"],
    ["a host with a NUL", Uint8Array.of(1, 1, 0, 1, 0, 0, 80, 0), "host"],
    ["text that is not UTF-8", Uint8Array.of(1, 1, 1, 255, 1, 97, 0, 80, 0), "text"],
    [
      "a resource that is too long",
      new Uint8Array([1, 1, 254, ...new Uint8Array(254).fill(97), 1, 97, 0, 80, 0]),
      "text"
    ],
    ["a trace that is none", Uint8Array.of(1, 1, 0, 1, 97, 0, 80, 1, 97), "traceparent"],
    ["a control stream with a host", Uint8Array.of(1, 2, 0, 1, 97, 0, 0, 0), "host"]
  ])("refuses %s", (_, bytes, reason) => {
    expect(decodeOpen(bytes)).toEqual({ _tag: "Bad", reason })
  })

  it("does not encode what it would refuse", () => {
    expect(encodeOpen({ ...open, port: 65_536 })).toBeNull()
    expect(encodeOpen({ ...open, host: "a".repeat(254) })).toBeNull()
    expect(encodeOpen({ ...open, host: "a b" })).toBeNull()
    expect(encodeOpen({ ...open, traceparent: "x" })).toBeNull()
    expect(encodeOpen({ kind: "control", resource: "", host: "", port: 0, traceparent: null })).not.toBeNull()
  })
})
