/** Calls to the relay while the link comes and goes. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, TestClock } from "effect"
import * as LinkCalls from "../../src/actors/signaling/LinkCalls.ts"

const client = (name: string) => ({ name }) as unknown as LinkCalls.Client
const nameOf = (it: LinkCalls.Client) => Effect.succeed((it as unknown as { readonly name: string }).name)

describe("a call to the relay", () => {
  it.effect("waits for a link that is being made", () =>
    Effect.gen(function*() {
      const { awaitUp, call, use } = yield* LinkCalls.make(() => "no link")
      const up = yield* Effect.fork(awaitUp)
      const calling = yield* Effect.fork(call(nameOf))
      yield* TestClock.adjust("3 seconds")
      yield* use(client("new"))
      yield* Fiber.join(up)
      assert.strictEqual(yield* Fiber.join(calling), "new")
    }))

  it.effect("fails with the present problem if none comes", () =>
    Effect.gen(function*() {
      let problem = "first"
      const { call, drop, use } = yield* LinkCalls.make(() => problem)
      yield* use(client("old"))
      yield* drop
      const calling = yield* Effect.fork(Effect.flip(call(nameOf)))
      problem = "the relay refuses"
      yield* TestClock.adjust("4 seconds")
      assert.deepInclude(yield* Fiber.join(calling), { _tag: "SignalingDown", message: "the relay refuses" })
    }))

  it.effect("fails when its link is replaced during the call", () =>
    Effect.gen(function*() {
      const { call, use } = yield* LinkCalls.make(() => "no link")
      yield* use(client("old"))
      const { _tag, message } = yield* Effect.flip(call(() => Effect.interrupt))
      assert.strictEqual(_tag, "SignalingDown")
      assert.match(message, /replaced/)
    }))
})
