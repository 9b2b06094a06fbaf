/** Lookups as a connector makes them, against DNS servers of this test's own on loopback. Waits are for hangs only. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import os from "node:os"
import path from "node:path"
import { afterEach, describe, expect, it } from "vitest"
import { Names } from "../../src/transport/dns/Names.ts"
import { SystemLookup } from "../../src/transport/dns/SystemLookup.ts"
import { type Answers, type DnsServer, type Record, start } from "./support/DnsServer.ts"

const a = (data: string, ttl = 60): Record => ({ type: "A", data, ttl })
const aaaa = (data: string, ttl = 60): Record => ({ type: "AAAA", data, ttl })
const cname = (name: string, data: string): Record => ({ type: "CNAME", name, data })

const closers: Array<() => void> = []
afterEach(() => {
  for (const close of closers.splice(0)) close()
})

interface Setup {
  readonly resolvConf?: string
  readonly hosts?: string
  readonly nsswitch?: string
  readonly system?: ConstructorParameters<typeof SystemLookup>[0]
}

/** One server at each of 127.0.0.1, 127.0.0.2 and so on, all at one port. */
const setup = async (servers: ReadonlyArray<Answers>, setup: Setup = {}) => {
  const running: Array<DnsServer> = []
  for (const [index, answers] of servers.entries()) {
    running.push(await start(answers, `127.0.0.${index + 1}`, running[0]?.port ?? 0))
  }
  const dir = mkdtempSync(path.join(os.tmpdir(), "names-"))
  const paths = {
    resolvConf: path.join(dir, "resolv.conf"),
    hosts: path.join(dir, "hosts"),
    nsswitch: path.join(dir, "nsswitch.conf")
  }
  const nameservers = servers.map((_, index) => `nameserver 127.0.0.${index + 1}\n`).join("")
  writeFileSync(paths.resolvConf, nameservers + (setup.resolvConf ?? ""))
  writeFileSync(paths.hosts, setup.hosts ?? "")
  writeFileSync(paths.nsswitch, setup.nsswitch ?? "hosts: files dns\n")
  let now = 0 // a clock that stands still: only `forward` moves it, so that a busy machine makes no server silent
  const names = new Names({
    paths,
    port: running[0]?.port ?? 1,
    now: () => now,
    system: new SystemLookup(setup.system ?? (() => Promise.reject(new Error("not to be asked"))))
  })
  closers.push(() => {
    for (const server of running) server.close()
    rmSync(dir, { recursive: true })
  })
  /** What is known first, or with `whole` in the end; a failure as its code. */
  const resolve = (host: string, { client = "c", whole = false } = {}) =>
    new Promise<ReadonlyArray<string> | string>((done) => {
      const all: Array<string> = []
      const leave = names.lookup(host, client, {
        onFound: (addresses, isLast) => {
          all.push(...addresses.map(({ address }) => address))
          if (whole && !isLast) return
          done(all)
          queueMicrotask(() => leave())
        },
        onFailed: ({ code, reason }) => done(`${code}: ${reason}`)
      })
    })
  return { names, resolve, running, paths, forward: (ms: number) => (now += ms), nameservers }
}

const sorted = (found: ReadonlyArray<string> | string) => typeof found === "string" ? found : found.toSorted()

/** Never settles: the lookup is under way until it is left. */
const hang = (names: Names, host: string, client = "c") => {
  const failures: Array<string> = []
  const leave = names.lookup(host, client, { onFound: () => {}, onFailed: ({ reason }) => void failures.push(reason) })
  closers.push(leave)
  return { failures, leave }
}

const LOOP = [cname("loop.test", "pool.test"), cname("pool.test", "loop.test")]

describe("a name's addresses", () => {
  const zone: { readonly [name: string]: ReturnType<Answers> | ((type: string) => ReturnType<Answers>) } = {
    "both.test": [aaaa("2001:db8::1"), a("192.0.2.1")],
    "six.test": [aaaa("2001:db8::1")],
    "many.test": [a("192.0.2.1"), a("192.0.2.2"), a("192.0.2.3")],
    "db_1.test": [a("192.0.2.4")],
    "_x._tcp.test": [a("192.0.2.4")],
    "xn--bcher-kva.test": [a("192.0.2.5")],
    "alias.test": [cname("alias.test", "mid.test"), cname("mid.test", "end.test"), {
      ...a("192.0.2.6"),
      name: "end.test"
    }],
    "loop.test": LOOP,
    "self.test": [cname("self.test", "self.test")],
    "aaaa-drop.test": (type) => type === "A" ? [a("192.0.2.7")] : null,
    "aaaa-servfail.test": (type) => type === "A" ? [a("192.0.2.7")] : "SERVFAIL",
    "aaaa-nxdomain.test": (type) => type === "A" ? [a("192.0.2.7")] : "NXDOMAIN",
    "aaaa-notimp.test": (type) => type === "A" ? [a("192.0.2.7")] : "NOTIMP",
    "aaaa-formerr.test": (type) => type === "A" ? [a("192.0.2.7")] : "FORMERR",
    "aaaa-refused.test": (type) => type === "A" ? [a("192.0.2.7")] : "REFUSED",
    "a-drop.test": (type) => type === "AAAA" ? [aaaa("2001:db8::7")] : null,
    "gone.test": "NXDOMAIN",
    "gone-aaaa-drop.test": (type) => type === "A" ? "NXDOMAIN" : null,
    "empty.test": [],
    "sick.test": "SERVFAIL",
    "short.office.test": [a("192.0.2.8")],
    "two.dots.office.test": [a("192.0.2.9")]
  }
  const answers: Answers = (name, type) => {
    const answer = zone[name] ?? "NXDOMAIN"
    return typeof answer === "function" ? answer(type) : answer
  }

  it.each<[string, string, string | ReadonlyArray<string>]>([
    ["both families", "both.test", ["2001:db8::1", "192.0.2.1"]],
    ["IPv6 alone", "six.test", ["2001:db8::1"]],
    ["several addresses", "many.test", ["192.0.2.1", "192.0.2.2", "192.0.2.3"]],
    ["upper case", "MANY.Test", ["192.0.2.1", "192.0.2.2", "192.0.2.3"]],
    ["an underscore", "db_1.test", ["192.0.2.4"]],
    ["underscores in front", "_x._tcp.test", ["192.0.2.4"]],
    ["an A-label", "xn--bcher-kva.test", ["192.0.2.5"]],
    ["a chain of CNAMEs", "alias.test", ["192.0.2.6"]],
    ["a loop of CNAMEs", "loop.test", "name_not_found"],
    ["a CNAME to itself", "self.test", "name_not_found"],
    ["AAAA that is dropped", "aaaa-drop.test", ["192.0.2.7"]],
    ["AAAA that fails", "aaaa-servfail.test", ["192.0.2.7"]],
    ["AAAA that denies the name", "aaaa-nxdomain.test", ["192.0.2.7"]],
    ["AAAA that is not implemented", "aaaa-notimp.test", ["192.0.2.7"]],
    ["AAAA that is not understood", "aaaa-formerr.test", ["192.0.2.7"]],
    ["AAAA that is refused", "aaaa-refused.test", ["192.0.2.7"]],
    ["A that is dropped", "a-drop.test", ["2001:db8::7"]],
    ["no such name", "gone.test", "name_not_found"],
    ["no such name and AAAA that is dropped", "gone-aaaa-drop.test", "name_not_found"],
    ["a name without addresses", "empty.test", "name_not_found"],
    ["a server that fails", "sick.test", "unreachable"],
    ["a short name by the search list", "short", ["192.0.2.8"]],
    ["a short name with a dot at its end, which has no search list", "short.", "name_not_found"],
    ["a whole name with a dot at its end", "many.test.", ["192.0.2.1", "192.0.2.2", "192.0.2.3"]],
    ["a name with dots that only the search list completes", "two.dots", ["192.0.2.9"]],
    ["localhost", "localhost", ["127.0.0.1", "::1"]],
    ["a name of the hosts file, in both families", "nas.lan", ["10.0.0.9", "fd00::9"]],
    ["a name of the hosts file in upper case with a dot", "NAS.LAN.", ["10.0.0.9", "fd00::9"]],
    ["an empty label", "a..test", "name_not_found"],
    ["a label that is too long", `${"x".repeat(64)}.test`, "name_not_found"]
  ])("are found, or are said not to be: %s", async (_, host, expected) => {
    const { resolve } = await setup([answers], {
      resolvConf: "search office.test\n",
      hosts: "# home\n10.0.0.9 nas.lan nas\nfd00::9 nas.lan # six\nnonsense nas.lan\n"
    })
    const dropped = /-drop/.test(host) && typeof expected !== "string"
    const found = await resolve(host, { whole: !dropped })
    if (typeof expected === "string") expect(found).toMatch(new RegExp(`^${expected}: .`))
    else expect(sorted(found)).toEqual(sorted(expected))
  })

  it("tries a name with enough dots as it is first", async () => {
    const { resolve, running } = await setup([() => "NXDOMAIN"], {
      resolvConf: "search one.test two.test\noptions ndots:2\n"
    })
    await resolve("a.b")
    await resolve("a.b.c")
    const order = [...new Set(running[0]?.asked.map((question) => question.split(" ")[0]))]
    expect(order).toEqual(["a.b.one.test", "a.b.two.test", "a.b", "a.b.c", "a.b.c.one.test", "a.b.c.two.test"])
  })

  it("names the silent servers before the dial's limit", async () => {
    const { resolve } = await setup([() => null], { resolvConf: "options timeout:1 attempts:1\n" })
    expect(await resolve("a.dead.test")).toBe("timed_out: the connector's name server did not answer for a.dead.test")
  })
})

describe("name servers", () => {
  it("are asked beside a first one that is dead", async () => {
    const { resolve } = await setup([() => null, () => [a("192.0.2.1")]])
    expect(await resolve("web.test")).toEqual(["192.0.2.1"])
    expect(await resolve("next.test")).toEqual(["192.0.2.1"])
  })

  it("are asked when the first one fails or refuses", async () => {
    const { resolve } = await setup([() => "SERVFAIL", () => "REFUSED", () => [a("192.0.2.1")]])
    expect(await resolve("web.test")).toEqual(["192.0.2.1"])
  })

  it("that know nothing do not overrule a slow earlier one", async () => {
    const slow = () => new Promise<ReadonlyArray<Record>>((done) => setTimeout(() => done([a("10.0.0.1")]), 700))
    const { resolve } = await setup([slow, () => "NXDOMAIN"])
    expect(await resolve("internal.test")).toEqual(["10.0.0.1"])
  })

  it("that know nothing are believed if earlier ones are silent", async () => {
    const { forward, names, resolve } = await setup([() => null, () => "NXDOMAIN"])
    hang(names, "other.test")
    forward(1001)
    expect(await resolve("gone.test")).toMatch(/^name_not_found: the connector's 2 name servers/)
  })
})

describe("answers", () => {
  it("are shared by equal questions, and kept for their TTL", async () => {
    const { forward, resolve, running } = await setup([() => [a("192.0.2.1", 60), aaaa("2001:db8::1", 90)]])
    const all = await Promise.all(["web.test", "WEB.test", "web.test"].map((name) => resolve(name, { whole: true })))
    for (const found of all) expect(sorted(found)).toEqual(["192.0.2.1", "2001:db8::1"])
    forward(50_000)
    await resolve("web.test")
    expect(running[0]?.asked).toHaveLength(2)
    forward(10_001)
    await resolve("web.test")
    expect(running[0]?.asked).toHaveLength(4)
  })

  it("that say no are kept for five seconds", async () => {
    let exists = false
    const { forward, resolve } = await setup([() => exists ? [a("192.0.2.1")] : "NXDOMAIN"])
    expect(await resolve("new.test")).toMatch(/^name_not_found/)
    exists = true
    expect(await resolve("new.test")).toMatch(/^name_not_found/)
    forward(5001)
    expect(await resolve("new.test")).toEqual(["192.0.2.1"])
  })

  it("are forgotten when the resolver's files change", async () => {
    const { forward, nameservers, paths, resolve, running } = await setup([() => [a("192.0.2.1", 3600)]])
    expect(await resolve("web")).toEqual(["192.0.2.1"])
    writeFileSync(paths.resolvConf, `${nameservers}search corp.test\n`)
    forward(1001)
    await resolve("web")
    expect(running[0]?.asked).toContain("web.corp.test A")
    writeFileSync(paths.hosts, "10.0.0.9 web\n")
    forward(1001)
    expect(await resolve("web")).toEqual(["10.0.0.9"])
  })
})

describe("a dead zone", () => {
  const dead: Answers = (name) => name.endsWith(".dead.test") ? null : [a("192.0.2.1")]

  it("delays no other name, and takes bounded places", async () => {
    const { names, resolve } = await setup([dead])
    const waiting = Array.from({ length: 40 }, (_, index) => hang(names, `h${index}.dead.test`))
    expect(names.lookups).toBe(32)
    const refused = waiting.flatMap(({ failures }) => failures)
    expect(refused).toHaveLength(8)
    expect(refused[0]).toMatch(/32 names under dead\.test/)
    expect(await resolve("good.test")).toEqual(["192.0.2.1"])
    for (const { leave } of waiting) leave()
    expect(names.lookups).toBe(0)
  })

  it("shares one lookup until the last dial gave up", async () => {
    const { names } = await setup([dead])
    const [first, second] = [hang(names, "a.dead.test"), hang(names, "A.dead.test")]
    expect(names.lookups).toBe(1)
    first.leave()
    expect(names.lookups).toBe(1)
    second.leave()
    expect(names.lookups).toBe(0)
  })

  it("does not let one client take all places", async () => {
    const { names, resolve } = await setup([(name) => name.startsWith("dead") ? null : [a("192.0.2.1")]])
    const waiting = Array.from({ length: 80 }, (_, index) => hang(names, `dead.z${index}.test`, "greedy"))
    expect(names.lookups).toBe(64)
    expect(waiting.at(-1)?.failures[0]).toMatch(/64 names for this client/)
    expect(await resolve("good.test", { client: "other" })).toEqual(["192.0.2.1"])
  })
})

describe("the system's own lookup", () => {
  const system = (name: string) =>
    name === "nas.local" || name === "printer"
      ? Promise.resolve([{ address: "192.168.1.9", family: 4 }])
      : Promise.reject(new Error("ENOTFOUND"))

  it.each<[string, string, string, string | ReadonlyArray<string>]>([
    ["mDNS names where nsswitch has mdns", "files mdns4_minimal [NOTFOUND=return] dns", "nas.local", ["192.168.1.9"]],
    ["no others there", "files mdns4_minimal [NOTFOUND=return] dns", "printer", "name_not_found"],
    ["every name where another source is listed", "files dns wins", "printer", ["192.168.1.9"]],
    ["nothing where there is DNS alone", "files dns", "nas.local", "name_not_found"]
  ])("is asked for %s", async (_, sources, host, expected) => {
    const { resolve } = await setup([() => "NXDOMAIN"], { nsswitch: `passwd: files\nhosts: ${sources}\n`, system })
    const found = await resolve(host)
    if (typeof expected === "string") expect(found).toMatch(new RegExp(`^${expected}`))
    else expect(found).toEqual(expected)
  })

  it("runs at most twice, and tells those that cannot wait", async () => {
    let running = 0
    const { names, resolve } = await setup([(name) => name.endsWith(".local") ? "NXDOMAIN" : [a("192.0.2.1")]], {
      nsswitch: "hosts: files mdns dns\n",
      system: () => {
        running += 1
        return new Promise(() => {})
      }
    })
    const waiting = Array.from({ length: 30 }, (_, index) => hang(names, `h${index}.z${index}.local`))
    while (waiting.flatMap(({ failures }) => failures).length < 12) await new Promise((then) => setTimeout(then, 10))
    expect(running).toBe(2)
    expect(waiting.flatMap(({ failures }) => failures)[0]).toMatch(/the system's own lookup is busy/)
    expect(await resolve("good.test")).toEqual(["192.0.2.1"])
  })
})
