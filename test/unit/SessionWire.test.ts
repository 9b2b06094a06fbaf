import { describe, expect, it } from "vitest"
import { Decoder, encode, MAX_MESSAGE_BYTES, type SessionMessage } from "../../src/protocol/flow/SessionWire.ts"
import { LEG_KINDS } from "../../src/protocol/path/PathKind.ts"

const bytes = (message: SessionMessage): Uint8Array => {
  const encoded = encode(message)
  if (encoded === null) throw new Error("not encodable")
  return encoded
}
const ALL: ReadonlyArray<SessionMessage> = [
  { _tag: "ProbeSecret", secret: new Uint8Array(32).fill(7) },
  { _tag: "Grant", signed: Uint8Array.of(1, 2, 3) },
  { _tag: "GrantAck", id: "g-1" },
  { _tag: "GrantRefused", reason: "expired" },
  ...LEG_KINDS.map((kind): SessionMessage => ({ _tag: "Leg", kind })),
  { _tag: "Goaway", reason: "shutting down" }
]

describe("SessionWire", () => {
  it("decodes what it encodes, whole and byte by byte", () => {
    const stream = Uint8Array.from(ALL.flatMap((message) => [...bytes(message)]))
    expect(new Decoder().push(stream)).toEqual({ _tag: "Messages", messages: ALL })
    const decoder = new Decoder()
    const seen: Array<SessionMessage> = []
    for (const byte of stream) {
      const step = decoder.push(Uint8Array.of(byte))
      if (step._tag === "Messages") seen.push(...step.messages)
    }
    expect(seen).toEqual(ALL)
  })

  it.each([5, 7, 99])("skips type %d, which is retired or of the future", (type) => {
    const future = Uint8Array.of(0, 3, type, 1, 2)
    const known = bytes({ _tag: "Goaway", reason: "" })
    expect(new Decoder().push(Uint8Array.from([...future, ...known]))).toEqual({
      _tag: "Messages",
      messages: [{ _tag: "Goaway", reason: "" }]
    })
  })

  it.each([
    ["a message without a type", Uint8Array.of(0, 0), "empty"],
    ["a secret of another length", Uint8Array.of(0, 3, 1, 5, 5), "secret"],
    ["an unknown leg", Uint8Array.of(0, 2, 6, 9), "leg"],
    ["text that is not UTF-8", Uint8Array.of(0, 2, 8, 255), "text"]
  ])("refuses %s", (_, wire, reason) => {
    expect(new Decoder().push(wire)).toEqual({ _tag: "Bad", reason })
  })

  it("does not encode what does not fit", () => {
    expect(encode({ _tag: "ProbeSecret", secret: new Uint8Array(31) })).toBeNull()
    expect(encode({ _tag: "Grant", signed: new Uint8Array(MAX_MESSAGE_BYTES) })).toBeNull()
    expect(encode({ _tag: "Goaway", reason: "x".repeat(1025) })).toBeNull()
    expect(bytes({ _tag: "Grant", signed: new Uint8Array(MAX_MESSAGE_BYTES - 1) })).toHaveLength(MAX_MESSAGE_BYTES + 2)
  })

  it("takes the largest message in tiny pieces in reasonable time", () => {
    const wire = bytes({ _tag: "Grant", signed: new Uint8Array(MAX_MESSAGE_BYTES - 1) })
    const decoder = new Decoder()
    const before = process.cpuUsage()
    let messages = 0
    for (let at = 0; at < wire.length; at += 1) {
      const step = decoder.push(wire.subarray(at, at + 1))
      if (step._tag === "Messages") messages += step.messages.length
    }
    expect(messages).toBe(1)
    expect(process.cpuUsage(before).user / 1000).toBeLessThan(1000)
  })
})
