import { Either } from "effect"
import { describe, expect, it } from "vitest"
import * as PathMessage from "../../src/protocol/path/PathMessage.ts"

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex")
const txId = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)

describe("path messages on the wire", () => {
  it("are laid out as documented", () => {
    const ping = PathMessage.encode({ _tag: "Ping", txId, pathId: 258, flags: 1, padTo: 0 })
    expect(hex(ping)).toBe(`01010102${hex(txId)}${"00".repeat(20)}`)
    expect(hex(PathMessage.encode({ _tag: "Pong", txId, pathId: 0, observed: { host: "192.0.2.1", port: 258 } })))
      .toBe(`0200${hex(txId)}040102c0000201`)
    expect(hex(PathMessage.encode({ _tag: "Pong", txId, pathId: 0, observed: null }))).toBe(`0200${hex(txId)}000000`)
    const list = [{ kind: "srflx" as const, address: { host: "2001:db8::1", port: 1 }, priority: 258 }]
    expect(hex(PathMessage.encode({ _tag: "Candidates", seq: 7, list })))
      .toBe("030000000701010000010206000120010db8000000000000000000000001")
    expect(hex(PathMessage.encode({ _tag: "Candidates", seq: 7, list: [], mapping: "varies" }))).toBe("03000000070001")
    expect(hex(PathMessage.encode({ _tag: "CandidatesAck", seq: 0xffffffff }))).toBe("04ffffffff")
    expect(hex(PathMessage.encode({ _tag: "Switch", reason: "network_changed" }))).toBe("0502")
    const opened = { attempt: 258, seen: [{ host: "192.0.2.1", port: 258 }], delta: -2 }
    expect(hex(PathMessage.encode({ _tag: "Opened", opened }))).toBe("0600000102fe01040102c0000201")
  })

  it("of mappings and open ports come back as they were", () => {
    const messages: ReadonlyArray<PathMessage.PathMessage> = [
      { _tag: "Candidates", seq: 1, list: [], mapping: "steady" },
      { _tag: "Candidates", seq: 1, list: [] },
      { _tag: "Opened", opened: { attempt: 0xffffffff, seen: [{ host: "192.0.2.1", port: 1 }], delta: null } },
      { _tag: "Opened", opened: { attempt: 1, seen: [], delta: 127 } }
    ]
    for (const message of messages) {
      expect(PathMessage.decode(PathMessage.encode(message))).toEqual(Either.right(message))
    }
  })

  it("never answer with more than was asked", () => {
    const ping = PathMessage.encode({ _tag: "Ping", txId, pathId: null, flags: 0, padTo: 1 })
    const pong = PathMessage.encode({ _tag: "Pong", txId, pathId: 0, observed: { host: "2001:db8::1", port: 65535 } })
    expect(pong.length).toBeLessThanOrEqual(ping.length)
    const ack = PathMessage.encode({ _tag: "CandidatesAck", seq: 1 })
    expect(ack.length).toBeLessThanOrEqual(PathMessage.encode({ _tag: "Candidates", seq: 1, list: [] }).length)
  })

  it.each([
    ["nothing", "", "Empty"],
    ["an unknown type", "09", "UnknownType"],
    ["a ping too short for its pong", `0100ffff${hex(txId)}`, "Truncated"],
    ["a pong cut in its address", `0200${hex(txId)}040102c00002`, "Truncated"],
    ["a pong with more after it", `0200${hex(txId)}00000000`, "Trailing"],
    ["an address family that is none", `0200${hex(txId)}050102c0000201`, "BadAddress"],
    ["port 0", `0200${hex(txId)}040000c0000201`, "BadAddress"],
    ["17 candidates", `030000000011${"00".repeat(400)}`, "BadCount"],
    ["a candidate of an unknown kind", "03000000010109000000010400010a000001", "BadEnum"],
    ["a candidate without an address", "0300000001010000000001000000", "BadAddress"],
    ["a switch for no known reason", "0509", "BadEnum"]
  ])("reject %s", (_name, bytes, reason) => {
    expect(PathMessage.decode(Buffer.from(bytes, "hex"))).toEqual(Either.left(reason))
  })

  it("reject what is larger than any packet", () => {
    expect(PathMessage.decode(new Uint8Array(PathMessage.MAX_BYTES + 1).fill(1))).toEqual(Either.left("TooLong"))
  })
})
