import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Scope } from "effect"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { RunFailed } from "../../src/roles/Run.ts"
import { Sallyport } from "../../src/roles/Sallyport.ts"
import * as StateDirLock from "../../src/services/host/StateDirLock.ts"

const folder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "sallyport-lock-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true }))
)

describe.skipIf(process.platform === "win32")("the lock of a state directory", () => {
  it.scoped("is held by one at a time until it ends", () =>
    Effect.gen(function*() {
      const dir = yield* folder
      const first = yield* Scope.make()
      yield* Scope.extend(StateDirLock.hold(dir), first)
      const { message, reason } = yield* Effect.flip(Effect.scoped(StateDirLock.hold(dir)))
      assert.strictEqual(reason, "InUse")
      assert.include(message, "another sallyport runs with this stateDir")
      yield* Scope.close(first, Exit.void)
      yield* Effect.scoped(StateDirLock.hold(dir))
    }))

  it.scoped("keeps an embedded role out", () =>
    Effect.gen(function*() {
      const stateDir = yield* folder
      yield* StateDirLock.hold(stateDir)
      const starting = Layer.build(Sallyport.layer({ role: "client", name: "laptop", stateDir }))
      const error = yield* Effect.flip(starting)
      assert.instanceOf(error, RunFailed)
      assert.include(error.message, "another sallyport runs with this stateDir")
    }))

  it.scoped("keeps nobody out where no socket can be made", () =>
    Effect.gen(function*() {
      const dir = yield* folder
      yield* Effect.promise(() => writeFile(join(dir, StateDirLock.LOCK_FILE), ""))
      yield* Effect.scoped(StateDirLock.hold(dir))
      yield* Effect.scoped(StateDirLock.hold(join(dir, "x".repeat(120))))
    }))
})
