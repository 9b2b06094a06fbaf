import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Enrol from "../../src/roles/Enrol.ts"

const folder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "sallyport-enrol-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
)
const laptop = { role: "client", name: "laptop", carrier: "auto", proxy: Redacted.make("none") } as const

describe("a node makes no key of its own", () => {
  it.scoped("before it has a token", () =>
    Effect.gen(function*() {
      const stateDir = yield* folder
      const { message } = yield* Effect.flip(Enrol.ensure({ ...laptop, stateDir, token: null }))
      assert.include(message, "sallyport token create")
      assert.deepStrictEqual(yield* Effect.promise(() => readdir(stateDir)), [])
    }))

  it.scoped("if it has enrolled and its key is lost", () =>
    Effect.gen(function*() {
      const stateDir = yield* folder
      yield* Effect.promise(() => writeFile(join(stateDir, "enrolment.json"), "{}"))
      const error = yield* Effect.flip(Enrol.ensure({ ...laptop, stateDir, token: Redacted.make("a token") }))
      assert.strictEqual(error._tag, "KeyFileError")
      assert.include(error.message, "has enrolment.json but not node.key")
      assert.deepStrictEqual(yield* Effect.promise(() => readdir(stateDir)), ["enrolment.json"])
    }))
})
