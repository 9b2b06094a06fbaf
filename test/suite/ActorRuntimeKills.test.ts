import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Logger, LogLevel, Scope } from "effect"
import { randomInt } from "node:crypto"
import { copyFileSync, renameSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { afterAll, beforeAll, vi } from "vitest"
import * as Liveness from "../../src/actors/runtime/liveness/Liveness.ts"
import * as Supervisor from "../../src/actors/runtime/supervisor/Supervisor.ts"
import * as Threads from "../../src/actors/runtime/thread/Threads.ts"
import * as Bundle from "./runtime/Bundle.ts"
import { eventually, type Kind, kinds, newChannel, QUIET, restart } from "./runtime/Harness.ts"
import { Broken, Echo, Front, Middle } from "./runtime/TestRpcs.ts"

vi.setConfig({ testTimeout: 300_000, hookTimeout: 120_000 })

let bundle: Bundle.Bundle
beforeAll(async () => {
  bundle = await Bundle.make()
})
afterAll(() => bundle.remove())

const quiet = Logger.minimumLogLevel(LogLevel.None)

/** Small, reproducible random numbers (mulberry32); each test prints its seed. */
const randomFrom = (seed: number) => {
  let state = seed
  const next = () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  return {
    below: (limit: number) => next() * limit,
    pick: <A>(from: ReadonlyArray<A>) => from[Math.floor(next() * from.length)] as A
  }
}

/** How many threads are killed in each placement: 500 in all. `withinMs`: the time that a boot takes, about. */
const PLAN: Record<string, { readonly kills: number; readonly withinMs: number }> = {
  "in-thread": { kills: 460, withinMs: 12 },
  "one worker thread": { kills: 20, withinMs: 300 },
  isolated: { kills: 15, withinMs: 400 },
  "in child processes, and one worker thread": { kills: 5, withinMs: 900 }
}
/** Kills of one supervisor, after which it must be whole again. */
const burstOf = ({ isThread }: Kind) => isThread ? 5 : 10

describe.each(kinds)("actors whose threads are killed at random moments, $name", (kind: Kind) => {
  const { kills, withinMs } = PLAN[kind.name] ?? assert.fail(`no plan for ${kind.name}`)

  it.live(`come back from ${kills} kills in boot, run and stop`, () =>
    Effect.gen(function*() {
      const seed = Number(process.env["SALLYPORT_KILL_SEED"] ?? randomInt(2 ** 31))
      process.stdout.write(`kills, ${kind.name}: SALLYPORT_KILL_SEED=${seed}\n`)
      const random = randomFrom(seed)
      for (let killed = 0; killed < kills;) {
        const channel = newChannel()
        const scope = yield* Scope.make()
        const supervisor = yield* Scope.extend(
          Supervisor.make({
            actors: [
              { address: Echo, uses: [], config: { channel } },
              { address: Middle, uses: [Echo], config: { channel } },
              { address: Front, uses: [Middle], config: { channel } }
            ],
            placement: kind.placement,
            spawn: kind.spawn(bundle.entry),
            restart: { ...restart, first: "1 millis", max: "20 millis", limit: Infinity }
          }),
          scope
        )
        const threads = (yield* supervisor.status).map(({ name }) => name)
        for (let at = 0; at < burstOf(kind); at++) {
          yield* Effect.sleep(random.below(withinMs))
          yield* supervisor.kill(random.pick(threads))
          killed++
        }
        yield* eventually(Effect.map(supervisor.down, (down) => down.length === 0))
        yield* eventually(
          supervisor.ref(Middle).ask((client) => client.AskEcho({ n: 7 })).pipe(
            Effect.map((answer) => answer === 7),
            Effect.orElseSucceed(() => false)
          )
        )
        if (random.below(2) < 1) { // it stops while a thread is being started again
          yield* supervisor.kill(random.pick(threads))
          killed++
          yield* Effect.sleep(random.below(withinMs))
        }
        yield* Scope.close(scope, Exit.void)
        for (const thread of yield* supervisor.status) {
          assert.strictEqual(thread.state, "stopped")
          for (const actor of thread.actors) assert.strictEqual(actor.state, "stopped")
        }
      }
    }).pipe(Effect.provide(quiet)))
})

/** Threads that are real, of which the system tells what the test says. */
const withReading =
  (spawn: Supervisor.Options["spawn"], reading: () => Partial<Liveness.Reading>): Supervisor.Options["spawn"] =>
  (name) =>
    Effect.map(spawn(name), (thread) => ({
      ...thread,
      pulse: { ...thread.pulse, read: () => ({ ...thread.pulse.read(), ...reading() }) }
    }))

describe.each(kinds.filter(({ isThread }) => isThread))("an actor that is still starting, $name", (kind) => {
  it.scopedLive("is started again when its thread is judged dead", () =>
    Effect.gen(function*() {
      let isHung = false
      const [, thread = ""] = kind.name.includes("process") ? ["", "apart"] : ["", "one"]
      const supervisor = yield* Supervisor.make({
        actors: [
          { address: Echo, uses: [], config: { channel: newChannel() } },
          { address: Broken, uses: [], config: { how: "hang" } }
        ],
        placement: { [thread]: ["echo", "broken"] },
        spawn: withReading(kind.spawn(bundle.entry), () => isHung ? { beats: 0, cpuMs: performance.now() } : {}),
        restart,
        deadlines: { boot: "10 minutes", health: Liveness.SAMPLE_MS / 2 }
      })
      const broken = Effect.map(supervisor.status, ([only]) => only?.actors.find(({ name }) => name === "broken"))
      const echo = supervisor.ref(Echo)
      yield* eventually(Effect.isSuccess(echo.ask((client) => client.Echo({ n: 1 }))))
      yield* eventually(Effect.map(broken, (actor) => actor?.incarnation === 1))
      isHung = true
      yield* eventually(Effect.map(supervisor.status, ([only]) => only?.state !== "up"))
      isHung = false
      yield* eventually(Effect.map(broken, (actor) => actor?.incarnation === 2 && actor.state === "starting"))
      yield* eventually(Effect.isSuccess(echo.ask((client) => client.Echo({ n: 2 }))))
      assert.include((yield* supervisor.down).join(), "actor broken has not been up for")
      assert.deepStrictEqual(yield* supervisor.lost, [])
    }).pipe(Effect.provide(quiet)))
})

describe("a thread that cannot be started again", () => {
  const supervise = (spawn: Supervisor.Options["spawn"], patience: Supervisor.Options["restart"]) =>
    Supervisor.make({
      actors: [{ address: Echo, uses: [], config: { channel: newChannel() } }],
      placement: "isolated",
      spawn,
      ...(patience === undefined ? {} : { restart: patience })
    })
  const patient = { ...restart, patience: "10 minutes" } as const

  it.scopedLive("is reported, retried, and works when its file returns", () =>
    Effect.gen(function*() {
      const path = fileURLToPath(bundle.entry)
      const entry = new URL("moved.mjs", bundle.entry)
      copyFileSync(path, fileURLToPath(entry))
      const supervisor = yield* supervise(Threads.workers({ entry, telemetry: QUIET }), patient)
      yield* supervisor.awaitUp
      renameSync(fileURLToPath(entry), `${path}.away`)
      yield* supervisor.kill("echo")
      const thread = Effect.map(supervisor.status, ([thread]) => thread)
      yield* eventually(Effect.map(thread, (it) => (it?.restarts ?? 0) > restart.limit + 2))
      assert.include((yield* thread)?.lastError ?? "", "moved.mjs")
      renameSync(`${path}.away`, fileURLToPath(entry))
      yield* eventually(Effect.isSuccess(supervisor.ref(Echo).ask((client) => client.Echo({ n: 1 }))))
      assert.deepStrictEqual(yield* supervisor.down, [])
    }).pipe(Effect.provide(quiet)))

  it.scopedLive("is tried again when making it is a defect", () =>
    Effect.gen(function*() {
      const workers = Threads.workers({ entry: bundle.entry, telemetry: QUIET })
      let fails = 3
      const supervisor = yield* supervise((name) =>
        Effect.suspend(() => {
          if (fails-- > 0) throw new Error("a file is missing")
          return workers(name)
        }), patient)
      yield* supervisor.awaitUp
      const [thread] = yield* supervisor.status
      assert.include(thread, { incarnation: 4, restarts: 3 })
      assert.include(thread?.lastError ?? "", "a file is missing")
    }).pipe(Effect.provide(quiet)))
})

describe("a thread that gets no processor", () => {
  it.scopedLive("is left alone until it has run for the limit", () =>
    Effect.gen(function*() {
      let share = 1
      let cpuMs = 0
      let last = performance.now()
      const supervisor = yield* Supervisor.make({
        actors: [{ address: Echo, uses: [], config: { channel: newChannel() } }],
        placement: "isolated",
        spawn: withReading(Threads.workers({ entry: bundle.entry, telemetry: QUIET }), () => {
          const now = performance.now()
          cpuMs += (now - last) * share
          last = now
          return { cpuMs, isAsleep: false }
        }),
        restart,
        deadlines: { health: "1 second" }
      })
      yield* supervisor.awaitUp
      share = 0
      const echo = supervisor.ref(Echo)
      yield* Effect.ignore(echo.ask((client) => client.BlockThread(), { deadline: "50 millis" }))
      yield* Effect.sleep(8 * Liveness.SAMPLE_MS) // far beyond the limit
      assert.include((yield* supervisor.status)[0], { incarnation: 1, state: "up" })
      share = 1
      yield* eventually(Effect.map(supervisor.status, ([thread]) => thread?.incarnation === 2))
      assert.include((yield* supervisor.status)[0]?.lastError ?? "", "without a turn")
    }).pipe(Effect.provide(quiet)))
})
