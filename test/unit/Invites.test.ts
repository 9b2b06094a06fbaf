/** Invitations of the relay to connectors, which may not answer. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Mailbox, TestClock } from "effect"
import type { Link } from "../../src/actors/hub/Board.ts"
import * as Invites from "../../src/actors/hub/Invites.ts"
import type { SignalingEvent } from "../../src/actors/signaling/RelaySignalingRpcs.ts"
import type { NodeKey } from "../../src/protocol/trust/NodeKey.ts"

const linkOf = (name: string): Link => ({
  member: { key: name as NodeKey, name, shown: name, role: "connector", network: "default" },
  isBrowser: false,
  since: 0,
  events: Effect.runSync(Mailbox.make<SignalingEvent>()),
  cut: () => undefined
})

/** Connectors of these names, whose answers the test gives. */
const setup = (...names: ReadonlyArray<string>) => {
  const answers = new Map(names.map((name) => [name, Effect.runSync(Deferred.make<string, string>())]))
  const invited: Array<string> = []
  const silent: Array<string> = []
  const dial = Invites.first({
    links: names.map(linkOf),
    onSilent: ({ member }) => void silent.push(member.name),
    invite: ({ name }) =>
      Effect.zipRight(Effect.sync(() => void invited.push(name)), Deferred.await(answers.get(name)!))
  })
  return {
    silent,
    invited,
    dial,
    accept: (name: string) => Deferred.succeed(answers.get(name)!, `session with ${name}`),
    decline: (name: string) => Deferred.fail(answers.get(name)!, "it is full")
  }
}

describe("invitations of connectors", () => {
  it.effect("go to the next connector after a second of silence", () =>
    Effect.gen(function*() {
      const { accept, dial, invited } = setup("dead", "alive")
      const dialling = yield* Effect.fork(dial)
      yield* TestClock.adjust("999 millis")
      assert.deepStrictEqual(invited, ["dead"])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(invited, ["dead", "alive"])
      yield* accept("alive")
      assert.strictEqual(yield* Fiber.join(dialling), "session with alive")
    }))

  it.effect("go to the next connector at once after a refusal", () =>
    Effect.gen(function*() {
      const { accept, decline, dial } = setup("full", "alive")
      yield* decline("full")
      yield* accept("alive")
      assert.strictEqual(yield* dial, "session with alive")
    }))

  it.effect("go past any number of connectors that decline", () =>
    Effect.gen(function*() {
      const draining = Array.from({ length: 8 }, (_, index) => `draining ${index}`)
      const { accept, decline, dial, invited } = setup(...draining, "alive")
      for (const name of draining) yield* decline(name)
      yield* accept("alive")
      assert.strictEqual(yield* dial, "session with alive")
      assert.deepStrictEqual(invited, [...draining, "alive"])
    }))

  it.effect("stop after three connectors that do not answer", () =>
    Effect.gen(function*() {
      const { decline, dial, invited } = setup("full", "dead 1", "dead 2", "dead 3", "never asked")
      yield* decline("full")
      const dialling = yield* Effect.fork(Effect.exit(dial))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* Fiber.join(dialling))._tag, "Failure")
      assert.deepStrictEqual(invited, ["full", "dead 1", "dead 2", "dead 3"])
    }))

  it.effect("take a late answer of the first connector", () =>
    Effect.gen(function*() {
      const { accept, dial, invited } = setup("slow", "dead")
      const dialling = yield* Effect.fork(dial)
      yield* TestClock.adjust("2 seconds")
      yield* accept("slow")
      assert.strictEqual(yield* Fiber.join(dialling), "session with slow")
      assert.deepStrictEqual(invited, ["slow", "dead"])
    }))

  it.effect("wait for the only connector longer than a second", () =>
    Effect.gen(function*() {
      const { accept, dial } = setup("slow")
      const dialling = yield* Effect.fork(dial)
      yield* TestClock.adjust("2400 millis")
      yield* accept("slow")
      assert.strictEqual(yield* Fiber.join(dialling), "session with slow")
    }))

  it.effect("end with the last connector's reason", () =>
    Effect.gen(function*() {
      const { decline, dial } = setup("dead", "full")
      const dialling = yield* Effect.fork(Effect.exit(dial))
      yield* decline("full")
      yield* TestClock.adjust("2499 millis")
      assert.strictEqual((yield* Fiber.poll(dialling))._tag, "None")
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(yield* Fiber.join(dialling), Exit.fail("dead: no answer in time"))
    }))

  it.effect("tell which connectors did not answer", () =>
    Effect.gen(function*() {
      const { accept, decline, dial, silent } = setup("full", "dead", "alive")
      yield* decline("full")
      const dialling = yield* Effect.fork(dial)
      yield* TestClock.adjust("1 second")
      yield* accept("alive")
      yield* Fiber.join(dialling)
      assert.deepStrictEqual(silent, ["dead"])
    }))
})
