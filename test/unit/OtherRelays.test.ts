/** Path choice among relays: the first one, where a session begins, and another at which both sides are bound. */
import { describe, expect, it } from "vitest"
import * as PathKind from "../../src/protocol/path/PathKind.ts"
import { type Output, PathMachine } from "../../src/protocol/path/PathMachine.ts"
import { keyOf, type PathRef, RELAY, viaRelay, WEBRTC } from "../../src/protocol/path/PathRef.ts"

const SECOND = viaRelay("relay-2")

/** A client's machine, and what each path answers with: a round trip in ms, null for nothing. */
class World {
  now = 0
  readonly rtt = new Map<string, number | null>([[keyOf(RELAY), 40], [keyOf(SECOND), 42]])
  readonly selected: Array<{ at: number; path: PathRef; reason: string }> = []
  readonly machine = new PathMachine({ role: "client", now: 0, path: RELAY, active: true, txPrefix: "0000000b" })
  #due: Array<{ readonly at: number; readonly run: () => ReadonlyArray<Output> }> = []
  #wake = 0

  apply(outputs: ReadonlyArray<Output>): void {
    for (const output of outputs) {
      if (output._tag === "Wake") this.#wake = output.at ?? Infinity
      if (output._tag === "Select") {
        this.selected.push({ at: this.now, path: output.path, reason: output.reason })
      }
      if (output._tag === "AskRead") this.#due.push({ at: this.now, run: () => this.machine.onRead(this.now) })
      if (output._tag !== "SendPing") continue
      const { path, txId } = output
      const rtt = this.rtt.get(keyOf(path)) ?? null
      if (rtt === null) continue
      const at = this.now + rtt
      this.#due.push({ at, run: () => this.machine.onPong(path, txId, rtt, at) })
    }
  }

  runUntil(end: number): void {
    for (;;) {
      this.#due.sort((a, b) => a.at - b.at)
      const [next] = this.#due
      const at = Math.min(next?.at ?? Infinity, this.#wake)
      if (at > end) break
      this.now = Math.max(this.now, at)
      if (next !== undefined && next.at <= this.now) {
        this.#due.shift()
        this.apply(next.run())
      } else {
        this.#wake = Infinity
        this.apply(this.machine.onTick(this.now))
      }
    }
    this.now = end
  }
}

const begin = () => {
  const world = new World()
  world.apply(world.machine.onOtherRelayBound(SECOND, 0))
  return world
}

describe("path choice among relays", () => {
  it("stays at the first relay while it is no worse", () => {
    const world = begin()
    world.runUntil(20_000)
    expect(world.selected).toEqual([])
    expect(world.machine.samples(world.now).map(({ path, state }) => [keyOf(path), state])).toEqual([
      ["relay", "proved"],
      ["relay relay-2", "proved"]
    ])
  })

  it("changes relays within a second when one dies", () => {
    const world = begin()
    world.runUntil(5_000)
    world.rtt.set(keyOf(RELAY), null)
    world.runUntil(10_000)
    expect(world.selected.map(({ path, reason }) => [keyOf(path), reason])).toEqual([[
      "relay relay-2",
      "path_blackholed"
    ]])
    expect(world.selected[0]!.at).toBeLessThan(5_750)
    world.rtt.set(keyOf(RELAY), 40) // back, and no better: two alike do not take turns
    world.runUntil(40_000)
    expect(world.selected).toHaveLength(1)
  })

  it("moves to a clearly faster relay, never calling it direct", () => {
    const world = begin()
    world.rtt.set(keyOf(SECOND), 10)
    world.runUntil(10_000)
    expect(world.selected.map(({ path, reason }) => [keyOf(path), reason])).toEqual([["relay relay-2", "relay_faster"]])
    expect(world.machine.reason).toBe("no_candidates")
  })

  it("a new session takes the common relay nearest to both", () => {
    for (const [first, second] of [[40, 20], [200, 100], [400, 30]] as const) {
      const world = new World()
      world.rtt.set(keyOf(RELAY), first).set(keyOf(SECOND), second)
      world.apply(world.machine.onOtherRelayBound(SECOND, 0))
      world.runUntil(5_000)
      expect(world.selected.map(({ path }) => keyOf(path))).toEqual(["relay relay-2"])
      expect(world.selected[0]!.at).toBeLessThan(2 * first + 300)
    }
  })

  it("ignores a relay until the peer is there, too", () => {
    const world = begin()
    world.rtt.set(keyOf(SECOND), null)
    world.runUntil(30_000)
    world.rtt.set(keyOf(SECOND), 42)
    world.apply(world.machine.onPing(SECOND, world.now))
    world.runUntil(31_000)
    const second = world.machine.samples(world.now).find(({ path }) => keyOf(path) === keyOf(SECOND))
    expect(second?.state).toBe("proved")
    world.rtt.set(keyOf(RELAY), null)
    world.runUntil(32_000)
    expect(world.selected.map(({ path }) => keyOf(path))).toEqual(["relay relay-2"])
  })
})

describe("a WebRTC connection as a path", () => {
  it("is used if clearly faster than the relay", () => {
    const world = begin()
    world.rtt.set(keyOf(WEBRTC), 38)
    world.apply(world.machine.onOtherRelayBound(WEBRTC, 0))
    world.runUntil(10_000)
    expect(world.selected).toEqual([])
    world.rtt.set(keyOf(WEBRTC), 20)
    world.runUntil(20_000)
    expect(world.selected.map(({ path, reason }) => [keyOf(path), reason])).toEqual([[keyOf(WEBRTC), "webrtc_faster"]])
    expect(world.machine.reason).toBe("webrtc_faster")
    expect(PathKind.of(world.machine.path, "relay-tcp", null)).toBe("webrtc")
  })

  it("is left for the relay when it goes silent", () => {
    const world = begin()
    world.rtt.set(keyOf(WEBRTC), 5)
    world.apply(world.machine.onOtherRelayBound(WEBRTC, 0))
    world.runUntil(10_000)
    expect(keyOf(world.machine.path)).toBe(keyOf(WEBRTC))
    world.rtt.set(keyOf(WEBRTC), null)
    world.runUntil(11_000)
    expect(keyOf(world.machine.path)).toBe(keyOf(RELAY))
    expect(world.selected.at(-1)?.reason).toBe("path_blackholed")
  })
})
