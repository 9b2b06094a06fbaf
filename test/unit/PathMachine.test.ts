import { describe, expect, it } from "vitest"
import * as Candidate from "../../src/protocol/candidate/Candidate.ts"
import {
  BUSY_GAP_MS,
  KEEPALIVE_MS,
  MAX_HISTORY,
  type Output,
  PathMachine,
  QUIET_GAP_MS,
  REPROBE_MS,
  SEEK_MS,
  SPARE_GAP_MS
} from "../../src/protocol/path/PathMachine.ts"
import { MIN_PING_BYTES } from "../../src/protocol/path/PathMessage.ts"
import { BASE_BYTES, LARGEST_BYTES } from "../../src/protocol/path/PathMtu.ts"
import { direct, keyOf, RELAY, viaRelay } from "../../src/protocol/path/PathRef.ts"
import { BUDGET, BUDGET_AGAIN } from "../../src/protocol/path/PathTrack.ts"
import { CLIENT, CONNECTOR, DIRECT, PathNet, pathOf } from "../sim/PathNet.ts"

const make = (role: "client" | "connector" = "client", active = true) =>
  new PathMachine({ role, now: 0, path: RELAY, active, txPrefix: "00000001" })

/** Those that ask whether a path lives; the padded ones ask what it carries. */
const pings = (out: ReadonlyArray<Output>) =>
  out.flatMap((o) => (o._tag === "SendPing" && o.padTo === MIN_PING_BYTES ? [o] : []))
/** Answers at once when the machine asks whether the data plane has read its sockets. */
const withReads = (machine: PathMachine, out: ReadonlyArray<Output>, at: number): ReadonlyArray<Output> =>
  out.some((o) => o._tag === "AskRead") ? [...out, ...machine.onRead(at)] : out
const wake = (out: ReadonlyArray<Output>) => {
  const last = out.at(-1)
  return last?._tag === "Wake" ? last.at : undefined
}

/** Follows the machine's own wakes; answers to pings come from `answer`. */
const drive = (
  machine: PathMachine,
  from: number,
  until: number,
  onPing: (ping: { readonly kind: string; readonly at: number; readonly txId: string }) => void = () => {}
) => {
  let at: number | null = from
  while (at !== null && at <= until) {
    const out: ReadonlyArray<Output> = machine.onTick(at)
    for (const ping of pings(out)) {
      onPing({ kind: ping.path.kind, at, txId: ping.txId })
      if (ping.path.kind === "relay") machine.onPong(ping.path, ping.txId, 40, at)
    }
    at = wake(machine.onTick(at)) ?? null
  }
}

const withOnePair = (role: "client" | "connector" = "client", active = true) => {
  const machine = make(role, active)
  machine.onLocalCandidates([Candidate.make("srflx", CLIENT)], false, 0)
  return machine
}

describe("a session without a direct path", () => {
  it("begins relayed, and always says why", () => {
    const machine = make()
    expect(machine.path).toEqual(RELAY)
    expect(machine.reason).toBe("relay_first")
    machine.onTick(1_999)
    expect(machine.reason).toBe("relay_first")
    drive(machine, 2_000, 3_000)
    expect(machine.reason).toBe("no_candidates")
  })

  it("says so when the two sides share no IP version", () => {
    const machine = withOnePair()
    machine.onPeerCandidates(1, [Candidate.make("host", { host: "2001:db8::1", port: 9 })], 10)
    expect(machine.reason).toBe("no_common_family")
  })

  it("probes by the ladder to its budget, then gives up", () => {
    const machine = withOnePair()
    const at: Array<number> = []
    const first = pings(machine.onPeerCandidates(1, [Candidate.make("srflx", CONNECTOR)], 0))
    for (const ping of first) if (ping.path.kind === "direct") at.push(0)
    expect(machine.reason).toBe("probing")
    drive(machine, 1, 20_000, (ping) => ping.kind === "direct" && at.push(ping.at))
    expect(at).toEqual([0, 50, 100, 200, 400, 800, 1_800, 2_800, 3_800, 4_800, 5_800, 6_800])
    expect(at).toHaveLength(BUDGET)
    expect(machine.reason).toBe("probes_unanswered")
  })

  it("does not probe bridges that this host has, too", () => {
    const machine = make()
    const bridge = (host: string) => Candidate.make("host", { host, port: 4_000 }, { origin: { use: "virtual" } })
    const local = [Candidate.make("srflx", CLIENT), bridge("172.17.0.1")]
    machine.onLocalCandidates(local, false, 0, null, [bridge("172.18.0.1")])
    const list = ["172.17.0.1", "172.18.0.1", "172.19.0.1"].map((host) => bridge(host))
    machine.onPeerCandidates(1, Candidate.toPeer([Candidate.make("srflx", CONNECTOR), ...list]), 0)
    const paths = machine.samples(0).map(({ path }) => path)
    expect(paths).toEqual([RELAY, direct(CONNECTOR), direct({ host: "172.19.0.1", port: 4_000 })])
  })

  it("says udp_blocked instead where STUN found no UDP", () => {
    const machine = make()
    machine.onLocalCandidates([Candidate.make("host", CLIENT)], true, 0)
    machine.onPeerCandidates(1, [Candidate.make("srflx", CONNECTOR)], 0)
    drive(machine, 1, 20_000)
    expect(machine.reason).toBe("udp_blocked")
  })

  it("looks again every 30 s until the flows end", () => {
    const machine = withOnePair()
    const at: Array<number> = []
    machine.onPeerCandidates(1, [Candidate.make("srflx", CONNECTOR)], 0)
    const note = (ping: { readonly kind: string; readonly at: number }) => ping.kind === "direct" && at.push(ping.at)
    drive(machine, 1, 40_000, note)
    const again = at.filter((t) => t > 20_000)
    expect(again).toHaveLength(BUDGET_AGAIN)
    expect(again[0]).toBe(REPROBE_MS)
    machine.onActivity(false, 41_000)
    drive(machine, 41_000, 600_000, note)
    expect(at.some((t) => t > 85_000)).toBe(true)
    expect(at.filter((t) => t > 41_000 + SEEK_MS + 2_000)).toEqual([])
    expect(machine.reason).toBe("probes_unanswered")
    expect(wake(machine.onTick(700_000))).toBeNull()
  })

  it("probes at once when new candidates come", () => {
    const machine = withOnePair()
    machine.onPeerCandidates(1, [Candidate.make("srflx", CONNECTOR)], 0)
    drive(machine, 1, 10_000)
    const other = { host: "203.0.113.9", port: 7 }
    const out = machine.onPeerCandidates(2, [Candidate.make("srflx", other)], 10_000)
    expect(pings(out).filter((p) => p.path.kind === "direct").map((p) => p.path)).toEqual([direct(other)])
  })

  it("ignores a list that is not newer", () => {
    const machine = withOnePair()
    machine.onPeerCandidates(5, [], 0)
    const out = machine.onPeerCandidates(5, [Candidate.make("srflx", CONNECTOR)], 1)
    expect(pings(out).filter((p) => p.path.kind === "direct")).toEqual([])
  })
})

describe("candidates of ours", () => {
  it("are sent again until acknowledged", () => {
    const offers: Array<number> = []
    const machine = make()
    const note = (at: number, out: ReadonlyArray<Output>) => {
      for (const o of out) if (o._tag === "SendCandidates") offers.push(at)
      return wake(out)
    }
    let at = note(0, machine.onLocalCandidates([Candidate.make("host", CLIENT)], false, 0))
    while (typeof at === "number" && at < 700) at = note(at, machine.onTick(at))
    expect(offers).toEqual([0, 200, 600])
    machine.onCandidatesAcked(1, 700)
    for (let t = 700; t < 9_000; t += 50) note(t, machine.onTick(t))
    expect(offers).toEqual([0, 200, 600])
  })

  it("are not sent again when the same list comes", () => {
    const machine = withOnePair()
    const out = machine.onLocalCandidates([Candidate.make("srflx", CLIENT)], false, 5)
    expect(out.filter((o) => o._tag === "SendCandidates")).toEqual([])
  })
})

describe("promotion", () => {
  it("takes at most 3 direct round trips after the candidates", () => {
    const net = new PathNet().start()
    net.runUntil(500)
    const first = net.client.selected[0]!
    expect(pathOf(net.client)).toBe(DIRECT)
    expect(first.at).toBeLessThanOrEqual(net.relay.delayMs + 3 * 2 * net.direct.delayMs + 50)
    expect(net.connector.machine.path.kind).toBe("direct")
    expect(net.connector.machine.reason).toBe("peer_selected")
  })

  it("gets through two NATs with port filters", () => {
    const net = new PathNet()
    net.direct.needsBoth = true
    net.start().runUntil(500)
    expect(pathOf(net.client)).toBe(DIRECT)
    expect(net.client.selected[0]!.at).toBeLessThanOrEqual(20 + 60 + 50)
  })

  it("learns a path from the peer's ping alone", () => {
    const machine = withOnePair()
    machine.onTick(0)
    const path = direct({ host: "203.0.113.77", port: 1234 })
    const ping = pings(machine.onPing(path, 100)).find((p) => p.path.kind === "direct")
    expect(ping?.path).toEqual(path)
    machine.onPong(path, ping!.txId, 10, 110)
    expect(machine.path).toEqual(path)
  })

  it("does not leave the relay for a slower direct path", () => {
    const net = new PathNet()
    net.direct.delayMs = 60
    net.start().runUntil(5_000)
    expect(net.client.selected).toEqual([])
    expect(net.client.machine.reason).toBe("direct_slower_than_relay")
  })

  it("returns to the relay when direct becomes clearly slower", () => {
    const net = new PathNet().start()
    net.runUntil(1_000)
    net.direct.delayMs = 90
    net.runUntil(45_000)
    expect(net.client.selected.map((s) => s.reason)).toEqual(["direct_faster", "direct_slower_than_relay"])
  })

  it("moves for cost only after three clearly better answers", () => {
    const machine = new PathMachine({
      role: "client",
      now: 0,
      path: direct(CONNECTOR),
      active: true,
      txPrefix: "00000004"
    })
    const selects: Array<number> = []
    let measured = false // the path in use; before that there is nothing to be better than
    let relayAnswers = 0
    for (let now = 0; now < 3_000 && selects.length === 0; now += 50) {
      for (const ping of pings(machine.onTick(now))) {
        const isRelay = ping.path.kind === "relay"
        if (isRelay && measured) relayAnswers++
        measured ||= !isRelay
        const out = machine.onPong(ping.path, ping.txId, isRelay ? 10 : 60, now)
        if (out.some((o) => o._tag === "Select")) selects.push(relayAnswers)
      }
    }
    expect(selects).toEqual([3])
    expect(machine.reason).toBe("direct_slower_than_relay")
  })

  it("keeps one path under jitter", () => {
    for (let seed = 1; seed <= 20; seed++) {
      const net = new PathNet({ seed })
      net.direct.delayMs = 20
      net.direct.jitterMs = 15
      net.relay.jitterMs = 15
      net.relay.loss = net.direct.loss = 0.01
      net.start().runUntil(120_000)
      expect(net.client.selected.length, `seed ${seed}: ${JSON.stringify(net.client.selected)}`).toBeLessThanOrEqual(2)
    }
  })
})

describe("a direct path that was measured in a bad moment", () => {
  it("is used when it proves better, also after flows", () => {
    const net = new PathNet()
    net.direct.delayMs = 30
    net.start().runUntil(2_000)
    expect(net.client.machine.reason).toBe("direct_slower_than_relay")
    for (const side of [net.client, net.connector]) net.apply(side, (m) => m.onActivity(false, net.now))
    net.direct.delayMs = 5
    net.runUntil(30_000)
    expect(pathOf(net.client)).toBe(DIRECT)
  })
})

describe("the size of packets", () => {
  const RELAYED = keyOf(RELAY)

  it("starts small and grows to what each direction carries", () => {
    const net = new PathNet()
    net.direct.mtu = 1400
    net.start().runUntil(30)
    expect(net.client.sizes.get(RELAYED)).toBe(BASE_BYTES)
    net.runUntil(3_500)
    expect(pathOf(net.client)).toBe(DIRECT)
    expect(net.client.sizes.get(DIRECT)).toBe(1350)
    expect([...net.connector.sizes.values()]).toContain(1350)
  })

  it("falls back when the route carries less", () => {
    const net = new PathNet().start()
    net.runUntil(5_000)
    expect(net.client.sizes.get(DIRECT)).toBe(LARGEST_BYTES)
    net.direct.mtu = 1280
    net.runUntil(11_000)
    expect(net.client.sizes.get(DIRECT)).toBe(BASE_BYTES)
    expect(pathOf(net.client)).toBe(DIRECT)
    expect(net.client.machine.samples(net.now).find((it) => it.path.kind === "direct")?.loss).toBe(0)
  })

  it("is not probed while idle, but after a network change", () => {
    const net = new PathNet({ active: false }).start()
    net.runUntil(5_000)
    expect([...net.client.sizes.values()].every((bytes) => bytes === BASE_BYTES)).toBe(true)
    for (const side of [net.client, net.connector]) net.apply(side, (m) => m.onActivity(true, net.now))
    net.runUntil(8_000)
    expect(net.client.sizes.get(DIRECT)).toBe(LARGEST_BYTES)
    net.apply(net.client, (m) => m.onNetworkChange(net.now))
    expect(net.client.sizes.get(DIRECT)).toBe(BASE_BYTES)
  })
})

describe("open flows without data", () => {
  const quiet = (seed: number) => {
    const net = new PathNet({ seed }).start()
    net.runUntil(3_000 + seed * 13)
    expect(pathOf(net.client)).toBe(DIRECT)
    for (const side of [net.client, net.connector]) net.apply(side, (m) => m.onTraffic(false, net.now))
    return net
  }

  it("ping rarely, and at once when data moves", () => {
    const net = quiet(1)
    net.runUntil(net.now + SPARE_GAP_MS)
    const since = net.now
    net.runUntil(since + 60_000)
    const sent = (kind: string) => net.client.sent.filter(({ at, path }) => at >= since && path.kind === kind).length
    expect(sent("direct")).toBeLessThanOrEqual(60_000 / QUIET_GAP_MS + 1)
    expect(sent("direct")).toBeGreaterThan(50_000 / QUIET_GAP_MS)
    expect(sent("relay")).toBeLessThanOrEqual(60_000 / SPARE_GAP_MS + 1)
    expect(sent("relay")).toBeGreaterThan(0)
    net.runUntil(net.now + 2 * BUSY_GAP_MS - 1)
    net.apply(net.client, (m) => m.onTraffic(true, net.now))
    const kinds = net.client.sent.filter(({ at }) => at === net.now).map(({ path }) => path.kind)
    expect(kinds.toSorted()).toEqual(["direct", "relay"])
  })

  it("look at a direct path every second while relayed", () => {
    for (let phase = 0; phase < 10; phase++) {
      const net = new PathNet()
      net.direct.delayMs = 60
      net.start().runUntil(3_000)
      for (const side of [net.client, net.connector]) net.apply(side, (m) => m.onTraffic(false, net.now))
      net.runUntil(20_000 + phase * SPARE_GAP_MS / 10)
      expect(pathOf(net.client)).toBe(keyOf(RELAY))
      net.direct.delayMs = 5
      net.runUntil(net.now + 2 * QUIET_GAP_MS)
      expect(pathOf(net.client)).toBe(DIRECT)
    }
  })

  it("leave a dead path within two seconds", () => {
    for (let seed = 1; seed <= 20; seed++) {
      const net = quiet(seed)
      net.runUntil(net.now + 10_000 + seed * 57)
      net.direct.down = true
      net.runUntil(net.now + 2_000)
      expect(net.client.selected.at(-1)).toMatchObject({ path: RELAY, reason: "path_blackholed" })
    }
  })

  it("leave a broken path as soon as another one answers", () => {
    const [inUse, other] = [direct(CONNECTOR), viaRelay("two")]
    const machine = new PathMachine({ role: "client", now: 0, path: inUse, active: true, txPrefix: "00000001" })
    const rtts = new Map([[keyOf(inUse), 5], [keyOf(other), 20]]) // no home relay
    const run = (from: number, until: number) => {
      const selected: Array<Output> = []
      const note = (out: ReadonlyArray<Output>) => void selected.push(...out.filter((o) => o._tag === "Select"))
      for (let at = from; at <= until; at += 10) {
        const out = machine.onTick(at)
        note(out)
        for (const { path, txId } of pings(out)) {
          const rttMs = rtts.get(keyOf(path))
          if (rttMs !== undefined) note(machine.onPong(path, txId, rttMs, at))
        }
      }
      return selected
    }
    machine.onOtherRelayBound(other, 0)
    run(0, 2_000)
    machine.onTraffic(false, 2_000)
    expect(run(2_010, 10_000)).toEqual([])
    machine.onPathError(inUse, 10_000)
    rtts.delete(keyOf(inUse))
    expect(run(10_010, 10_300)).toMatchObject([{ path: other, reason: "path_failed" }])
  })
})

describe("a path that dies", () => {
  it("is left within a second, while data flows", () => {
    for (let seed = 1; seed <= 20; seed++) {
      const net = new PathNet({ seed })
      net.direct.jitterMs = 4
      net.start().runUntil(3_000 + seed * 13)
      expect(pathOf(net.client)).toBe(DIRECT)
      const died = net.now
      net.direct.down = true
      net.runUntil(died + 1_000)
      const last = net.client.selected.at(-1)!
      expect(last).toMatchObject({ path: RELAY, reason: "path_blackholed" })
      expect(last.at - died).toBeLessThanOrEqual(600)
      expect(net.client.machine.reason).toBe("path_blackholed")
    }
  })

  it("is taken again after its hold when it comes back", () => {
    const net = new PathNet().start()
    net.runUntil(3_000)
    net.direct.down = true
    net.runUntil(5_000)
    net.direct.down = false
    net.runUntil(9_000)
    expect(pathOf(net.client)).toBe(DIRECT)
  })

  it("holds longer each time it falls", () => {
    const net = new PathNet().start()
    for (let i = 0; i < 60; i++) {
      net.runUntil(3_000 + i * 2_000)
      net.direct.down = i % 2 === 0
    }
    const falls = net.client.selected.filter((s) => s.reason === "path_blackholed")
    expect(falls.length).toBeGreaterThan(1)
    expect(falls.length).toBeLessThanOrEqual(8) // of 30 outages in 2 minutes
  })

  it("is left for the direct one if relayed", () => {
    const net = new PathNet()
    net.direct.delayMs = 60
    net.start().runUntil(3_000)
    expect(pathOf(net.client)).toBe("relay")
    net.relay.down = true
    net.runUntil(4_000)
    expect(pathOf(net.client)).toBe(DIRECT)
    expect(net.client.machine.reason).toBe("path_blackholed")
  })

  it("is kept, with that reason, when nothing else answers either", () => {
    const net = new PathNet().start()
    net.runUntil(3_000)
    net.direct.down = net.relay.down = true
    net.runUntil(6_000)
    expect(pathOf(net.client)).toBe(DIRECT)
    expect(net.client.machine.reason).toBe("nothing_answers")
    net.relay.down = false
    net.runUntil(9_000)
    expect(pathOf(net.client)).toBe("relay")
  })

  it("is not left for one that answered long ago", () => {
    const net = new PathNet().start()
    net.runUntil(3_000)
    for (const side of [net.client, net.connector]) net.apply(side, (m) => m.onActivity(false, net.now))
    net.direct.down = net.relay.down = true
    net.runUntil(60_000)
    expect(net.client.selected).toHaveLength(1)
    expect(net.client.machine.reason).toBe("nothing_answers")
  })

  it("is not taken for dead because this thread was busy", () => {
    const net = new PathNet().start()
    net.runUntil(3_000)
    const { machine } = net.client
    const late = machine.onTick(3_200) // pings both
    const out = [...machine.onTick(4_100)]
    const newest = (kind: string) => pings([...late, ...out]).findLast((p) => p.path.kind === kind)!
    for (const kind of ["relay", "direct"]) out.push(...machine.onPong(newest(kind).path, newest(kind).txId, 30, 4_101))
    expect(out.filter((o) => o._tag === "Select")).toEqual([])
    expect(pathOf(net.client)).toBe(DIRECT)
  })

  it("is not declared dead because the peer's host stood still", () => {
    for (let seed = 1; seed <= 40; seed++) {
      const net = new PathNet({ seed })
      net.relay.delayMs = net.direct.delayMs = 1
      net.start().runUntil(3_000 + seed * 13)
      const moves = () => [net.client.selected.length, net.connector.requested.length]
      const before = moves()
      for (const side of [net.client, net.connector, net.client]) {
        net.freeze(side, 150 + 25 * seed)
        net.runUntil(net.now + 3_000)
      }
      expect(moves()).toEqual(before)
    }
  })

  it("is not declared dead because a data plane stood still", () => {
    for (let seed = 1; seed <= 40; seed++) {
      const net = new PathNet({ seed })
      net.relay.delayMs = net.direct.delayMs = 1
      net.start().runUntil(3_000 + seed * 13)
      const moves = () => [net.client.selected.length, net.connector.requested.length]
      const before = moves()
      for (const side of [net.client, net.connector, net.client]) {
        net.stall(side, 150 + 25 * seed)
        net.runUntil(net.now + 3_000)
        expect(moves(), `${side.name} stood still, seed ${seed}`).toEqual(before)
      }
    }
  })

  it("is not left before the data plane has read sockets", () => {
    const net = new PathNet().start()
    net.runUntil(3_000)
    const { machine } = net.client
    const outputs: Array<Output> = []
    const collect = (out: ReadonlyArray<Output>) => (outputs.push(...out), out)
    const has = (tag: Output["_tag"]) => outputs.some((o) => o._tag === tag)
    let at = 3_000
    while (at < 5_000 && !has("AskRead")) {
      for (const ping of pings(collect(machine.onTick(at)))) {
        if (ping.path.kind === "relay") collect(machine.onPong(RELAY, ping.txId, 40, at))
      }
      at = wake(collect(machine.onTick(at))) ?? 5_000
    }
    expect([has("AskRead"), has("Select")]).toEqual([true, false])
    expect(machine.onRead(at).filter((o) => o._tag === "Select")).toMatchObject([{ reason: "path_blackholed" }])
  })

  it("is kept while session packets come, though pings are lost", () => {
    const net = new PathNet().start()
    net.runUntil(3_000)
    net.direct.down = true // for pings; packets are told of below
    const heard = () => {
      if (pathOf(net.client) !== DIRECT) return
      net.apply(net.client, (m) => m.onHeard(direct(CONNECTOR), net.now))
      net.at(net.now + 60, heard)
    }
    net.apply(net.connector, (m) => m.onActivity(false, net.now)) // whose own pings are not the question here
    net.at(3_000, heard)
    net.runUntil(4_800)
    expect(pathOf(net.client)).toBe(DIRECT)
    net.runUntil(6_500)
    expect(net.client.selected.at(-1)).toMatchObject({ path: RELAY, reason: "path_blackholed" })
  })

  it("is left at once on an error of the kernel", () => {
    const net = new PathNet().start()
    net.runUntil(3_000)
    net.apply(net.client, (m) => m.onPathError(direct(CONNECTOR), net.now))
    expect(net.client.selected.at(-1)).toMatchObject({ at: 3_000, path: RELAY, reason: "path_failed" })
  })

  it("is left for an answering path if the connector asks", () => {
    const net = new PathNet().start()
    net.runUntil(3_000)
    net.apply(net.client, (m) => m.onSwitchRequested("path_blackholed", net.now))
    expect(net.client.selected.at(-1)).toMatchObject({ path: RELAY, reason: "peer_request" })
  })

  it("makes the connector ask for a move", () => {
    const machine = withOnePair("connector")
    machine.onPeerCandidates(1, [Candidate.make("srflx", CONNECTOR)], 0)
    const path = direct(CONNECTOR)
    machine.onSelectedByPeer(path, 100)
    const requests: Array<number> = []
    let at: number | null = 100
    while (at !== null && at < 3_000) {
      const out: ReadonlyArray<Output> = withReads(machine, machine.onTick(at), at)
      for (const o of out) if (o._tag === "RequestSwitch") requests.push(at)
      expect(out.some((o) => o._tag === "Select")).toBe(false)
      for (const ping of pings(out)) {
        if (ping.path.kind === "relay") {
          for (const o of withReads(machine, machine.onPong(ping.path, ping.txId, 40, at), at)) {
            if (o._tag === "RequestSwitch") requests.push(at)
          }
        }
      }
      at = wake(machine.onTick(at)) ?? null
    }
    expect(requests.length).toBeGreaterThan(0)
    for (const [i, t] of requests.entries()) if (i > 0) expect(t - requests[i - 1]!).toBeGreaterThanOrEqual(250)
  })
})

describe("a network change", () => {
  it("keeps a path that still works while proving it", () => {
    const net = new PathNet().start()
    net.runUntil(3_000)
    net.apply(net.client, (m) => m.onNetworkChange(net.now))
    expect(net.client.machine.reason).toBe("network_changed")
    net.runUntil(3_500)
    expect(pathOf(net.client)).toBe(DIRECT)
    expect(net.client.machine.reason).toBe("direct_faster")
    expect(net.client.selected).toHaveLength(1)
  })

  it("leaves a path that is silent for 150 ms", () => {
    const net = new PathNet().start()
    net.runUntil(3_000)
    net.direct.down = true
    net.apply(net.client, (m) => m.onNetworkChange(net.now))
    net.runUntil(4_000)
    const last = net.client.selected.at(-1)!
    expect(last).toMatchObject({ path: RELAY, reason: "network_changed" })
    expect(last.at - 3_000).toBeLessThanOrEqual(150)
  })

  it("falls back to the relay when the host's address disappears", () => {
    const net = new PathNet().start()
    net.runUntil(3_000)
    net.direct.down = true
    net.relay.down = true
    net.apply(net.client, (m) => m.onNetworkChange(net.now, [4]))
    net.runUntil(3_040)
    expect(pathOf(net.client)).toBe(DIRECT)
    net.relay.down = false
    net.apply(net.client, (m) => m.onRelayBound("relay-udp", net.now))
    expect(net.client.selected.at(-1)).toMatchObject({ at: 3_040, path: RELAY, reason: "network_changed" })
    net.direct.down = false
    net.runUntil(3_300)
    expect(pathOf(net.client)).toBe(DIRECT) // no hold: a move is not its fault
  })

  it("does not move paths of the other IP version", () => {
    const net = new PathNet().start()
    net.runUntil(3_000)
    net.apply(net.client, (m) => m.onNetworkChange(net.now, [6]))
    net.apply(net.client, (m) => m.onRelayBound("relay-udp", net.now))
    net.runUntil(4_000)
    expect(pathOf(net.client)).toBe(DIRECT)
    expect(net.client.selected).toHaveLength(1)
  })

  it("at the connector moves the client by a request", () => {
    const net = new PathNet().start()
    net.runUntil(3_000)
    net.direct.down = true
    net.apply(net.connector, (m) => m.onNetworkChange(net.now, [4]))
    net.runUntil(3_030)
    net.apply(net.connector, (m) => m.onRelayBound("relay-udp", net.now))
    net.runUntil(3_100)
    expect(net.client.selected.at(-1)).toMatchObject({ path: RELAY, reason: "peer_request" })
    net.direct.down = false
    net.runUntil(3_400)
    expect(pathOf(net.client)).toBe(DIRECT)
  })

  it("does not blame a path for loss without a network", () => {
    const net = new PathNet().start()
    net.runUntil(3_000)
    net.direct.down = true
    net.relay.down = true
    net.apply(net.client, (m) => m.onNetworkChange(net.now, [4]))
    net.runUntil(6_000)
    net.direct.down = false
    net.relay.down = false
    net.apply(net.client, (m) => m.onNetworkChange(net.now))
    net.apply(net.client, (m) => m.onRelayBound("relay-udp", net.now))
    net.runUntil(7_000)
    expect(pathOf(net.client)).toBe(DIRECT)
    for (const { loss } of net.client.machine.samples(net.now)) expect(loss).toBe(0)
  })
})

describe("cost", () => {
  it("probes the path and the standby every 200 ms", () => {
    const net = new PathNet().start()
    net.runUntil(10_000)
    for (const kind of ["relay", "direct"]) {
      const at = net.client.sent.filter((s) => s.path.kind === kind && s.at > 5_000).map((s) => s.at)
      expect(at.length).toBeGreaterThan(20)
      for (const [i, t] of at.entries()) if (i > 0) expect(t - at[i - 1]!).toBe(BUSY_GAP_MS)
    }
  })

  it("sends one ping in 25 s when idle and direct", () => {
    const net = new PathNet().start()
    net.runUntil(3_000)
    net.apply(net.client, (m) => m.onActivity(false, net.now))
    net.apply(net.connector, (m) => m.onActivity(false, net.now))
    net.runUntil(5_000)
    net.client.sent.length = net.connector.sent.length = 0
    net.runUntil(5_000 + 10 * KEEPALIVE_MS)
    expect(net.client.sent).toHaveLength(10)
    expect(net.connector.sent).toEqual([])
  })

  describe("when idle on a direct path through known NATs", () => {
    /** Gaps between pings of each side, once both are idle and know what their own translators need. */
    const gaps = (clientMs: number, connectorMs: number) => {
      const net = new PathNet().start()
      net.runUntil(3_000)
      net.client.machine.onKeepalive(clientMs)
      net.connector.machine.onKeepalive(connectorMs)
      for (const side of [net.client, net.connector]) net.apply(side, (m) => m.onActivity(false, net.now))
      net.runUntil(40_000)
      net.client.sent.length = net.connector.sent.length = 0
      net.runUntil(240_000)
      expect(pathOf(net.client)).toBe(DIRECT)
      const [client = [], connector = []] = [net.client, net.connector].map(({ sent }) => sent.map(({ at }) => at))
      const answers = client.map((at) => at + net.direct.delayMs)
      return { client: apart(client), connector: apart(connector), answered: apart([...connector, ...answers]) }
    }
    const apart = (times: ReadonlyArray<number>) =>
      [...times].sort((a, b) => a - b).flatMap((at, i, all) => (i === 0 ? [] : [at - all[i - 1]!]))

    it("the client pings as its NAT needs, within 25 s", () => {
      expect(new Set(gaps(6_800, KEEPALIVE_MS).client)).toEqual(new Set([6_800]))
      expect(new Set(gaps(46_800, 46_800).client)).toEqual(new Set([KEEPALIVE_MS]))
    })

    it("with lifetimes of 30 s pings are 20 s apart", () => {
      const { client, connector } = gaps(22_800, 22_800)
      expect(Math.min(...client)).toBeGreaterThan(20_000)
      expect(connector).toEqual([])
    })

    it("the connector pings only if its own NAT needs it", () => {
      const { answered, client } = gaps(KEEPALIVE_MS, 6_800)
      expect(new Set(client)).toEqual(new Set([KEEPALIVE_MS]))
      expect(Math.max(...answered)).toBeLessThan(8_000)
      expect(gaps(6_800, 6_800).connector).toEqual([])
    })
  })

  it("leaves a path that died while idle soon after", () => {
    const net = new PathNet().start()
    net.runUntil(3_000)
    for (const side of [net.client, net.connector]) net.apply(side, (m) => m.onActivity(false, net.now))
    net.runUntil(20_000)
    net.direct.down = true
    net.apply(net.client, (m) => m.onActivity(true, net.now))
    net.runUntil(20_600)
    expect(pathOf(net.client)).toBe("relay")
  })
})

describe("after a restart", () => {
  it("goes on from the path that is in use", () => {
    const path = direct(CONNECTOR)
    const machine = new PathMachine({ role: "client", now: 50, path, active: true, txPrefix: "00000002", firstSeq: 77 })
    expect(machine.path).toEqual(path)
    expect(machine.reason).toBe("resumed")
    const out = machine.onTick(50)
    expect(pings(out).map((p) => p.path.kind).sort()).toEqual(["direct", "relay"])
    expect(out.some((o) => o._tag === "Select")).toBe(false)
    const offer = machine.onLocalCandidates([], false, 60).find((o) => o._tag === "SendCandidates")
    expect(offer).toMatchObject({ seq: 78 })
  })
})

describe("history", () => {
  it("is bounded, and each decision carries its inputs", () => {
    const net = new PathNet().start()
    for (let i = 0; i < 400; i++) {
      net.runUntil(1_000 + i * 1_000)
      net.direct.down = net.relay.down = i % 2 === 0
    }
    const { decisions, history } = net.client.machine
    expect(decisions).toBeGreaterThan(MAX_HISTORY)
    expect(history).toHaveLength(MAX_HISTORY)
    const moved = net.client.machine.history.at(-1)!
    expect(moved.paths.map((p) => p.path.kind).sort()).toEqual(["direct", "relay"])
  })
})
