import { describe, expect, it } from "vitest"
import { VERDICTS } from "../../src/protocol/flow/FlowWire.ts"
import { Handshake, MAX_HANDSHAKE_BYTES, reply, replyOf } from "../../src/protocol/flow/Socks5.ts"

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
    expect(connect).toMatchObject({ _tag: "Connect", write: new Uint8Array(0), target, early: new Uint8Array(0) })
    expect(connect?._tag === "Connect" && connect.answer("refused")).toEqual(reply(5))
  })

  it("accepts it byte by byte, or with early bytes", () => {
    const all = [...GREETING, ...NAME]
    const steps = feed(...all.map((byte) => [byte]))
    expect(steps.map(({ _tag }) => _tag)).toEqual([...all.slice(1).map(() => "More"), "Connect"])
    expect(steps.flatMap(({ write }) => Array.from(write))).toEqual([5, 0])
    const [once] = feed([...all, 71, 69, 84])
    expect(once).toMatchObject({
      _tag: "Connect",
      write: Uint8Array.of(5, 0),
      target: { host: "wiki", port: 80 },
      early: Uint8Array.of(71, 69, 84)
    })
  })

  it.each([
    ["an unknown version", [[6, 1, 0, 80]], "version", []],
    ["TLS", [[0x16, 3, 1]], "tls", []],
    ["BIND of SOCKS4", [[4, 2, 0, 80, 10, 0, 0, 7, 0]], "command", [0, 91, 0, 0, 0, 0, 0, 0]],
    ["port 0 of SOCKS4", [[4, 1, 0, 0, 10, 0, 0, 7, 0]], "address", [0, 91, 0, 0, 0, 0, 0, 0]],
    ["an empty name of SOCKS4a", [[4, 1, 0, 80, 0, 0, 0, 1, 0, 0]], "address", [0, 91, 0, 0, 0, 0, 0, 0]],
    ["SOCKS4 without an end", [[4, 1, 0, 80, 10, 0, 0, 7], Array.from({ length: 1024 }, () => 65)], "too_long", []],
    ["a name that is not UTF-8", [GREETING, [5, 1, 0, 3, 2, 0xc3, 0x28, 0, 80]], "address", [...reply(1)]],
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

  const ascii = (text: string) => Array.from(new TextEncoder().encode(text))
  it.each([
    ["SOCKS4", [4, 1, 0, 80, 10, 0, 0, 7, ...ascii("me"), 0], "10.0.0.7"],
    ["SOCKS4a", [4, 1, 0, 80, 0, 0, 0, 1, 0, ...ascii("wiki"), 0], "wiki"],
    ["SOCKS4a with a user", [4, 1, 0, 80, 0, 0, 0, 9, ...ascii("me"), 0, ...ascii("web.corp"), 0], "web.corp"]
  ])("accepts %s, whole or byte by byte", (_, request, host) => {
    for (const parts of [[request], request.map((byte) => [byte])]) {
      const step = feed(...parts.slice(0, -1), [...parts.at(-1) ?? [], ...ascii("GET")]).at(-1)
      expect(step).toMatchObject({ _tag: "Connect", target: { host, port: 80 }, early: Uint8Array.of(71, 69, 84) })
      if (step?._tag !== "Connect") throw new Error("not a CONNECT")
      expect([...step.answer("accepted")]).toEqual([0, 90, 0, 0, 0, 0, 0, 0])
      expect([...step.answer("denied")]).toEqual([0, 91, 0, 0, 0, 0, 0, 0])
    }
  })

  it("takes a name in UTF-8 as A-labels", () => {
    const name = ascii("bücher.example")
    const [, step] = feed(GREETING, [5, 1, 0, 3, name.length, ...name, 0, 80])
    expect(step).toMatchObject({ _tag: "Connect", target: { host: "xn--bcher-kva.example", port: 80 } })
  })

  it("tells HTTP what this port is", () => {
    for (const first of ["GET / HTTP/1.1\r\nHost: x\r\n", "CONNECT a:443 HTTP/1.1\r\n"]) {
      const [more, done] = feed(ascii(first), ascii("\r\n"))
      expect(more).toMatchObject({ _tag: "More" })
      expect(done).toMatchObject({ _tag: "Fail", reason: "http" })
      const [head = "", body = ""] = new TextDecoder().decode(done?.write).split("\r\n\r\n")
      expect(head).toMatch(/^HTTP\/1\.1 501 /)
      expect(head).toContain(`Content-Length: ${body.length}`)
      expect(body).toContain("SOCKS5 proxy")
    }
    const long = Array.from({ length: 8193 }, () => 65)
    expect(feed(long)[0]).toMatchObject({ _tag: "Fail", reason: "http" })
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
