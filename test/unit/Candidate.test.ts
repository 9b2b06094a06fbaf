import { Schema } from "effect"
import { describe, expect, it } from "vitest"
import * as Candidate from "../../src/protocol/candidate/Candidate.ts"
import * as CandidateGathering from "../../src/protocol/nat/CandidateGathering.ts"

const addr = (host: string, port = 4000) => ({ host, port })
const hostsOf = (list: ReadonlyArray<Candidate.Candidate>) => list.map((c) => c.address.host)
const accept = (hosts: ReadonlyArray<string>, allowLoopback = false) =>
  hostsOf(Candidate.accept(hosts.map((host) => Candidate.make("host", addr(host))), { allowLoopback }))

describe("candidates", () => {
  it("have the priorities of RFC 8445, with loopback last", () => {
    expect(Candidate.priorityOf("host", "10.0.0.1", 65535)).toBe(2 ** 24 * 126 + 2 ** 8 * 65535 + 255)
    const order = [
      Candidate.make("host", addr("2001:db8::1")),
      Candidate.make("host", addr("10.0.0.1")),
      Candidate.make("prflx", addr("198.51.100.1")),
      Candidate.make("port-mapped", addr("198.51.100.1")),
      Candidate.make("srflx", addr("198.51.100.1")),
      Candidate.make("host", addr("127.0.0.1"))
    ].map((c) => c.priority)
    expect(order).toEqual([...order].sort((a, b) => b - a))
    expect(new Set(order).size).toBe(order.length)
  })

  it("rank a mapping behind a second NAT below reflexive ones", () => {
    for (const host of ["10.1.2.3", "172.16.0.1", "192.168.1.2", "100.64.3.2"]) {
      expect(Candidate.make("port-mapped", addr(host)).priority)
        .toBeLessThan(Candidate.make("srflx", addr("198.51.100.1")).priority)
    }
    expect(Candidate.isPrivate("172.32.0.1")).toBe(false)
    expect(Candidate.isPrivate("100.128.0.1")).toBe(false)
  })

  it.each([
    "0.0.0.0",
    "0.1.2.3",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "169.254.169.254",
    "::",
    "ff02::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "::ffff:10.0.0.1",
    "::10.0.0.1",
    "example.org",
    "",
    "10.0.0.256",
    "127.0.0.1",
    "::1"
  ])("%s is no address to probe", (host) => {
    const list = [{ kind: "host" as const, address: addr(host), priority: 1 }]
    expect(Candidate.accept(list, { allowLoopback: false })).toEqual([])
  })

  it("allow loopback only if the relay is reached by it", () => {
    expect(accept(["127.0.0.1", "::1", "10.0.0.1"], true)).toEqual(["10.0.0.1", "::1", "127.0.0.1"])
    expect(Candidate.allowsLoopback("127.0.0.1")).toBe(true)
    expect(Candidate.allowsLoopback("::1")).toBe(true)
    expect(Candidate.allowsLoopback("192.0.2.1")).toBe(false)
  })

  it("are cut to the best 16, each once", () => {
    const many = Array.from(
      { length: 60 },
      (_, i) => ({ kind: "host" as const, address: addr(`10.0.0.${i}`), priority: i + 1 })
    )
    const kept = Candidate.accept(many, { allowLoopback: false })
    expect(kept).toHaveLength(16)
    expect(kept[0]!.address.host).toBe("10.0.0.59")
    expect(accept(["2001:DB8:0::1", "2001:db8::1"])).toEqual(["2001:db8::1"])
  })

  it("with impossible ports or priorities do no harm", () => {
    const bad = [0, -1, 65536, 1.5, Number.NaN].map((port) => ({
      kind: "host" as const,
      address: { host: "10.0.0.1", port },
      priority: 1
    }))
    expect(Candidate.accept(bad, { allowLoopback: false })).toEqual([])
    const odd = [Number.NaN, -7, 2 ** 40].map((priority, i) => ({
      kind: "host" as const,
      address: addr(`10.0.0.${i + 1}`),
      priority
    }))
    for (const it of Candidate.accept(odd, { allowLoopback: false })) {
      expect(it.priority).toBeGreaterThanOrEqual(1)
      expect(it.priority).toBeLessThan(2 ** 31)
    }
  })

  it("exchanged as JSON are at most 16 and well formed", () => {
    const decode = Schema.decodeUnknownEither(Candidate.CandidateList)
    const one = { kind: "host", address: addr("10.0.0.1"), priority: 1 }
    expect(decode([one])._tag).toBe("Right")
    expect(decode(Array.from({ length: 17 }, () => one))._tag).toBe("Left")
    expect(decode([{ ...one, kind: "relay" }])._tag).toBe("Left")
    expect(decode([{ ...one, address: addr("10.0.0.1", 70000) }])._tag).toBe("Left")
  })

  it("do not tell the peer where they come from", () => {
    const it = Candidate.make("host", addr("10.0.0.1"), { origin: { use: "lan", interface: "eth0" } })
    expect(it).toHaveProperty("origin")
    expect(Candidate.toPeer([it])[0]).not.toHaveProperty("origin")
  })
})

describe("pairs", () => {
  const v4 = Candidate.make("host", addr("10.0.0.1"))
  const v6 = Candidate.make("host", addr("2001:db8::1"))
  const lo = Candidate.make("host", addr("127.0.0.1"))

  it("match the IP version, and loopback with loopback only", () => {
    const remote = [Candidate.make("srflx", addr("203.0.113.1")), Candidate.make("host", addr("2001:db8::2")), lo]
    const hosts = (local: ReadonlyArray<Candidate.Candidate>) =>
      Candidate.pairs(local, remote, "client").map((p) => p.remote.address.host)
    expect(hosts([v4])).toEqual(["203.0.113.1"])
    expect(hosts([v6])).toEqual(["2001:db8::2"])
    expect(hosts([v4, v6])).toEqual(["2001:db8::2", "203.0.113.1"])
    expect(hosts([lo])).toEqual(["127.0.0.1"])
    expect(hosts([])).toEqual([])
  })

  it("omit only a peer's bridges that this host has", () => {
    const bridge = (host: string) =>
      Candidate.make("host", addr(host), { origin: { use: "virtual", interface: "br0" } })
    const own = Candidate.virtualHosts([v4, bridge("172.17.0.1"), bridge("172.18.0.1")])
    const remote = Candidate.toPeer([
      bridge("172.17.0.1"),
      bridge("172.19.0.1"),
      Candidate.make("host", addr("172.18.0.1")),
      Candidate.make("host", addr("10.0.0.1"))
    ])
    const hosts = Candidate.pairs([v4], remote, "client", own).map((it) => it.remote.address.host)
    expect(hosts).toEqual(["172.18.0.1", "10.0.0.1", "172.19.0.1"])
  })

  it("have the same priority at both ends", () => {
    const [a] = Candidate.pairs([v4], [Candidate.make("srflx", addr("203.0.113.1"))], "client")
    const [b] = Candidate.pairs([Candidate.make("srflx", addr("203.0.113.1"))], [v4], "connector")
    expect(a!.priority).toBe(b!.priority)
    expect(Candidate.pairPriority(5, 3)).toBe((3n << 32n) + 10n + 1n)
  })
})

describe("gathering", () => {
  const server = addr("192.0.2.1", 3478)
  const lan = (host: string) => ({ host, interface: "eth0", use: "lan" as const })
  it("follows interfaces, ports and servers, and forgets old mappings", () => {
    const it = new CandidateGathering.CandidateGathering()
    it.onHosts([lan("10.0.0.2"), lan("2001:db8::2")])
    expect(it.local().candidates).toEqual([])
    expect(it.onPorts({ v4: 5 })).toBe(true)
    expect(it.onPorts({ v4: 5 })).toBe(false)
    expect(hostsOf(it.local().candidates)).toEqual(["10.0.0.2"])
    it.onServers([server, addr("2001:db8::53"), addr("stun.example.org")], null)
    expect(it.askable).toEqual([server])
    it.onMapped(server, addr("198.51.100.1", 9))
    expect(it.local().udp).toBe("works")
    expect(hostsOf(it.local().candidates)).toEqual(["10.0.0.2", "198.51.100.1"])
    it.onPorts({ v4: 6 })
    expect(it.local().udp).toBe("unknown")
    expect(hostsOf(it.local().candidates)).toEqual(["10.0.0.2"])
    it.onSilent(server)
    expect(it.local().udp).toBe("blocked")
  })

  it("offers configured addresses only if they lead to its port", () => {
    const advertise = [addr("203.0.113.7", 41_700), addr("203.0.113.8", 0), addr("2001:db8::7", 41_700)]
    const it = new CandidateGathering.CandidateGathering({ advertise, port: 41_641 })
    it.onHosts([lan("10.0.0.2")])
    expect(it.local().candidates).toEqual([])
    const shown = () => {
      const { candidates, leftOut } = it.local()
      return [candidates, leftOut].map((list) => list.map(({ address }) => `${address.host}:${address.port}`))
    }
    it.onPorts({ v4: 41_641 })
    expect(shown()).toEqual([["10.0.0.2:41641", "203.0.113.7:41700", "203.0.113.8:41641"], []])
    it.onPorts({ v4: 50_000, v6: 50_000 })
    expect(shown()).toEqual([["10.0.0.2:50000", "203.0.113.8:50000"], ["203.0.113.7:41700", "2001:db8::7:41700"]])
    const told = Candidate.toPeer(it.local().candidates)
    expect(told.map(({ kind }) => kind)).toEqual(["host", "port-mapped"])
  })

  it("offers one candidate if the server sees the interface's address", () => {
    const it = new CandidateGathering.CandidateGathering()
    it.onHosts([lan("198.51.100.1")])
    it.onPorts({ v4: 5 })
    it.onServers([server], null)
    it.onMapped(server, addr("198.51.100.1", 5))
    expect(it.local().candidates.map((c) => c.kind)).toEqual(["host"])
  })
})
