/**
 * Two whole nodes and a hub over hours: flows come and go, rules change under flows, and every lifetime of the simulation passes
 * again and again. `lives` counts what has passed, one whole life after the other.
 */
import { Effect, Either, Exit, Scope } from "effect"
import { afterAll, beforeAll, expect, it } from "vitest"
import { LEEWAY_SECONDS } from "../../../src/protocol/trust/Documents.ts"
import { LIFETIMES } from "../../../src/protocol/trust/Lifetimes.ts"
import type { NatName } from "../world/Nats.ts"
import * as EchoFlow from "./EchoFlow.ts"
import * as Identities from "./Identities.ts"
import { NodeWorld } from "./NodeWorld.ts"
import { VirtualTime } from "./VirtualTime.ts"

/** How often every lifetime must pass. */
const TIMES = 3
/** Of a NAT's idle mapping. */
const MAPPING_SECONDS = 60
const WORD_GAP_MS = 200
const OLD_GAP_MS = 500
const LOOK_MS = 3_000
/** Longest time for an answer of the hub, of the peer or of a flow. It is for what hangs. */
const PATIENCE_MS = 10_000

interface Lived {
  readonly lives: Readonly<Record<string, number>>
  readonly faults: ReadonlyArray<string>
  /** What happened, by its kind. */
  readonly counts: Readonly<Record<string, number>>
  readonly hours: number
}

interface Options {
  readonly client: NatName
  readonly connector: NatName
  readonly identities: Identities.Identities
  readonly seed: number
  /** Whether one flow stays open and is used all the way. It makes a second of virtual time expensive. */
  readonly oldFlow: boolean
  /** Whether nothing goes directly between the two, so that all depends on their legs. */
  readonly relayed: boolean
}

const play = async ({ client, connector, identities, oldFlow, relayed, seed }: Options): Promise<Lived> => {
  const place = (nat: NatName) => ({ nat, delayMs: 15, lifetimeMs: MAPPING_SECONDS * 1000 })
  const world = new NodeWorld({ client: place(client), connector: place(connector), seed, identities, hub: true })
  const { faults, time } = world
  const { hub, nodes } = world
  const undo = time.install()
  try {
    if (relayed) world.directDownUntil = Infinity
    await world.start()
    const sessions = world.of("client").plane.sessions
    if (hub === null || sessions === null) throw new Error("this world has no hub")
    const clock = () => world.now / 1000
    const epoch = () => Date.now() / 1000
    const lives = new Lives()
    const counts = { flows: 0, words: 0, rules: 0, sessions: 0 }
    const known = new Set<string>()

    /** What is in use now must be valid now; a look sees each document that takes the place of another. */
    const look = () => {
      for (const { host: { role }, plane } of nodes) {
        if (plane.router.leg === null) faults.push(`the leg of the ${role} was lost after ${clock()} s`)
        const end = hub.ends.get(plane.key) ?? 0
        if (end + LEEWAY_SECONDS <= epoch()) faults.push(`the credential of the ${role} has ended after ${clock()} s`)
        lives.see(`credential of the ${role}`, epoch(), end)
        lives.see(`binding of the ${role}`, clock(), clock() + LIFETIMES.binding)
        lives.see(`mapping of the ${role}`, clock(), clock() + MAPPING_SECONDS)
        for (const { id, leftSeconds } of plane.sessions?.all() ?? []) {
          if (leftSeconds <= 0) faults.push(`the grant of the ${role} has ended after ${clock()} s`)
          lives.see(`grant of the ${role}`, epoch(), epoch() + leftSeconds)
          const ticketEnd = hub.ends.get(id) ?? 0
          if (ticketEnd + LEEWAY_SECONDS <= epoch()) faults.push(`the ticket has ended after ${clock()} s`)
          lives.see(`ticket of the ${role}`, epoch(), ticketEnd)
        }
      }
      time.timeline.after(LOOK_MS, look)
    }
    look()

    const pass = (seconds: number) => time.runUntil(world.now + seconds * 1000)
    const until = async (what: string, done: () => boolean) => {
      const limit = world.now + PATIENCE_MS
      while (!done() && world.now < limit) await time.runUntil(world.now + 50)
      if (!done()) faults.push(`${what} did not happen (${clock()} s)`)
    }
    const open = async (host: string) => {
      let answer: Either.Either<EchoFlow.EchoFlow, unknown> | null = null
      Effect.runFork(Effect.map(EchoFlow.EchoFlow.open(sessions, host), (it) => void (answer = it)))
      await until(`an answer to a flow to ${host}`, () => answer !== null)
      return answer as Either.Either<EchoFlow.EchoFlow, unknown> | null
    }
    const mustOpen = async (host: string) => {
      const answer = await open(host)
      counts.flows++
      if (answer !== null && Either.isRight(answer)) {
        counts.sessions = known.add(answer.right.session.id).size
        return answer.right
      }
      faults.push(`a flow to ${host} was refused (${clock()} s): ${JSON.stringify(answer)}`)
      return null
    }
    const prove = async (flow: EchoFlow.EchoFlow) => {
      flow.say()
      await until(`an answer in a flow (${flow.over})`, () => flow.heard === flow.said || flow.over !== null)
      if (flow.over !== null) faults.push(`a flow is over (${clock()} s): ${flow.over}`)
      counts.words++
    }
    /** A flow of some words. */
    const use = async (host: string) => {
      const flow = await mustOpen(host)
      if (flow === null) return
      for (let word = 0; word < 3; word++) {
        await prove(flow)
        await pass(WORD_GAP_MS / 1000)
      }
      flow.end()
    }
    /** A rule is taken away under a flow and given again. Other flows notice nothing of it. */
    const changeRules = async () => {
      const flow = await mustOpen("wiki")
      if (flow === null) return
      await prove(flow)
      await Effect.runPromise(hub.permit("steady"))
      await until("the end of a flow that is no longer permitted", () => flow.over !== null)
      const refused = await open("wiki")
      if (refused === null || Either.isRight(refused)) faults.push(`a flow was not refused (${clock()} s)`)
      await Effect.runPromise(hub.permit("steady", "wiki"))
      await pass(1)
      await use("wiki")
      counts.rules++
    }

    await Effect.runPromise(hub.permit("steady", "wiki"))
    const old = oldFlow ? await mustOpen("steady") : null
    let isSpeaking = true
    const speak = () => {
      if (old === null || !isSpeaking) return
      if (old.over !== null) return void faults.push(`the old flow is over (${clock()} s): ${old.over}`)
      old.say()
      time.timeline.after(OLD_GAP_MS, speak)
    }
    speak()

    // One session, kept by flows that come before it is idle for too long.
    const longest = Math.max(LIFETIMES.ticket, LIFETIMES.credential, LIFETIMES.binding, LIFETIMES.grant)
    const end = clock() + TIMES * longest + 2 * LEEWAY_SECONDS
    for (let round = 0; clock() < end && faults.length === 0; round++) {
      await use("steady")
      if (round % 4 === 1) await changeRules()
      await pass(0.9 * LIFETIMES.idleSession)
    }
    if (counts.sessions > 1) faults.push("the session did not last")
    const oldWords = old?.said ?? 0
    isSpeaking = false
    if (old !== null) {
      await until("the last answers of the old flow", () => old.said === old.heard)
      old.end()
    }

    // Sessions that are not used any more.
    for (let life = 0; life < TIMES && faults.length === 0; life++) {
      const before = counts.sessions
      await pass(1.1 * LIFETIMES.idleSession + 5)
      if (sessions.all().length > 0) faults.push("an idle session did not end")
      else lives.add("idle session")
      await use("steady")
      await pass(1)
      if (counts.sessions !== before + 1) faults.push("the next flow did not make a new session")
    }
    const hours = clock() / 3600
    await world.stop()
    return { lives: lives.counts, faults: [...faults], counts: { ...counts, oldWords }, hours }
  } finally {
    undo()
  }
}

/** Counts lives, one after the other: the next one begins with what is in use when the one before is over. */
class Lives {
  readonly counts: Record<string, number> = {}
  readonly #ends = new Map<string, number>()

  /** `end`: of what is in use now. */
  see(name: string, now: number, end: number): void {
    const current = this.#ends.get(name)
    if (end <= now || (current !== undefined && now < current)) return
    if (current !== undefined) this.add(name)
    else this.counts[name] = 0
    this.#ends.set(name, end)
  }

  add(name: string): void {
    this.counts[name] = (this.counts[name] ?? 0) + 1
  }
}

/** For what hangs: a test of lives takes seconds, and minutes beside busy neighbours. */
const HANG_MS = 15 * 60_000

/** A test that three lives of everything pass by `lifetimes`, and nothing is lost. Prints what passed as `sim`. */
export const test = (
  title: string,
  sim: string,
  lifetimes: typeof LIFETIMES,
  options: Pick<Options, "oldFlow" | "relayed">
): void => {
  const scope = Effect.runSync(Scope.make())
  let identities: Identities.Identities

  beforeAll(async () => {
    const undo = new VirtualTime().install()
    identities = await Effect.runPromise(Scope.extend(Identities.make, scope))
    undo()
  })
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  it(title, async () => {
    expect(LIFETIMES).toBe(lifetimes)
    const cpu = process.cpuUsage()
    const nat = "port-restricted"
    const { counts, faults, hours, lives } = await play({
      client: nat,
      connector: nat,
      identities,
      seed: 1,
      ...options
    })
    const cpuMs = Math.round(process.cpuUsage(cpu).user / 1000)
    process.stdout.write(`${JSON.stringify({ sim, hours, cpuMs, lives, counts })}\n`)
    expect(faults).toEqual([])
    for (const [name, passed] of Object.entries(lives)) expect(passed, name).toBeGreaterThanOrEqual(TIMES)
    expect(counts["rules"]).toBeGreaterThanOrEqual(TIMES)
  }, HANG_MS)
}
