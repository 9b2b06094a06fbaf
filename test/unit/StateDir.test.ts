import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, TestClock } from "effect"
import { chmod, mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as StateDir from "../../src/services/host/StateDir.ts"

const folder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "sallyport-state-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
)
const asRoot = process.getuid?.() === 0
/** Looks in real time: the file system answers when it likes. */
const look = (dir: string, known: StateDir.Identity | null = null) =>
  Effect.map(TestClock.adjust(0).pipe(Effect.zipRight(StateDir.look(dir, known))), (found) => found?.code ?? null)

describe("a look at the state directory", () => {
  it.scoped("finds nothing wrong with a usual one", () =>
    Effect.gen(function*() {
      const dir = yield* folder
      assert.isNull(yield* look(dir))
      assert.isNull(yield* look(dir, yield* StateDir.identify(dir)))
    }))

  it.scoped("notices that it is gone, or a file", () =>
    Effect.gen(function*() {
      const dir = yield* folder
      assert.strictEqual(yield* look(join(dir, "none")), "missing")
      yield* Effect.promise(() => writeFile(join(dir, "file"), ""))
      assert.strictEqual(yield* look(join(dir, "file", "state")), "missing")
    }))

  it.scoped("notices another directory in its place", () =>
    Effect.gen(function*() {
      const parent = yield* folder
      const dir = join(parent, "state")
      yield* Effect.promise(() => mkdir(dir))
      const known = yield* StateDir.identify(dir)
      yield* Effect.promise(() => rename(dir, `${dir}.old`))
      yield* Effect.promise(() => mkdir(dir))
      assert.strictEqual(yield* look(dir, known), "replaced")
      assert.isNull(yield* look(dir))
    }))

  it.scoped.skipIf(asRoot)("notices that this user may not write", () =>
    Effect.gen(function*() {
      const dir = yield* folder
      yield* Effect.promise(() => chmod(dir, 0o500))
      assert.strictEqual(yield* look(dir), "forbidden")
    }))
})

describe("the watch of the state directory", () => {
  it.scoped("reports trouble once, and its end", () =>
    Effect.gen(function*() {
      const parent = yield* folder
      const dir = join(parent, "state")
      yield* Effect.promise(() => mkdir(dir))
      const known = yield* StateDir.identify(dir)
      const told: Array<string | null> = []
      let next = yield* Deferred.make<void>()
      const onChange = (now: StateDir.Trouble | null) =>
        Effect.suspend(() => {
          told.push(now?.code ?? null)
          return Effect.asVoid(Deferred.succeed(next, undefined))
        })
      yield* Effect.promise(() => rename(dir, `${dir}.away`))
      yield* Effect.forkScoped(StateDir.watch(dir, known, onChange))
      yield* Deferred.await(next)
      next = yield* Deferred.make<void>()
      yield* Effect.promise(() => rename(`${dir}.away`, dir))
      const rounds = yield* Effect.fork(
        Effect.forever(Effect.zipRight(TestClock.adjust("5 seconds"), Effect.yieldNow()))
      )
      yield* Deferred.await(next)
      yield* Fiber.interrupt(rounds)
      assert.deepStrictEqual(told, ["missing", null])
    }))
})

describe("work that needs the state directory", () => {
  const failure = { message: "no space", ofFiles: true }
  it.scoped("fails at once if the disk is not to blame", () =>
    Effect.gen(function*() {
      const dir = yield* folder
      let tries = 0
      const work = Effect.suspend(() => {
        tries++
        return Effect.fail(failure)
      })
      assert.strictEqual(yield* Effect.flip(StateDir.patiently(dir, () => true, work)), failure)
      assert.strictEqual(yield* Effect.flip(StateDir.patiently(dir, () => false, work)), failure)
      assert.strictEqual(yield* Effect.flip(StateDir.patiently(join(dir, "none"), () => true, work)), failure)
      assert.strictEqual(tries, 3)
    }))
})
