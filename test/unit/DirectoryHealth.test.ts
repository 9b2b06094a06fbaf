/** What the directory's regular write shows. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, TestClock } from "effect"
import * as DirectoryHealth from "../../src/services/directory/DirectoryHealth.ts"

const setup = () => {
  const world = { problem: null as string | null, tookMs: 0 }
  const health = DirectoryHealth.make(
    Effect.suspend(() =>
      Effect.delay(
        world.problem === null ? Effect.void : Effect.fail({ message: world.problem }),
        world.tookMs
      )
    )
  )
  const write = Effect.gen(function*() {
    const writing = yield* Effect.fork(health.write)
    yield* TestClock.adjust("1 minute")
    yield* Fiber.join(writing)
  })
  return { health, write, world }
}

describe("the directory's health", () => {
  it.effect("shows why it cannot be written, until it can", () =>
    Effect.gen(function*() {
      const { health, world, write } = setup()
      world.problem = "the disk is full"
      yield* write
      yield* write
      assert.strictEqual(health.now.problem, "the disk is full")
      world.problem = null
      yield* write
      assert.deepStrictEqual(health.now, { problem: null, slowWriteMs: null })
    }))

  it.effect("shows a slow write, until one is fast", () =>
    Effect.gen(function*() {
      const { health, world, write } = setup()
      world.tookMs = 2_001
      yield* write
      assert.strictEqual(health.now.slowWriteMs, 2_001)
      world.tookMs = 2_000
      yield* write
      assert.isNull(health.now.slowWriteMs)
    }))
})
