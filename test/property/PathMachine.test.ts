import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import * as Candidate from "../../src/protocol/candidate/Candidate.ts"
import { MAX_HISTORY, type Output, PACE_MS, PathMachine } from "../../src/protocol/path/PathMachine.ts"
import { direct, keyOf, type PathRef, RELAY } from "../../src/protocol/path/PathRef.ts"
import { MAX_TRACKS } from "../../src/protocol/path/PathTable.ts"
import { DIRECT, PathNet, pathOf } from "../sim/PathNet.ts"
import { runs } from "../support/Runs.ts"

const address = fc.record({
  host: fc.oneof(
    fc.integer({ min: 1, max: 40 }).map((n) => `203.0.113.${n}`),
    fc.constantFrom(
      "2001:db8::1",
      "127.0.0.1",
      "::1",
      "0.0.0.0",
      "224.0.0.1",
      "fe80::1",
      "not an address",
      "169.254.169.254"
    )
  ),
  port: fc.integer({ min: 1, max: 65535 })
})
const candidate = fc.record({
  kind: fc.constantFrom<Candidate.Kind>("host", "srflx", "prflx", "port-mapped"),
  address,
  priority: fc.oneof(fc.integer({ min: 1, max: 2 ** 31 - 1 }), fc.constantFrom(-5, 0, Number.NaN, Infinity))
})
const list = fc.array(candidate, { maxLength: 24 })
const path: fc.Arbitrary<PathRef> = fc.oneof(fc.constant(RELAY), address.map(direct))
const command = fc.oneof(
  { weight: 1, arbitrary: fc.record({ t: fc.constant("local" as const), list, blocked: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ t: fc.constant("peer" as const), seq: fc.integer({ min: 0, max: 50 }), list }) },
  {
    weight: 8,
    arbitrary: fc.record({
      t: fc.constant("answer" as const),
      nth: fc.nat(30),
      rttMs: fc.integer({ min: 0, max: 3_000 })
    })
  },
  { weight: 2, arbitrary: fc.record({ t: fc.constant("ping" as const), path }) },
  { weight: 1, arbitrary: fc.record({ t: fc.constant("error" as const), path }) },
  { weight: 1, arbitrary: fc.record({ t: fc.constant("heard" as const), path }) },
  { weight: 1, arbitrary: fc.record({ t: fc.constant("active" as const), active: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ t: fc.constant("traffic" as const), moving: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ t: fc.constant("network" as const) }) },
  { weight: 1, arbitrary: fc.record({ t: fc.constant("selected" as const), path }) },
  { weight: 1, arbitrary: fc.record({ t: fc.constant("switch" as const) }) },
  { weight: 1, arbitrary: fc.record({ t: fc.constant("noise" as const), path, rttMs: fc.double() }) },
  { weight: 8, arbitrary: fc.record({ t: fc.constant("wait" as const), ms: fc.integer({ min: 0, max: 20_000 }) }) }
)
type Command = typeof command extends fc.Arbitrary<infer A> ? A : never
type Ping = Extract<Output, { _tag: "SendPing" }>

/** Feeds the commands, waking the machine when it asks, and checks after each step. */
const play = (role: "client" | "connector", commands: ReadonlyArray<Command>) => {
  const machine = new PathMachine({ role, now: 0, path: RELAY, active: true, txPrefix: "0000000f" })
  let now = 0
  let wake: number | null = 0
  const answered = new Set<string>(["relay"])
  const open: Array<Ping> = []
  const sentAt: Array<number> = []
  /** Whether the machine has asked if the data plane has read its sockets. */
  let isAsked = false
  const take = (out: ReadonlyArray<Output>) => {
    const last = out.at(-1)
    expect(last?._tag).toBe("Wake")
    wake = last?._tag === "Wake" ? last.at : null
    if (wake !== null) expect(wake).toBeGreaterThan(now)
    for (const o of out) {
      if (o._tag === "SendPing") {
        open.push(o)
        sentAt.push(now)
      }
      if (o._tag === "Select") {
        expect(role).toBe("client")
        expect(answered.has(keyOf(o.path)), `selected ${keyOf(o.path)}, which never answered`).toBe(true)
      }
      if (o._tag === "AskRead") isAsked = true
      if (o._tag === "RequestSwitch") expect(role).toBe("connector")
      if (o._tag === "SendCandidates") expect(o.list.length).toBeLessThanOrEqual(Candidate.MAX_CANDIDATES)
    }
    expect(machine.reason.length).toBeGreaterThan(0)
    expect(machine.history.length).toBeLessThanOrEqual(MAX_HISTORY)
    expect(machine.samples(now).length).toBeLessThanOrEqual(MAX_TRACKS + 1)
  }
  const waitUntil = (at: number) => {
    let turns = 0
    for (;;) {
      if (wake === null || wake > at) break
      now = wake
      if (isAsked) {
        isAsked = false
        take(machine.onRead(now))
      } else take(machine.onTick(now))
      expect(++turns).toBeLessThan(20_000)
    }
    now = at
  }
  for (const c of commands) {
    switch (c.t) {
      case "local":
        take(machine.onLocalCandidates(c.list, c.blocked, now))
        break
      case "peer":
        take(machine.onPeerCandidates(c.seq, c.list, now))
        break
      case "answer": {
        const ping = open.at(-1 - c.nth)
        if (ping === undefined) break
        answered.add(keyOf(ping.path))
        take(machine.onPong(ping.path, ping.txId, c.rttMs, now))
        break
      }
      case "ping":
        take(machine.onPing(c.path, now))
        break
      case "error":
        take(machine.onPathError(c.path, now))
        break
      case "heard":
        take(machine.onHeard(c.path, now))
        break
      case "active":
        take(machine.onActivity(c.active, now))
        break
      case "traffic":
        take(machine.onTraffic(c.moving, now))
        break
      case "network":
        take(machine.onNetworkChange(now))
        break
      case "selected":
        take(machine.onSelectedByPeer(c.path, now))
        break
      case "switch":
        take(machine.onSwitchRequested("network_changed", now))
        break
      case "noise":
        take(machine.onPong(c.path, "ffffffffffffffff", c.rttMs, now))
        break
      case "wait":
        waitUntil(now + c.ms)
        break
    }
  }
  return sentAt
}

/** Most pings in any window of `ms`. */
const densest = (at: ReadonlyArray<number>, ms: number) => {
  let most = 0
  let from = 0
  for (let to = 0; to < at.length; to++) {
    while (at[to]! - at[from]! >= ms) from++
    most = Math.max(most, to - from + 1)
  }
  return most
}

describe("whatever happens, in whatever order", () => {
  it.each(["client", "connector"] as const)(
    "a %s never throws, and selects only answering paths",
    (role) => {
      fc.assert(
        fc.property(fc.array(command, { maxLength: 120 }), (commands) => {
          const sent = play(role, commands)
          const changes = commands.filter((c) => c.t === "network").length
          // The ladder's pace, and every path's own upkeep at its fastest.
          expect(densest(sent, 1_000)).toBeLessThanOrEqual(1_000 / PACE_MS + 1 + (20 + changes) * MAX_TRACKS)
        }),
        { numRuns: runs(150) }
      )
    }
  )

  it("a peer that pings endlessly gets answers at the pace", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 50 }), (everyMs) => {
        const machine = new PathMachine({ role: "client", now: 0, path: RELAY, active: true, txPrefix: "00000003" })
        machine.onLocalCandidates([Candidate.make("host", { host: "10.0.0.1", port: 5 })], false, 0)
        const sent: Array<number> = []
        let n = 0
        for (let now = 0; now < 4_000; now += everyMs) {
          const flood = Array.from(
            { length: 16 },
            () => Candidate.make("srflx", { host: "203.0.113.1", port: 1 + n++ % 65535 })
          )
          const out = [
            ...machine.onPeerCandidates(now, flood, now),
            ...machine.onPing(direct({ host: "203.0.113.2", port: 1 + n % 65535 }), now)
          ]
          for (const o of out) if (o._tag === "SendPing" && o.path.kind === "direct") sent.push(now)
        }
        expect(densest(sent, 1_000)).toBeLessThanOrEqual(1_000 / PACE_MS + 1)
      }),
      { numRuns: runs(30) }
    )
  })
})

describe("with a link in virtual time", () => {
  const net = fc.record({
    seed: fc.integer(),
    relayMs: fc.integer({ min: 5, max: 120 }),
    directMs: fc.integer({ min: 1, max: 100 }),
    jitterMs: fc.integer({ min: 0, max: 10 }),
    needsBoth: fc.boolean()
  })
  const build = (o: { seed: number; relayMs: number; directMs: number; jitterMs: number; needsBoth: boolean }) => {
    const sim = new PathNet({ seed: o.seed })
    sim.relay.delayMs = o.relayMs
    sim.direct.delayMs = o.directMs
    sim.direct.jitterMs = o.jitterMs
    sim.direct.needsBoth = o.needsBoth
    return sim.start()
  }

  it("a direct path is in use soon after its candidates", () => {
    fc.assert(
      fc.property(net, (o) => {
        fc.pre(o.directMs + o.jitterMs <= o.relayMs)
        const sim = build(o)
        sim.runUntil(2_000)
        expect(pathOf(sim.client)).toBe(DIRECT)
        const first = sim.client.selected[0]!
        expect(first.at - o.relayMs).toBeLessThanOrEqual(3 * 2 * (o.directMs + o.jitterMs) + 50)
      }),
      { numRuns: runs(200) }
    )
  })

  it("a dead path is left by its deadline", () => {
    fc.assert(
      fc.property(net, fc.integer({ min: 2_500, max: 3_500 }), fc.boolean(), (o, at, relayDies) => {
        const sim = build(o)
        sim.runUntil(at)
        const inUse = pathOf(sim.client)
        if (relayDies) sim.relay.down = true
        else sim.direct.down = true
        sim.runUntil(at + 3_000)
        if (inUse !== (relayDies ? "relay" : DIRECT)) {
          expect(pathOf(sim.client)).toBe(inUse)
          return
        }
        expect(pathOf(sim.client)).not.toBe(inUse)
        const [dead, other] = relayDies ? [o.relayMs, o.directMs] : [o.directMs, o.relayMs]
        // The next probe's turn; 3 round trips and the spread of those; the other one's answer.
        const deadline = 200 + Math.max(250, 6 * dead + 14 * o.jitterMs + 4 * dead) + 100 + 2 * (other + o.jitterMs) +
          50
        expect(sim.client.selected.at(-1)!.at - at).toBeLessThanOrEqual(deadline)
        if (dead <= 30 && other <= 60) expect(sim.client.selected.at(-1)!.at - at).toBeLessThanOrEqual(1_000)
      }),
      { numRuns: runs(200) }
    )
  })
})
