import { Either, Redacted } from "effect"
import { assert, describe, it } from "vitest"
import * as ProxyUrl from "../../src/protocol/relay/ProxyUrl.ts"

const parsed = (text: string) => {
  const proxy = Either.getOrThrowWith(ProxyUrl.parse(text), (problem) => new Error(problem))
  const login = proxy.login === null
    ? null
    : [proxy.login.user, Redacted.value(proxy.login.password)].map((bytes) => Buffer.from(bytes).toString("latin1"))
  return { ...proxy, login }
}

const relay = { host: "relay.example.com", port: 443, setting: null }
const by = (env: Readonly<Record<string, string>>, wanted: Partial<ProxyUrl.Wanted> = {}) => {
  const choice = ProxyUrl.choose({ ...relay, env, ...wanted })
  return choice._tag === "Proxy" ? ProxyUrl.render(choice.proxy) : choice._tag
}

describe("a proxy's URL", () => {
  it.each(
    [
      ["http://proxy:3128", "http", "proxy", 3128],
      ["HTTP://proxy", "http", "proxy", 80],
      ["proxy:3128", "http", "proxy", 3128],
      ["https://proxy.example.com/", "https", "proxy.example.com", 443],
      ["socks://proxy", "socks5", "proxy", 1080],
      ["socks5://[2001:db8::1]:9", "socks5", "2001:db8::1", 9],
      [" socks5h://10.0.0.1:1080 ", "socks5", "10.0.0.1", 1080]
    ] as const
  )("understands %s", (text, kind, host, port) => {
    assert.deepInclude(parsed(text), { kind, host, port, login: null, oddity: null })
  })

  it.each([
    ["http://user:pass@proxy", "user", "pass"],
    ["http://user:p%40ss%25@proxy", "user", "p@ss%"],
    ["http://us%C3%A9r:%ff@proxy", "us\u00c3\u00a9r", "\u00ff"],
    ["user:p@ss/#?@proxy:1", "user", "p@ss/#?"],
    ["http://user@proxy", "user", ""],
    ["http://user:a:b@proxy", "user", "a:b"]
  ])("decodes the login of %s", (text, user, password) => {
    const proxy = parsed(text)
    assert.deepStrictEqual([proxy.host, proxy.login, proxy.oddity], ["proxy", [user, password], null])
  })

  it("takes a stray % as it is, and says so", () => {
    const proxy = parsed("http://user:100%sure%4@proxy")
    assert.deepStrictEqual(proxy.login, ["user", "100%sure%4"])
    assert.include(proxy.oddity, "%25")
  })

  it.each([
    "socks4://u:hunter2@proxy",
    "ftp://u:hunter2@p",
    "http://u:hunter2@",
    "http://u:hunter2@p:0",
    "http://u:hunter2@[::g]:1",
    "http://a b"
  ])(
    "refuses %s without its password",
    (text) => {
      const problem = Either.getOrThrow(Either.flip(ProxyUrl.parse(text)))
      assert.notInclude(problem, "hunter2")
    }
  )

  it("never shows the login", () => {
    const proxy = Either.getOrThrow(ProxyUrl.parse("socks5://alice:hunter2@proxy:1"))
    assert.strictEqual(ProxyUrl.render(proxy), "socks5://proxy:1")
    assert.notInclude(JSON.stringify(proxy.login?.password), "hunter2")
  })
})

describe("the proxy that is chosen", () => {
  it("comes from the environment, in both cases of its names", () => {
    assert.strictEqual(by({}), "Direct")
    assert.strictEqual(by({ HTTPS_PROXY: "http://a:1" }), "http://a:1")
    assert.strictEqual(by({ https_proxy: "http://a:1", HTTPS_PROXY: "http://b:1" }), "http://a:1")
    assert.strictEqual(by({ https_proxy: "", ALL_PROXY: "socks5://c:1" }), "socks5://c:1")
    assert.strictEqual(by({ all_proxy: "socks5h://c:1", HTTPS_PROXY: "https://b" }), "https://b:443")
  })

  it("is none for this machine, and for what NO_PROXY lists", () => {
    const env = (no_proxy: string) => ({ ALL_PROXY: "http://a:1", NO_PROXY: no_proxy })
    for (const host of ["localhost", "x.localhost", "127.0.0.1", "127.3.2.1", "::1"]) {
      assert.strictEqual(by(env(""), { host }), "Direct", host)
    }
    for (
      const list of [
        "*",
        "example.com",
        ".example.com",
        "*.example.com",
        "x, RELAY.Example.com.",
        "x relay.example.com:443",
        "a,,example.com"
      ]
    ) assert.strictEqual(by(env(list)), "Direct", list)
    for (const list of ["", "ample.com", "relay.example.com:8443", "lay.example.com", "10.0.0.0/8", "com.", "."]) {
      if (list !== "com.") assert.strictEqual(by(env(list)), "http://a:1", list)
    }
    assert.strictEqual(by(env("10.1.0.0/16"), { host: "10.1.2.3" }), "Direct")
    assert.strictEqual(by(env("10.1.2.3:443"), { host: "10.1.2.3" }), "Direct")
    assert.strictEqual(by(env("[2001:db8::]/32,2001:db8::/32"), { host: "2001:db8::7" }), "Direct")
    assert.strictEqual(by(env("10.1.0.0/16"), { host: "10.2.2.3" }), "http://a:1")
  })

  it("is the configuration's, whatever the environment says", () => {
    const env = { HTTPS_PROXY: "http://a:1", NO_PROXY: "*" }
    assert.strictEqual(by(env, { setting: "socks5://b:2" }), "socks5://b:2")
    assert.strictEqual(by({ HTTPS_PROXY: "http://a:1" }, { setting: "none" }), "Direct")
    assert.strictEqual(by({}, { setting: "http://b:2", host: "127.0.0.1" }), "http://b:2")
  })

  it("is reported if unusable, and nothing connects directly", () => {
    const choice = ProxyUrl.choose({ ...relay, env: { ALL_PROXY: "socks4://u:hunter2@p" } })
    assert.strictEqual(choice._tag, "Unusable")
    const message = choice._tag === "Unusable" ? choice.message : ""
    assert.match(message, /ALL_PROXY .*socks4.*proxy: none/)
    assert.notInclude(message, "hunter2")
  })
})
