/** Dials that flows of a node or a page share. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import type { Target } from "../../src/protocol/flow/FlowWire.ts"
import * as SharedDials from "../../src/session/core/SharedDials.ts"
import { someTurns } from "./support/Turns.ts"

const WEB: Target = { kind: "tcp", host: "web", port: 80 }

/** A dial that ends when the test says so, and the sessions that exist. */
const setup = Effect.gen(function*() {
  const answer = yield* Deferred.make<string, string>()
  const seen = { dials: 0, sessions: new Map<string, string>() }
  const obtain = SharedDials.make<string, string>({
    find: ({ host }) => seen.sessions.get(host),
    dial: () =>
      Effect.suspend(() => {
        seen.dials++
        return Deferred.await(answer)
      }),
    broken: () => "broken"
  })
  return { answer, obtain, seen }
})

describe("shared dials", () => {
  it.effect("are one for callers that want the same target", () =>
    Effect.gen(function*() {
      const { answer, obtain, seen } = yield* setup
      const first = yield* Effect.fork(obtain(WEB))
      const second = yield* Effect.fork(obtain({ ...WEB, host: "WEB" }))
      const other = yield* Effect.fork(obtain({ ...WEB, port: 81 }))
      yield* someTurns
      yield* Deferred.succeed(answer, "session")
      assert.deepStrictEqual(yield* Fiber.join(Fiber.all([first, second, other])), ["session", "session", "session"])
      assert.strictEqual(seen.dials, 2)
    }))

  it.effect("do not begin where a session carries the target", () =>
    Effect.gen(function*() {
      const { obtain, seen } = yield* setup
      seen.sessions.set("web", "open")
      assert.strictEqual(yield* obtain(WEB), "open")
      assert.strictEqual(seen.dials, 0)
    }))

  it.effect("go on when their first caller ends", () =>
    Effect.gen(function*() {
      const { answer, obtain, seen } = yield* setup
      const first = yield* Effect.fork(obtain(WEB))
      const second = yield* Effect.fork(obtain(WEB))
      yield* someTurns
      yield* Fiber.interrupt(first)
      yield* Deferred.succeed(answer, "session")
      assert.strictEqual(yield* Fiber.join(second), "session")
      assert.strictEqual(seen.dials, 1)
    }))

  it.effect("fail for all callers, and the next caller dials again", () =>
    Effect.gen(function*() {
      const { answer, obtain, seen } = yield* setup
      const callers = yield* Effect.forEach([1, 2], () => Effect.fork(Effect.flip(obtain(WEB))))
      yield* someTurns
      yield* Deferred.fail(answer, "denied")
      assert.deepStrictEqual(yield* Fiber.join(Fiber.all(callers)), ["denied", "denied"])
      assert.strictEqual(yield* Effect.flip(obtain(WEB)), "denied")
      assert.strictEqual(seen.dials, 2)
    }))

  it.effect("turn a defect into an error", () =>
    Effect.gen(function*() {
      const { answer, obtain } = yield* setup
      yield* Deferred.die(answer, new Error("a bug"))
      assert.strictEqual(yield* Effect.flip(obtain(WEB)), "broken")
    }))
})
