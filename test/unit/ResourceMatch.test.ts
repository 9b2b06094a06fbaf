import { assert, describe, it } from "@effect/vitest"
import type { Resource } from "../../src/protocol/trust/Documents.ts"
import * as ResourceMatch from "../../src/protocol/trust/ResourceMatch.ts"

const web = [{ from: 80, to: 80 }]
const resource = (name: string, address: string, tcp = web): Resource => ({
  name,
  network: "default",
  address,
  tcp,
  udp: [{ from: 53, to: 60 }],
  allowLoopback: false
})
const resources = [
  resource("lan", "10.0.0.0/8"),
  resource("rack", "10.1.0.0/16"),
  resource("wiki", "10.1.2.3"),
  resource("ssh", "10.1.2.3", [{ from: 22, to: 22 }]),
  resource("corp", "*.example.com"),
  resource("dev", "*.dev.example.com"),
  resource("api", "api.dev.example.com"),
  resource("six", "2001:db8::/33"),
  resource("host6", "2001:DB8:0:0::7"),
  resource("trap", "wiki")
]
const found = (host: string, port = 80) => {
  const match = ResourceMatch.find(resources, host, "tcp", port)
  return match === undefined ? null : `${match.resource.name} ${match.dialHost}`
}

describe("a requested host means", () => {
  it("the resource of that name first, in any case", () => {
    assert.strictEqual(found("wiki"), "wiki 10.1.2.3")
    assert.strictEqual(found("WiKi"), "wiki 10.1.2.3")
    assert.strictEqual(found("wiki."), "wiki 10.1.2.3")
  })

  it("else the resource of that address with the port", () => {
    assert.strictEqual(found("10.1.2.3"), "wiki 10.1.2.3")
    assert.strictEqual(found("10.1.2.3", 22), "ssh 10.1.2.3")
    assert.strictEqual(found("API.dev.example.com."), "api api.dev.example.com")
    assert.strictEqual(found("2001:db8::7"), "host6 2001:DB8:0:0::7")
    assert.strictEqual(found("[2001:db8:0::0:7]"), "host6 2001:DB8:0:0::7")
  })

  it("else the closest pattern, dialled as asked", () => {
    assert.strictEqual(found("a.b.example.com"), "corp a.b.example.com")
    assert.strictEqual(found("x.dev.example.com"), "dev x.dev.example.com")
    assert.strictEqual(found("10.1.9.9"), "rack 10.1.9.9")
    assert.strictEqual(found("10.2.9.9"), "lan 10.2.9.9")
    assert.strictEqual(found("2001:db8:7fff::1"), "six 2001:db8:7fff::1")
  })

  it("the same in any case, with a dot, or Unicode", () => {
    const some = [
      resource("web.corp", "intranet.local."),
      resource("db_1", "10.0.0.9"),
      resource("books", "xn--bcher-kva.example"),
      resource("zone", "*.xn--mnchen-3ya.example"),
      resource("whole", "*.whole.example.")
    ]
    const of = (host: string) => {
      const match = ResourceMatch.find(some, host, "tcp", 80)
      return match === undefined ? null : `${match.resource.name} ${match.dialHost}`
    }
    for (const host of ["web.corp", "Web.CORP.", "intranet.local", "INTRANET.local."]) {
      assert.strictEqual(of(host), "web.corp intranet.local.")
    }
    assert.strictEqual(of("DB_1"), "db_1 10.0.0.9")
    assert.strictEqual(of("bücher.example"), "books xn--bcher-kva.example")
    assert.strictEqual(of("XN--BCHER-KVA.example."), "books xn--bcher-kva.example")
    assert.strictEqual(of("a.münchen.example"), "zone a.xn--mnchen-3ya.example")
    assert.strictEqual(of("a.münchen.example."), "zone a.xn--mnchen-3ya.example.")
    assert.strictEqual(of("a.whole.example"), "whole a.whole.example.")
    assert.isNull(of("bücher.example/x"))
  })

  it("nothing where a pattern does not quite fit", () => {
    for (
      const host of [
        "example.com",
        ".example.com",
        "a..example.com",
        "a b.example.com",
        "evilexample.com",
        "a.example.com.evil",
        "11.0.0.1",
        "2001:db8:8000::1",
        "10.1.2.3%eth0",
        "fe80::1%eth0",
        "10.1.2",
        "",
        "[]",
        "x".repeat(300)
      ]
    ) assert.isNull(found(host), host)
  })

  it("the IPv4 address that an IPv4-mapped IPv6 address reaches", () => {
    assert.strictEqual(found("::ffff:10.1.2.3"), "wiki 10.1.2.3")
    assert.strictEqual(found("::ffff:a02:909"), "lan 10.2.9.9")
    assert.isNull(found("::ffff:192.0.2.1"))
  })

  it("a port only inside the listed ranges of its protocol", () => {
    const wiki = resources[2] ?? resource("none", "x")
    assert.deepStrictEqual([52, 53, 60, 61].map((port) => ResourceMatch.listsPort(wiki, "udp", port)), [
      false,
      true,
      true,
      false
    ])
    assert.isFalse(ResourceMatch.listsPort(wiki, "tcp", 53))
    assert.isNull(found("wiki", 81))
  })

  it("nothing by a broken CIDR, and all by /0", () => {
    const match = (address: string, host: string) =>
      ResourceMatch.find([resource("one", address)], host, "tcp", 80)?.resource.name
    for (const cidr of ["10.0.0.0/33", "10.0.0.0/", "/8", "10.0.0/8", "10.0.0.0/-1", "2001:db8::/129"]) {
      assert.isUndefined(match(cidr, "10.0.0.1"), cidr)
    }
    assert.strictEqual(match("0.0.0.0/0", "192.0.2.1"), "one")
    assert.isUndefined(match("0.0.0.0/0", "::1"))
    assert.strictEqual(match("::/0", "2001:db8::1"), "one")
    assert.isUndefined(match("::/0", "192.0.2.1"))
    assert.isUndefined(match("0.0.0.0/0", "a.name"))
  })
})
