import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
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

  it.scoped("keeps nobody out where no socket can be made", () =>
    Effect.gen(function*() {
      const dir = yield* folder
      yield* Effect.promise(() => writeFile(join(dir, StateDirLock.LOCK_FILE), ""))
      yield* Effect.scoped(StateDirLock.hold(dir))
      yield* Effect.scoped(StateDirLock.hold(join(dir, "x".repeat(120))))
    }))
})
