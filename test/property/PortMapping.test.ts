import { Either } from "effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import * as Igd from "../../src/protocol/nat/Igd.ts"
import * as NatPmp from "../../src/protocol/nat/NatPmp.ts"
import * as Pcp from "../../src/protocol/nat/Pcp.ts"
import * as PortMapping from "../../src/protocol/nat/PortMapping.ts"

const hex = (text: string) => Uint8Array.from(text.match(/../g)!, (byte) => Number.parseInt(byte, 16))
const port = fc.integer({ min: 1, max: 65535 })
const u32 = fc.integer({ min: 0, max: 0xffffffff })
const nonce = fc.uint8Array({ minLength: 12, maxLength: 12 })

describe("PCP", () => {
  it("reads what miniupnpd answers to MAP and to ANNOUNCE", () => {
    const map = Pcp.decode(
      hex(
        "0281000000000258000000020000000000000000000000002c3038053e70fdc54f7d70ab11000000" +
          "9c409c4000000000000000000000ffff2d2d2d22"
      )
    )
    expect(Either.getOrThrow(map)).toEqual({
      _tag: "Map",
      result: 0,
      lifetimeS: 600,
      epochS: 2,
      nonce: hex("2c3038053e70fdc54f7d70ab"),
      internalPort: 40000,
      external: { host: "45.45.45.34", port: 40000 }
    })
    const announce = Pcp.decode(hex("028000000000000000000002000000000000000000000000"))
    expect(Either.getOrThrow(announce)).toEqual({ _tag: "Announce", result: 0, lifetimeS: 0, epochS: 2 })
  })

  it("writes a MAP request as RFC 6887 draws it", () => {
    const bytes = Pcp.encodeMap({
      clientHost: "10.0.0.2",
      nonce: hex("000102030405060708090a0b"),
      internalPort: 0x1234,
      suggested: { host: null, port: 0x5678 },
      lifetimeS: 600
    })
    const head = "020100000000025800000000000000000000ffff0a000002"
    const opcode = "000102030405060708090a0b110000001234567800000000000000000000ffff00000000"
    expect(bytes).toEqual(hex(`${head}${opcode}`))
  })

  it("accepts its own requests turned around by a server", () => {
    fc.assert(fc.property(nonce, port, port, u32, u32, (id, internalPort, external, lifetimeS, epochS) => {
      const bytes = Pcp.encodeMap({
        clientHost: "10.0.0.2",
        nonce: id,
        internalPort,
        suggested: { host: "198.51.100.7", port: external },
        lifetimeS
      })
      bytes[1]! |= 0x80
      new DataView(bytes.buffer).setUint32(8, epochS)
      expect(Either.getOrThrow(Pcp.decode(bytes))).toEqual({
        _tag: "Map",
        result: 0,
        lifetimeS,
        epochS,
        nonce: id,
        internalPort,
        external: { host: "198.51.100.7", port: external }
      })
    }))
  })

  it("knows a NAT-PMP server by its version, and ignores echoes", () => {
    expect(Pcp.decode(hex("0081000100000001"))).toMatchObject({ left: { reason: "Version" } })
    expect(Pcp.decode(Pcp.encodeAnnounce("10.0.0.2"))).toMatchObject({ left: { reason: "NotAResponse" } })
  })
})

describe("NAT-PMP", () => {
  it("reads what miniupnpd answers", () => {
    expect(Either.getOrThrow(NatPmp.decode(hex("00800000000000022d2d2d22")))).toEqual({
      _tag: "External",
      epochS: 2,
      host: "45.45.45.34"
    })
    expect(Either.getOrThrow(NatPmp.decode(hex("00810000000000029c419c4100000258")))).toEqual({
      _tag: "Mapped",
      epochS: 2,
      internalPort: 40001,
      externalPort: 40001,
      lifetimeS: 600
    })
    expect(Either.getOrThrow(NatPmp.decode(hex("0081000200000007")))).toEqual({
      _tag: "Refused",
      to: "Mapped",
      result: 2,
      epochS: 7
    })
  })

  it("writes its requests as RFC 6886, section 3.3, draws them", () => {
    expect(NatPmp.encodeMap({ internalPort: 0x1234, suggestedPort: 0x5678, lifetimeS: 600 }))
      .toEqual(hex("000100001234567800000258"))
    expect(NatPmp.encodeExternal()).toEqual(hex("0000"))
  })
})

describe("hostile bytes and texts", () => {
  const either = (bytes: Uint8Array) => [Pcp.decode(bytes), NatPmp.decode(bytes)]
  it("never make a decoder throw, nor read past their end", () => {
    const headed = fc.tuple(fc.constantFrom(0, 2), fc.constantFrom(0x80, 0x81), fc.uint8Array({ maxLength: 80 }))
      .map(([version, opcode, rest]) => Uint8Array.from([version, opcode, ...rest]))
    fc.assert(fc.property(fc.oneof(fc.uint8Array({ maxLength: Pcp.MAX_BYTES }), headed), (bytes) => {
      for (const decoded of either(bytes)) expect(Either.isEither(decoded)).toBe(true)
    }))
    const whole = hex(
      "0281000000000258000000020000000000000000000000002c3038053e70fdc54f7d70ab11000000" +
        "9c409c4000000000000000000000ffff2d2d2d22"
    )
    for (let length = 0; length < whole.length; length++) {
      expect(Either.isLeft(Pcp.decode(whole.subarray(0, length)))).toBe(true)
    }
  })

  it("never make the reader of descriptions and answers throw", () => {
    const at = new URL("http://192.168.1.1/root.xml")
    const markup = fc.array(
      fc.constantFrom("<a>", "</a>", "<service>", "</service>", "<!DOCTYPE a [", "]>", "&x;", "<", "\0")
    )
      .map((parts) => parts.join(""))
    fc.assert(fc.property(fc.oneof(fc.string(), markup), (text) => {
      Igd.serviceOf(text, at)
      Igd.answerOf(text, "AddPortMapping")
      Igd.locationOf(text, "192.168.1.1")
    }))
    expect(Igd.serviceOf("<a>".repeat(10_000), at)).toBeNull()
    expect(Igd.answerOf(`${"<a>".repeat(9_000)}${"</a>".repeat(9_000)}`, "x")).toBeNull()
    expect(Igd.answerOf(`<x>${"y".repeat(Igd.MAX_BYTES)}</x>`, "x")).toBeNull()
  })
})

describe("a gateway device's texts", () => {
  const answer = (location: string) => `HTTP/1.1 200 OK\r\nST: upnp\r\nLocation: ${location}\r\n\r\n`
  const description = (services: string, base = "") =>
    `<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0">${base}<device><deviceList><device>
      <serviceList>${services}</serviceList></device></deviceList></device></root>`
  const service = (kind: string, control: string) =>
    `<service><serviceType>urn:schemas-upnp-org:service:${kind}</serviceType><controlURL>${control}</controlURL></service>`
  const at = new URL("http://192.168.1.1:5000/root.xml")

  it("lead nowhere but to the gateway itself", () => {
    expect(Igd.locationOf(answer("http://192.168.1.1:5000/root.xml"), "192.168.1.1")?.href).toBe(at.href)
    for (
      const location of [
        "http://192.168.1.66/root.xml",
        "http://192.168.1.1@evil.example/",
        "https://192.168.1.1/",
        "file:///etc/passwd",
        "/root.xml"
      ]
    ) expect(Igd.locationOf(answer(location), "192.168.1.1")).toBeNull()
    expect(Igd.serviceOf(description(service("WANIPConnection:1", "http://10.0.0.9/ctl")), at)).toBeNull()
    const base = "<URLBase>http://10.0.0.9/</URLBase>"
    expect(Igd.serviceOf(description(service("WANIPConnection:1", "/ctl"), base), at)).toBeNull()
  })

  it("name the service that maps ports: IP before PPP", () => {
    const both = service("WANPPPConnection:1", "/ppp") + service("Layer3Forwarding:1", "/l3") +
      service("WANIPConnection:2", "/ip")
    expect(Igd.serviceOf(description(both), at)).toEqual({
      type: "urn:schemas-upnp-org:service:WANIPConnection:2",
      control: new URL("http://192.168.1.1:5000/ip")
    })
    expect(Igd.serviceOf(description(service("Layer3Forwarding:1", "/l3")), at)).toBeNull()
  })

  it("say yes with values, or no with a code", () => {
    const soap = (body: string) =>
      `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>${body}</s:Body></s:Envelope>`
    const yes = Igd.answerOf(
      soap("<u:GetXResponse xmlns:u=\"urn:x\"><NewX> 198.51.100.7\n</NewX></u:GetXResponse>"),
      "GetX"
    )
    expect(yes?._tag === "Ok" && yes.values.get("NewX")).toBe("198.51.100.7")
    const no = soap(
      "<s:Fault><detail><UPnPError xmlns=\"urn:schemas-upnp-org:control-1-0\"><errorCode>718</errorCode></UPnPError></detail></s:Fault>"
    )
    expect(Igd.answerOf(no, "GetX")).toEqual({ _tag: "Refused", code: Igd.CONFLICT })
    expect(Igd.answerOf(soap("<u:OtherResponse xmlns:u=\"urn:x\"/>"), "GetX")).toBeNull()
  })
})

describe("a mapping", () => {
  it("is renewed without hurry at half of its lifetime", () => {
    expect(PortMapping.renewAfterMs(600)).toBe(300_000)
    expect(PortMapping.renewAfterMs(120)).toBe(60_000)
    expect(PortMapping.renewAfterMs(1)).toBe(4_000)
    expect(PortMapping.renewAfterMs(86_400)).toBe(300_000)
    expect(PortMapping.renewAfterMs(0)).toBe(300_000)
  })

  for (const protocol of ["pcp", "nat-pmp"] as const) {
    it(`${protocol}: late packets and poor clocks are no restarts`, () => {
      fc.assert(
        fc.property(
          u32,
          fc.integer({ min: 0, max: 10_000 }),
          fc.integer({ min: 95, max: 105 }),
          (serverS, passedS, percent) => {
            const before = { serverS, atMs: 1000 }
            const now = { serverS: serverS + Math.floor((passedS * percent) / 100), atMs: 1000 + passedS * 1000 }
            expect(PortMapping.hasRestarted(protocol, before, now)).toBe(false)
          }
        )
      )
    })
    it(`${protocol}: one whose clock fell back has`, () => {
      const before = { serverS: 5_000, atMs: 0 }
      expect(PortMapping.hasRestarted(protocol, before, { serverS: 3, atMs: 60_000 })).toBe(true)
      expect(PortMapping.hasRestarted(protocol, { serverS: 10, atMs: 0 }, { serverS: 15, atMs: 300_000 })).toBe(true)
    })
  }
})
