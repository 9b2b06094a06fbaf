/** Two whole nodes and their relay, of which one is told to use only relays, and later to use direct paths again. */
import { Effect, Either, Exit, Scope } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import * as EchoFlow from "./nodes/EchoFlow.ts"
import * as Identities from "./nodes/Identities.ts"
import { NodeWorld } from "./nodes/NodeWorld.ts"
import { VirtualTime } from "./nodes/VirtualTime.ts"

/** For what hangs: a test takes seconds, and minutes beside busy neighbours. */
const HANG_MS = 15 * 60_000
const WORD_GAP_MS = 200
const STEP_MS = 50
/** Longest time for an answer, and for a move. It is for what hangs. */
const PATIENCE_MS = 60_000
/** Longer than the gap between two rounds of probes for a direct path. */
const RELAYED_MS = 35_000
/** How soon a direct path is found once it is allowed. Spent probes would be repeated later than that. */
const BEGUN_MS = 5_000
/** How soon the closed direct path must be left for the relay. */
const LEFT_MS = 1_000
/** Longest time without an answer in the flow. Round trips by the relay take 80 ms. */
const STALL_MS = 1_000

const scope = Effect.runSync(Scope.make())
let identities: Identities.Identities

beforeAll(async () => {
  const undo = new VirtualTime().install()
  identities = await Effect.runPromise(Scope.extend(Identities.make, scope))
  undo()
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

/** Plays the world while a flow speaks. */
const withFlow = async (
  test: (world: NodeWorld, run: Run) => Promise<void>,
  before: (world: NodeWorld) => void = () => undefined
) => {
  const place = { nat: "port-restricted" as const, delayMs: 20, lifetimeMs: 60_000 }
  const world = new NodeWorld({ client: place, connector: place, seed: 1, identities, hub: true })
  const { time } = world
  const undo = time.install()
  try {
    await world.start()
    before(world)
    const { hub } = world
    const { sessions } = world.of("client").plane
    if (hub === null || sessions === null) throw new Error("this world has no hub")
    await Effect.runPromise(hub.permit("steady"))
    let flow: EchoFlow.EchoFlow | null = null
    Effect.runFork(Effect.map(EchoFlow.EchoFlow.open(sessions, "steady"), (it) => {
      flow = Either.getOrNull(it)
    }))
    const until = async (what: string, done: () => boolean, limitMs = PATIENCE_MS) => {
      const limit = world.now + limitMs
      while (!done() && world.now < limit) await time.runUntil(world.now + STEP_MS)
      expect(done(), what).toBe(true)
    }
    const opened = (): EchoFlow.EchoFlow | null => flow
    await until("the flow is open", () => opened() !== null)
    const it = opened()!
    let stallMs = 0
    let heard = { words: 0, at: world.now }
    const speak = () => {
      if (it.heard > heard.words) heard = { words: it.heard, at: world.now }
      stallMs = Math.max(stallMs, world.now - heard.at)
      it.say()
      if (it.over === null) time.timeline.after(WORD_GAP_MS, speak)
    }
    speak()
    await test(world, { until, pass: (ms) => time.runUntil(world.now + ms) })
    expect(it.over).toBeNull()
    expect(world.faults).toEqual([])
    expect(stallMs, "the longest time without an answer").toBeLessThan(STALL_MS)
    it.end()
    await world.stop()
  } finally {
    undo()
  }
}
interface Run {
  readonly until: (what: string, done: () => boolean, limitMs?: number) => Promise<void>
  readonly pass: (ms: number) => Promise<void>
}

const kinds = (world: NodeWorld) => world.nodes.map(({ plane: { session } }) => session?.path.kind ?? "none")
const every = (world: NodeWorld, kind: string) => () => kinds(world).every((it) => it === kind)
/** Addresses of the peer that a restarted prober would learn. `null` if it would learn no list. */
const learned = ({ plane }: NodeWorld["nodes"][number]) => {
  const told = plane.sessions?.snapshot().find((event) => event._tag === "PeerCandidates")
  return told === undefined ? null : told.list.length
}

describe.each([["client", "connector"], ["connector", "client"]] as const)(
  "a %s told to use only relays",
  (role, peer) => {
    it("leaves direct paths and returns to them", () =>
      withFlow(async (world, { pass, until }) => {
        const { plane } = world.of(role)
        const direct = () => {
          const { bytesIn, bytesOut } = plane.router.traffic.direct
          return { bytesIn, bytesOut }
        }
        await until("both are direct", every(world, "direct"))
        plane.sessions?.setDirect(false)
        const before = direct()
        await until("both are relayed", every(world, "relay"), LEFT_MS)
        await pass(RELAYED_MS)
        expect(kinds(world)).toEqual(["relay", "relay"])
        expect(direct(), "no direct packet passed").toEqual(before)
        expect([learned(world.of(role)), learned(world.of(peer))], "addresses of the peers").toEqual([null, 0])
        plane.sessions?.setDirect(true)
        await until("both are direct again", every(world, "direct"))
      }), HANG_MS)

    it("goes direct when it began with relays", () =>
      withFlow(async (world, { pass, until }) => {
        const { plane } = world.of(role)
        await pass(5_000)
        expect(kinds(world)).toEqual(["relay", "relay"])
        plane.sessions?.setDirect(true)
        await until("both are direct", every(world, "direct"), BEGUN_MS)
      }, (world) => {
        world.of(role).plane.router.direct = false
      }), HANG_MS)
  }
)
