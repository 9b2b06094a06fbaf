import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import type { SocketAddr } from "../../src/protocol/bytes/SocketAddr.ts"
import * as MappingLifetime from "../../src/protocol/nat/MappingLifetime.ts"
import * as NatReport from "../../src/protocol/nat/NatReport.ts"
import * as Stun from "../../src/protocol/nat/Stun.ts"
import { makeStats } from "../../src/transport/relay/RelayStats.ts"
import { StunServer } from "../../src/transport/relay/StunServer.ts"
import { randomOf } from "../sim/world/Random.ts"
import { Timeline } from "../sim/world/Timeline.ts"
import { type Allocation, type Nat, Translator } from "../sim/world/Translator.ts"
import { runs } from "../support/Runs.ts"

const { LEAD_MS, STEPS_MS } = MappingLifetime
const SERVER = { host: "203.0.113.10", port: 3478 }
const FIRST_LOCAL_PORT = 40_000
const HOME: Nat = {
  mapping: "endpoint-independent",
  filtering: "address-and-port-dependent",
  allocation: { kind: "preserving" },
  hairpin: false,
  pool: 1
}

interface World {
  readonly nat?: Nat
  readonly lifetimeMs: number
  readonly rttMs?: number
  readonly seed?: number
  /** Whether the n-th packet is lost. */
  readonly lose?: (n: number) => boolean
  /** The server knows nothing of RESPONSE-PORT. */
  readonly plain?: boolean
  /** From then on nothing crosses. */
  readonly deadAtMs?: number
}

/** What is found, when, by how many packets of the host, of which so many before the first step was due. */
const run = (world: World) => {
  const time = new Timeline()
  let packets = 0
  const sentAt: Array<number> = []
  const later = (run: () => void) => {
    const dead = time.now >= (world.deadAtMs ?? Infinity)
    if (!(world.lose?.(packets++) ?? false) && !dead) time.after((world.rttMs ?? 20) / 2, run)
  }
  const translator = new Translator({
    nat: world.nat ?? HOME,
    host: (n) => `198.51.100.${2 + n}`,
    random: randomOf(world.seed ?? 1),
    now: () => time.now,
    lifetimeMs: world.lifetimeMs
  })
  const stun = new StunServer({ mayAnswer: () => true, stats: makeStats(), now: () => time.now, allowLonger: false })
  const send = (bytes: Uint8Array, offset: number, length: number, port: number, host: string) => {
    const copy = bytes.slice(offset, offset + length)
    later(() => {
      const local = translator.in({ host, port }, SERVER)
      if (local !== undefined) lifetime.onDatagram(local - FIRST_LOCAL_PORT, SERVER, copy, time.now)
    })
  }
  stun.setSocket(0, { send }, null)
  const serve = (bytes: Uint8Array, from: SocketAddr) => {
    const decoded = Stun.decode(bytes)
    const port = decoded._tag === "Right" && decoded.right._tag === "Request" ? decoded.right.responsePort : null
    if (world.plain !== true || port === null) return stun.onUdp(bytes, { address: from.host, port: from.port }, 0)
    const refusal = Stun.encodeError({ txId: bytes.slice(8, 20), code: 420, unknown: [0x27] })
    send(refusal, 0, refusal.length, from.port, from.host)
  }
  let id = 0
  const lifetime = new MappingLifetime.MappingLifetime({
    server: SERVER,
    newTxId: () => Uint8Array.from({ length: 12 }, (_, i) => (++id >>> (8 * (i % 4))) & 255),
    now: 0
  })
  for (let polls = 0; polls < 1_000; polls++) {
    const { report, sends, wakeAt } = lifetime.poll(time.now)
    for (const { bytes, socket, to } of sends) {
      sentAt.push(time.now)
      const outside = translator.out(FIRST_LOCAL_PORT + socket, to)
      later(() => serve(bytes, outside))
    }
    if (report !== null) return { report, atMs: time.now, sentAt }
    if (!time.step(wakeAt)) time.runUntil(wakeAt)
  }
  throw new Error("it does not end")
}

const nat: fc.Arbitrary<Nat> = fc.record({
  mapping: fc.constantFrom(...NatReport.Dependence.literals),
  filtering: fc.constantFrom(...NatReport.Dependence.literals),
  allocation: fc.oneof(
    fc.constantFrom<Allocation>({ kind: "preserving" }, { kind: "random" }),
    fc.constantFrom(-2, -1, 1, 2).map((delta): Allocation => ({ kind: "sequential", delta }))
  ),
  hairpin: fc.boolean(),
  pool: fc.constant(1)
})

describe("MappingLifetime", () => {
  it("never claims a wrong lifetime, whatever the NAT", () =>
    fc.assert(
      fc.property(
        nat,
        fc.integer({ min: 1_000, max: 180_000 }),
        fc.integer({ min: 1, max: 900 }),
        fc.nat(),
        (nat, lifetimeMs, rttMs, seed) => {
          const { report } = run({ nat, lifetimeMs, rttMs, seed })
          assert.isNull(report.reason)
          assert.isAtMost(report.heldMs, lifetimeMs)
          if (report.lostMs !== null) assert.isAtLeast(report.lostMs, lifetimeMs)
          else assert.isAtLeast(lifetimeMs, STEPS_MS.at(-1)! - LEAD_MS)
          assert.isBelow(MappingLifetime.keepaliveMs(report, 1), Math.max(lifetimeMs, 4_001))
        }
      ),
      { numRuns: runs(300) }
    ))

  it("finds each usual lifetime with few packets and little delay", () => {
    const found = [5_000, 10_000, 20_000, 30_000, 60_000, 120_000].map((lifetimeMs) => {
      const { atMs, report, sentAt } = run({ lifetimeMs })
      assert.isAtMost(sentAt.length, 20)
      assert.isAtMost(atMs, 64_000)
      return [lifetimeMs, report.heldMs, MappingLifetime.keepaliveMs(report, 20_000)]
    })
    assert.deepStrictEqual(found, [
      [5_000, 0, 4_000],
      [10_000, 8_500, 6_800],
      [20_000, 8_500, 6_800],
      [30_000, 28_500, 22_800],
      [60_000, 58_500, 46_800],
      [120_000, 58_500, 46_800]
    ])
  })

  it("is silent between its first questions and the first step", () => {
    const { sentAt } = run({ lifetimeMs: 120_000 })
    assert.isAbove(sentAt.length, 3)
    assert.deepStrictEqual(sentAt.filter((at) => at < STEPS_MS[0]! - LEAD_MS), [0, 0, 0])
  })

  it("with 20 % loss it claims no wrong survival", () =>
    fc.assert(
      fc.property(fc.integer({ min: 1_000, max: 180_000 }), fc.integer({ min: 1 }), (lifetimeMs, seed) => {
        const random = randomOf(seed)
        const { report } = run({ lifetimeMs, lose: () => random() < 0.2 })
        assert.isAtMost(report.heldMs, lifetimeMs)
        if (report.reason !== null) assert.strictEqual(MappingLifetime.keepaliveMs(report, 20_000), 20_000)
      }),
      { numRuns: runs(200) }
    ))

  it("with a one-port server it believes only another address", () => {
    const kept = run({ lifetimeMs: 5_000, plain: true }).report
    assert.match(kept.reason!, /a port other than/)
    assert.strictEqual(MappingLifetime.keepaliveMs(kept, 20_000), 20_000)
    const lost = run({ lifetimeMs: 5_000, plain: true, nat: { ...HOME, allocation: { kind: "random" } } }).report
    assert.deepStrictEqual([lost.heldMs, lost.reason], [0, null])
    assert.isAtLeast(lost.lostMs!, 5_000)
  })

  it("does not mistake a dead network for a forgetful NAT", () => {
    assert.match(run({ lifetimeMs: 120_000, deadAtMs: 0 }).report.reason!, /does not answer/)
    const late = run({ lifetimeMs: 120_000, deadAtMs: 20_000 }).report
    assert.deepStrictEqual([late.heldMs, late.lostMs], [8_500, null])
    assert.match(late.reason!, /does not answer/)
    assert.match(run({ lifetimeMs: 120_000, nat: { ...HOME, pool: 4 } }).report.reason!, /several public addresses/)
  })

  it("counts the direction that forgets first, and ignores unknown ones", () => {
    const held = (heldMs: number, reason: string | null = null) => ({ heldMs, lostMs: null, reason })
    assert.isNull(MappingLifetime.shortest([]))
    assert.deepStrictEqual(MappingLifetime.shortest([held(58_500), held(8_500)]), held(8_500))
    assert.deepStrictEqual(MappingLifetime.shortest([held(0, "why"), held(28_500)]), held(28_500))
    assert.deepStrictEqual(MappingLifetime.shortest([held(28_500), held(0, "why")]), held(28_500))
  })
})
