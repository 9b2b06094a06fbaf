/** Periodic jobs of a process: in virtual time each works in its fourth period as in its first, on the state of that moment. */
import { RpcGroup } from "@effect/rpc"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Redacted, Stream, TestClock } from "effect"
import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { delimiter, join } from "node:path"
import { MessageChannel } from "node:worker_threads"
import * as ActorAddress from "../../src/actors/runtime/actor/ActorAddress.ts"
import * as ActorRef from "../../src/actors/runtime/actor/ActorRef.ts"
import * as LifetimeSearch from "../../src/actors/stun/LifetimeSearch.ts"
import * as EnrolmentToken from "../../src/protocol/trust/EnrolmentToken.ts"
import * as Demo from "../../src/roles/Demo.ts"
import * as Enrol from "../../src/roles/Enrol.ts"
import * as Run from "../../src/roles/Run.ts"
import { AdminListenError } from "../../src/services/admin/AdminSocket.ts"
import * as StateDir from "../../src/services/host/StateDir.ts"
import * as Keys from "../../src/services/identity/Keys.ts"
import * as NetworkWatch from "../../src/services/network/NetworkWatch.ts"
import { someTurns } from "./support/Turns.ts"

const PERIODS = 4

const folder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "sallyport-host-jobs-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
)
/** A directory that root may write, on a file system without any free space. */
const FULL = "/proc"
/** Passes periods until it holds. A look at files takes turns of the event loop before the next one is due. */
const periodsUntil = (done: () => boolean) =>
  Effect.repeat(Effect.zipRight(TestClock.adjust("5 seconds"), someTurns), { until: done })
/** The same, but fails when `job` is over before. */
const periodsOf = <A, E>(job: Fiber.Fiber<A, E>, done: () => boolean) =>
  Effect.raceFirst(periodsUntil(done), Effect.zipRight(Fiber.await(job), Effect.dieMessage("the job is over")))

/** A job that fails until a test says otherwise, and counts its tries. */
const stubborn = () => {
  const job = { tries: 0, isWritable: false }
  /** Passes periods of 5 s, in the last of which it succeeds. After that it must not be tried again. */
  const passPeriods = Effect.gen(function*() {
    for (let period = 1; period <= PERIODS; period++) {
      job.isWritable = period === PERIODS
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(job.tries, 1 + period)
    }
    yield* TestClock.adjust("1 minute")
    assert.strictEqual(job.tries, 1 + PERIODS)
  })
  return { job, passPeriods }
}

describe("every period", () => {
  it.scoped("the state directory is looked at", () =>
    Effect.gen(function*() {
      const parent = yield* folder
      const dir = join(parent, "state")
      yield* Effect.promise(() => mkdir(dir))
      const told: Array<string | null> = []
      /** On a busy host a look may take more turns than it gets here. That is no trouble of the directory. */
      const onChange = (now: StateDir.Trouble | null) =>
        Effect.sync(() => {
          const code = now?.code ?? null
          if (code !== "slow" && code !== (told.at(-1) ?? null)) told.push(code)
        })
      yield* Effect.forkScoped(StateDir.watch(dir, yield* StateDir.identify(dir), onChange))
      for (let period = 1; period <= PERIODS; period++) {
        yield* Effect.promise(() => rename(dir, `${dir}.away`))
        yield* periodsUntil(() => told.length === 2 * period - 1)
        yield* Effect.promise(() => rename(`${dir}.away`, dir))
        yield* periodsUntil(() => told.length === 2 * period)
        assert.deepStrictEqual(told.slice(-2), ["missing", null], `period ${period}`)
      }
    }))

  it.scoped("an idle mapping is measured again after it changed", () =>
    Effect.gen(function*() {
      let searches = 0
      const search = yield* LifetimeSearch.make({
        find: () => Effect.as(Effect.sync(() => searches++), null)
      })
      yield* search.onServers([{ host: "192.0.2.1", port: 3478 }])
      yield* TestClock.adjust("6 seconds")
      assert.strictEqual(searches, 1)
      for (let period = 1; period <= PERIODS; period++) {
        yield* search.onMappingChange
        yield* TestClock.adjust("50 seconds")
        assert.strictEqual(searches, period, `period ${period}`)
        yield* TestClock.adjust("11 seconds")
        assert.strictEqual(searches, period + 1, `period ${period}`)
      }
    }))

  it.scoped("a failed reload is repeated until it succeeds", () =>
    Effect.gen(function*() {
      const { job, passPeriods } = stubborn()
      const reload = Effect.sync(() => (job.tries++, { again: !job.isWritable }))
      yield* Effect.forkScoped(Run.repeatReload(reload))
      yield* TestClock.adjust("1 second")
      yield* passPeriods
    }))

  it.scoped("an unwritable admin socket is tried again until it opens", () =>
    Effect.gen(function*() {
      const { job, passPeriods } = stubborn()
      const full = new AdminListenError({ reason: "Unwritable", message: "full" })
      const move = () =>
        Effect.suspend(() => {
          job.tries++
          return job.isWritable ? Effect.void : Effect.fail(full)
        })
      yield* Run.openAdmin({ move }, { admin: { path: "/nonexistent/admin.sock" } as never })
      yield* passPeriods
    }))

  it.scoped.skipIf(process.getuid?.() !== 0)("a write to a full disk is tried again", () =>
    Effect.gen(function*() {
      let tries = 0
      const write = Effect.suspend(() => ++tries > PERIODS ? Effect.succeed("saved") : Effect.fail({ message: "full" }))
      const writing = yield* Effect.fork(StateDir.patiently(FULL, () => true, write))
      for (let period = 1; period < PERIODS; period++) yield* periodsOf(writing, () => tries > period)
      yield* periodsUntil(() => tries > PERIODS)
      assert.strictEqual(yield* Fiber.join(writing), "saved")
    }))

  it.scoped("an unreachable relay is asked again for enrolment", () =>
    Effect.gen(function*() {
      const stateDir = yield* folder
      const { publicKey: authorityKey } = yield* Keys.loadOrCreate(join(stateDir, "authority.key"))
      const token = EnrolmentToken.encode({
        host: "127.0.0.1",
        httpsPort: 1, // nobody listens there
        tls: { _tag: "Ca" },
        authorityKey,
        id: "0".repeat(16),
        secret: Redacted.make("A".repeat(22))
      })
      let failures = 0
      const enrolling = yield* Effect.forkScoped(Enrol.ensure({
        role: "client",
        name: "laptop",
        carrier: "auto",
        proxy: Redacted.make("none"),
        stateDir: join(stateDir, "node"),
        token: Redacted.make(token),
        onWaiting: () => Effect.sync(() => void failures++)
      }))
      for (let period = 1; period <= PERIODS; period++) yield* periodsOf(enrolling, () => failures >= period)
    }))

  it.scoped("the monitor of the network is started again", () =>
    Effect.gen(function*() {
      const dir = yield* folder
      yield* Effect.promise(() => writeFile(join(dir, "ip"), "#!/bin/sh\necho changed\n", { mode: 0o755 }))
      const before = process.env["PATH"] ?? ""
      process.env["PATH"] = `${dir}${delimiter}${before}`
      yield* Effect.addFinalizer(() => Effect.sync(() => void (process.env["PATH"] = before)))
      let changes = 0
      const monitor = yield* Effect.forkScoped(NetworkWatch.ipMonitor(() => void changes++, () => {}))
      for (let period = 1; period <= PERIODS; period++) yield* periodsOf(monitor, () => changes >= period)
    }))

  it.scoped("an actor's stream that keeps failing is asked for again", () =>
    Effect.gen(function*() {
      const { link, ref } = yield* ActorRef.make(ActorAddress.make("failing", RpcGroup.make()))
      yield* link.connect(new MessageChannel().port1, 1)
      const defect = Object.assign(new Error("a defect of the test"), { name: ActorRef.ACTOR_DEFECT })
      let tries = 0
      const failing = Stream.suspend(() => (tries++, Stream.die(defect)))
      yield* Effect.forkScoped(Stream.runDrain(ref.subscribe(() => failing)))
      // The pause doubles with each failure, up to 2 s.
      const next = (count: number) => Effect.repeat(TestClock.adjust("100 millis"), { until: () => tries >= count })
      yield* next(10)
      yield* next(tries + 1)
      for (let period = 1; period <= PERIODS; period++) {
        const before = tries
        yield* TestClock.adjust("1900 millis")
        assert.strictEqual(tries, before, "the pause is kept")
        yield* TestClock.adjust("100 millis")
        assert.strictEqual(tries, before + 1, `period ${period}`)
      }
    }))

  it.scoped("the demo looks whether its path is direct", () =>
    Effect.gen(function*() {
      for (let period = 1; period <= PERIODS; period++) {
        let looks = 0
        const path = () => looks > 10 * period ? "direct" as const : "relay-udp" as const
        const ask = Effect.sync(() => (looks++, { path: path(), reason: "relay_first" as const }))
        const waiting = yield* Effect.fork(Demo.awaitDirect(ask))
        yield* TestClock.adjust("1 millis")
        for (let look = 1; look <= 10 * period; look++) {
          assert.strictEqual(looks, look)
          yield* TestClock.adjust("25 millis")
        }
        assert.strictEqual((yield* Fiber.join(waiting)).path, "direct")
      }
      const ask = Effect.succeed({ path: "relay-udp" as const, reason: "relay_first" as const })
      const waiting = yield* Effect.fork(Effect.flip(Demo.awaitDirect(ask)))
      yield* TestClock.adjust("20 seconds")
      assert.include((yield* Fiber.join(waiting)).message, "no direct path within 20s")
    }))
})

describe("a connector that stops", () => {
  /** A connector with so many flows. It counts how often it was asked. */
  const connector = (flows: number) => {
    const state = { flows, sessions: 1, asked: 0 }
    const set = () => Effect.sync(() => (state.asked++, { draining: true, flows: state.flows, sessions: 1 }))
    return { state, running: { drain: { set, state: Effect.never } } }
  }

  it.scoped("counts its open flows until none is left", () =>
    Effect.gen(function*() {
      const { running, state } = connector(PERIODS)
      const stopping = yield* Effect.fork(Run.drain(running, 60))
      yield* TestClock.adjust("1 second")
      for (let period = 1; period <= PERIODS; period++) {
        const before = state.asked
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual(state.asked - before, 25, `period ${period}`)
        assert.isNull(stopping.unsafePoll())
        state.flows--
      }
      yield* TestClock.adjust("200 millis")
      yield* Fiber.join(stopping)
    }))

  it.scoped("cuts the flows that are open after its time", () =>
    Effect.gen(function*() {
      const { running } = connector(1)
      const stopping = yield* Effect.fork(Run.drain(running, 3))
      for (let period = 1; period <= 14; period++) {
        yield* TestClock.adjust("200 millis")
        assert.isNull(stopping.unsafePoll(), `period ${period}`)
      }
      yield* TestClock.adjust("200 millis")
      yield* Fiber.join(stopping)
    }))

  it.scoped("waits for its clients to hear of it", () =>
    Effect.gen(function*() {
      const { running, state } = connector(0)
      const stopping = yield* Effect.fork(Run.drain(running, 60))
      yield* TestClock.adjust("500 millis")
      assert.isNull(stopping.unsafePoll())
      yield* TestClock.adjust("100 millis")
      yield* Fiber.join(stopping)
      assert.strictEqual(state.asked, 1 + 3)
    }))
})
