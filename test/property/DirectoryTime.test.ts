/** A node whose clock is set at will while it runs: what it takes for the directory's time, and what stays valid or expired. */
import { Either } from "effect"
import * as fc from "fast-check"
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest"
import * as DirectoryTime from "../../src/protocol/trust/DirectoryTime.ts"
import * as Documents from "../../src/protocol/trust/Documents.ts"
import type { NodeKey } from "../../src/protocol/trust/NodeKey.ts"
import * as HostClock from "../../src/services/host/HostClock.ts"
import { Permission } from "../../src/session/Permission.ts"
import { KEY_LIFE_MS, SavedSessions, TicketKeys } from "../../src/transport/quic/engine/Resumption.ts"

const HOUR_MS = 3_600_000
const CLIENT = "A".repeat(43) as NodeKey
const CONNECTOR = `${"A".repeat(42)}E` as NodeKey
const PARTIES = { clientKey: CLIENT, connectorKey: CONNECTOR }

/** A machine with its three clocks, and a directory elsewhere. Nothing passes but by `pass` and `sleep`. */
class World {
  directoryMs = Date.UTC(2026, 5, 1)
  #up = 500_000
  #steady = 400_000
  readonly hostMs = HostClock.make({ uptimeMs: () => this.#up, steadyMs: () => this.#steady })
  readonly time = new DirectoryTime.DirectoryTime(this.hostMs)
  estimate: DirectoryTime.Estimate | null = null

  constructor(wallAheadMs: number) {
    vi.setSystemTime(this.directoryMs + wallAheadMs)
  }

  pass(ms: number): void {
    this.#steady += ms
    this.#elapse(ms)
  }

  sleep(ms: number): void {
    this.#elapse(ms)
    this.pass(200)
  }

  #elapse(ms: number): void {
    this.#up += ms
    this.directoryMs += ms
    vi.setSystemTime(Date.now() + ms)
  }

  setWall(byMs: number): void {
    vi.setSystemTime(Date.now() + byMs)
  }

  /** Asks the directory: `there` and `back` are the ways of question and answer. */
  sample(there: number, back: number): void {
    const sentAt = this.hostMs()
    this.pass(there)
    const { directoryMs } = this
    this.pass(back)
    this.estimate = DirectoryTime.learn(this.estimate, { directoryMs, sentAt, receivedAt: this.hostMs() })
    this.time.set(DirectoryTime.offsetOf(this.estimate))
  }

  get errorMs(): number {
    return (this.time.nowMs() ?? Number.NaN) - this.directoryMs
  }
}

const skew = fc.constantFrom(-24, -2, -11 / 3600, 0, 11 / 3600, 2, 24).map((hours) => Math.round(hours * HOUR_MS))
const way = fc.integer({ min: 0, max: 5_000 })
type Step =
  | { readonly _tag: "pass" | "sleep" | "set"; readonly ms: number }
  | { readonly _tag: "sample"; readonly there: number; readonly back: number }
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ _tag: fc.constant("pass" as const), ms: fc.integer({ min: 1, max: 200_000 }) }),
  fc.record({ _tag: fc.constant("sleep" as const), ms: fc.integer({ min: 3_000, max: 400_000 }) }),
  fc.record({ _tag: fc.constant("set" as const), ms: fc.integer({ min: -24 * HOUR_MS, max: 24 * HOUR_MS }) }),
  fc.record({ _tag: fc.constant("sample" as const), there: way, back: way })
)
const take = (world: World, step: Step): void => {
  if (step._tag === "sample") world.sample(step.there, step.back)
  else if (step._tag === "set") world.setWall(step.ms)
  else if (step._tag === "sleep") world.sleep(step.ms)
  else world.pass(step.ms)
}
const steps = fc.array(step, { maxLength: 12 })
/** What is left of the leeway for the estimate's own error: half of the longest answer. */
const SLACK = 5

const grantAt = (seconds: number): Documents.Grant => ({
  id: seconds.toString(16),
  ...PARTIES,
  clientName: "laptop",
  connectorName: "office",
  resources: [{
    name: "wiki",
    network: "office",
    address: "wiki",
    tcp: [{ from: 1, to: 9 }],
    udp: [],
    allowLoopback: false
  }],
  issuedAt: seconds,
  expiresAt: seconds + Documents.MAX_GRANT_SECONDS
})
const secondsOf = (ms: number) => Math.floor(ms / 1000)
/** Those with times, as the authority would write them at this moment. */
const documentsAt = (seconds: number) =>
  [
    ["grant", grantAt(seconds)],
    ["credential", { nodeKey: CLIENT, expiresAt: seconds + Documents.MAX_CREDENTIAL_SECONDS }],
    ["ticket", {
      session: "0".repeat(32),
      ...PARTIES,
      clientTag: "0".repeat(11) + "1",
      connectorTag: "0".repeat(11) + "2",
      expiresAt: seconds + Documents.MAX_TICKET_SECONDS
    }]
  ] as const
const opens = (kind: Documents.Kind, document: Documents.Documents[Documents.Kind], nowSeconds: number): boolean => {
  const signed = { payload: Documents.encode(kind, document), signature: new Uint8Array(64) }
  return Either.isRight(Documents.open(kind, signed, () => true, nowSeconds))
}

beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"] }))
afterEach(() => void vi.useRealTimers())

describe("the directory's time at a node", () => {
  it("is accurate to half a round trip, whatever the clock", () =>
    fc.assert(fc.property(skew, way, way, steps, (ahead, there, back, steps) => {
      const world = new World(ahead)
      world.sample(there, back)
      let worst = 0 // a better estimate may be waited for, rather than run back
      for (const step of steps) {
        const error = () => world.estimate === null ? 0 : DirectoryTime.errorOf(world.estimate)
        worst = Math.max(worst, error())
        take(world, step)
        worst = Math.max(worst, error())
        expect(Math.abs(world.errorMs)).toBeLessThanOrEqual(worst + 1)
      }
    })))

  it("is unknown at first, and no document is valid then", () => {
    const world = new World(0)
    expect(world.time.nowMs()).toBeNull()
    for (const [kind, document] of documentsAt(secondsOf(world.directoryMs))) {
      expect(opens(kind, document, world.time.nowSeconds())).toBe(false)
    }
  })

  it("improves with a fast answer, never with a slow one", () => {
    const world = new World(0)
    world.sample(4_000, 10)
    expect(Math.abs(world.errorMs)).toBeGreaterThan(1_900)
    world.sample(5, 5)
    world.sample(5_000, 0)
    expect(Math.abs(world.errorMs)).toBeLessThan(10)
  })

  it("never runs back, except when the directory's does", () => {
    const world = new World(0)
    world.sample(0, 4_000)
    const before = world.time.nowMs() ?? 0
    world.sample(2, 2)
    expect(world.time.nowMs()).toBeGreaterThanOrEqual(before)
    world.directoryMs -= HOUR_MS
    world.sample(2, 2)
    expect(Math.abs(world.errorMs)).toBeLessThan(10)
  })
})

describe("documents at a node whose clock is changed while running", () => {
  it("are valid for their time and expired ever after", () =>
    fc.assert(fc.property(skew, way, way, steps, (ahead, there, back, steps) => {
      const world = new World(ahead)
      world.sample(there, back)
      const documents = documentsAt(secondsOf(world.directoryMs))
      const expired = new Set<string>()
      for (const step of [{ _tag: "pass", ms: 0 } as const, ...steps]) {
        take(world, step)
        for (const [kind, document] of documents) {
          const isOpen = opens(kind, document, world.time.nowSeconds())
          const left = document.expiresAt - world.directoryMs / 1000
          if (left > 0) expect(isOpen).toBe(true)
          if (left < -Documents.LEEWAY_SECONDS - SLACK - 1) expect(isOpen).toBe(false)
          if (!isOpen) expired.add(kind)
          expect(isOpen && expired.has(kind)).toBe(false)
        }
      }
    })))

  it("keep a session's permission until its grant ends", () =>
    fc.assert(fc.property(skew, steps, fc.integer({ min: -HOUR_MS, max: HOUR_MS }), (ahead, steps, restored) => {
      const world = new World(ahead)
      world.sample(10, 10)
      const clocks = { hostMs: world.hostMs, nowSeconds: () => world.time.nowSeconds() }
      const grant = grantAt(secondsOf(world.directoryMs))
      const permission = new Permission(grant, PARTIES, clocks)
      const beganAt = world.hostMs()
      let ended = false
      for (const [index, step] of steps.entries()) {
        if (index === 3) world.directoryMs += restored // the directory itself is set, and says so at the next sample
        take(world, step)
        const stands = permission.standing() === null
        const lasted = (world.hostMs() - beganAt) / 1000
        expect(stands).toBe(
          lasted < Documents.MAX_GRANT_SECONDS + Documents.LEEWAY_SECONDS - 1 || (stands && lasted < 311)
        )
        expect(stands && ended).toBe(false)
        ended ||= !stands
      }
    })))

  it("keep resumption state for 12 hours, asleep or awake", () =>
    fc.assert(fc.property(skew, steps, fc.integer({ min: 3_000, max: 24 * HOUR_MS }), (ahead, steps, asleepMs) => {
      const world = new World(ahead)
      const saved = new SavedSessions()
      const keys = new TicketKeys()
      const keptAt = world.hostMs()
      saved.keep("office", Uint8Array.of(1), keptAt)
      const first = keys.claim("laptop", "first", keptAt)
      for (const step of steps) take(world, step)
      world.sleep(asleepMs)
      const isOver = world.hostMs() - keptAt >= KEY_LIFE_MS
      expect(saved.take("office", world.hostMs()) === null).toBe(isOver)
      const second = keys.claim("laptop", "second", world.hostMs())
      const keyOf = (claim: typeof first) => claim._tag === "New" ? claim.ticketKey : null
      expect(keyOf(second) !== keyOf(first)).toBe(isOver)
    })))
})

describe("a machine's own clock", () => {
  it("counts a sleep, and never goes back", () => {
    let up = 1_000_000
    let steady = 7_000
    const now = HostClock.make({ uptimeMs: () => up, steadyMs: () => steady })
    const began = now()
    steady += 500
    up += 500
    expect(now() - began).toBe(500)
    up += 90_000
    steady += 100
    up += 100
    expect(now() - began).toBe(90_600)
    up -= 50_000 // a container that was moved tells the uptime of another host
    steady += 1_000
    expect(now() - began).toBe(91_600)
  })

  it("is not shaken by an uptime in whole seconds", () => {
    let steady = 0
    const now = HostClock.make({ uptimeMs: () => Math.floor(steady / 1000) * 1000 + 5_000, steadyMs: () => steady })
    const began = now()
    for (; steady < 20_000; steady += 130) expect(now() - began).toBe(steady)
  })

  it("does without an uptime where the system refuses it", () => {
    let steady = 42
    const now = HostClock.make({ uptimeMs: () => null, steadyMs: () => steady })
    steady += 1_000
    expect(now()).toBe(1_042)
  })
})
