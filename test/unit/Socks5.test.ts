import { describe, expect, it } from "vitest"
import { VERDICTS } from "../../src/protocol/FlowWire.ts"
import { Handshake, MAX_HANDSHAKE_BYTES, reply, replyOf } from "../../src/protocol/Socks5.ts"

const GREETING = [5, 1, 0]
const V4 = [5, 1, 0, 1, 10, 0, 0, 7, 0, 80]
const V6 = [5, 1, 0, 4, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 187]
const NAME = [5, 1, 0, 3, 4, ...new TextEncoder().encode("wiki"), 0, 80]
const feed = (...parts: ReadonlyArray<ReadonlyArray<number>>) => {
  const handshake = new Handshake()
  return parts.map((part) => handshake.push(Uint8Array.from(part)))
}

describe("Socks5", () => {
  it.each([
    ["an IPv4 address", V4, { host: "10.0.0.7", port: 80 }],
    ["an IPv6 address", V6, { host: "2001:db8:0:0:0:0:0:1", port: 443 }],
    ["a name", NAME, { host: "wiki", port: 80 }]
  ])("takes a CONNECT to %s", (_, request, target) => {
    const [greeted, connect] = feed(GREETING, request)
    expect(greeted).toEqual({ _tag: "More", write: Uint8Array.of(5, 0) })
    expect(connect).toEqual({ _tag: "Connect", write: new Uint8Array(0), target, early: new Uint8Array(0) })
  })

  it("takes all of it byte by byte, or at once with early bytes behind", () => {
    const all = [...GREETING, ...NAME]
    const steps = feed(...all.map((byte) => [byte]))
    expect(steps.map(({ _tag }) => _tag)).toEqual([...all.slice(1).map(() => "More"), "Connect"])
    expect(steps.flatMap(({ write }) => Array.from(write))).toEqual([5, 0])
    const [once] = feed([...all, 71, 69, 84])
    expect(once).toEqual({
      _tag: "Connect",
      write: Uint8Array.of(5, 0),
      target: { host: "wiki", port: 80 },
      early: Uint8Array.of(71, 69, 84)
    })
  })

  it.each([
    ["SOCKS4", [[4, 1, 0, 80]], "version", []],
    ["HTTP", [[71, 69, 84]], "version", []],
    ["a client that wants a password", [[5, 1, 2]], "method", [5, 255]],
    ["BIND", [GREETING, [5, 2, 0, 1]], "command", [...reply(7)]],
    ["UDP ASSOCIATE", [GREETING, [5, 3, 0, 1]], "command", [...reply(7)]],
    ["an unknown kind of address", [GREETING, [5, 1, 0, 2, 0]], "address", [...reply(8)]],
    ["an empty name", [GREETING, [5, 1, 0, 3, 0, 0, 80]], "address", [...reply(1)]],
    ["a name with a NUL", [GREETING, [5, 1, 0, 3, 1, 0, 0, 80]], "address", [...reply(1)]],
    ["port 0", [GREETING, [5, 1, 0, 1, 1, 1, 1, 1, 0, 0]], "address", [...reply(1)]]
  ])("refuses %s", (_, parts, reason, write) => {
    expect(feed(...parts).at(-1)).toEqual({ _tag: "Fail", reason, write: Uint8Array.from(write) })
  })

  it("never keeps more than a handshake can have", () => {
    // The longest greeting and request together are below the limit, so only a machine that waits for ever could pass it.
    expect(2 + 255 + 5 + 255 + 2).toBeLessThan(MAX_HANDSHAKE_BYTES)
  })

  it("answers each verdict with its own class of error", () => {
    expect(Object.fromEntries(VERDICTS.map((code) => [code, replyOf(code)]))).toEqual({
      accepted: 0,
      refused: 5,
      unreachable: 4,
      timed_out: 4,
      denied: 2,
      name_not_found: 4,
      port_not_listed: 2,
      grant_expired: 2,
      too_many_flows: 1,
      internal: 1
    })
    expect([...reply(5)]).toEqual([5, 5, 0, 1, 0, 0, 0, 0, 0, 0])
  })
})
