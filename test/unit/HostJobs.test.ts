/** Periodic jobs of a process: in virtual time each works in its fourth period as in its first, on the state of that moment. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, TestClock } from "effect"
import { mkdir, mkdtemp, rename, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as LifetimeSearch from "../../src/actors/stun/LifetimeSearch.ts"
import * as Run from "../../src/roles/Run.ts"
import { AdminListenError } from "../../src/services/admin/AdminSocket.ts"
import * as StateDir from "../../src/services/host/StateDir.ts"
import { someTurns } from "./support/Turns.ts"

const PERIODS = 4

const folder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "sallyport-host-jobs-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
)
/** Passes periods until it holds. A look at files takes turns of the event loop before the next one is due. */
const periodsUntil = (done: () => boolean) =>
  Effect.repeat(Effect.zipRight(TestClock.adjust("5 seconds"), someTurns), { until: done })

describe("every period", () => {
  it.scoped("the state directory is looked at", () =>
    Effect.gen(function*() {
      const parent = yield* folder
      const dir = join(parent, "state")
      yield* Effect.promise(() => mkdir(dir))
      const told: Array<string | null> = []
      const onChange = (now: StateDir.Trouble | null) => Effect.sync(() => void told.push(now?.code ?? null))
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
      let tries = 0
      let isWritable = false
      const reload = Effect.sync(() => (tries++, { again: !isWritable }))
      yield* Effect.forkScoped(Run.repeatReload(reload))
      yield* TestClock.adjust("1 second")
      for (let period = 1; period <= PERIODS; period++) {
        isWritable = period === PERIODS
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual(tries, 1 + period)
      }
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(tries, 1 + PERIODS)
    }))

  it.scoped("an unwritable admin socket is tried again until it opens", () =>
    Effect.gen(function*() {
      let tries = 0
      let isWritable = false
      const move = () =>
        Effect.suspend(() => {
          tries++
          return isWritable ? Effect.void : Effect.fail(new AdminListenError({ reason: "Unwritable", message: "full" }))
        })
      yield* Run.openAdmin({ move }, { admin: { path: "/nonexistent/admin.sock" } as never })
      for (let period = 1; period <= PERIODS; period++) {
        isWritable = period === PERIODS
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual(tries, 1 + period)
      }
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(tries, 1 + PERIODS)
    }))
})
