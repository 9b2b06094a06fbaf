import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Either, Exit, Fiber, Option, TestClock } from "effect"
import * as Inbox from "../../src/actors/runtime/actor/Inbox.ts"
import { layerTest, Self } from "../../src/actors/runtime/actor/Self.ts"
import * as Placement from "../../src/actors/runtime/supervisor/Placement.ts"
import * as Restart from "../../src/actors/runtime/supervisor/Restart.ts"
import * as StopOrder from "../../src/actors/runtime/supervisor/StopOrder.ts"

describe("Restart", () => {
  const policy: Restart.Policy = { ...Restart.DEFAULT, max: "2 seconds" }
  /** Delays of the incarnations that follow one another, each of which was up for `upMs` and then died. */
  const delays = (policy: Restart.Policy, { deaths = 10, upMs = 0, wasUp = true }) => {
    const seen: Array<number | "GiveUp"> = []
    let row = Restart.NO_ROW
    let nowMs = 5_000
    for (let death = 0; death < deaths; death++) {
      nowMs += upMs
      const next = Restart.next(policy, row, { nowMs, upMs, wasUp, jitter: 0.5 })
      if (next._tag === "GiveUp") return [...seen, next._tag]
      seen.push(next.delayMs)
      nowMs += next.delayMs
      row = next.row
    }
    return seen
  }
  it("doubles from 25 ms to the longest delay", () => {
    assert.deepStrictEqual(delays(policy, { deaths: 9 }), [25, 50, 100, 200, 400, 800, 1600, 2000, 2000])
  })
  it("gives up after the limit what was never up", () => {
    assert.deepStrictEqual(delays(Restart.DEFAULT, { wasUp: false }), [25, 50, 100, 200, 400, "GiveUp"])
  })
  it("gives up on a running thread only after its patience", () => {
    const seen = delays(Restart.DEFAULT, { deaths: 100 })
    assert.strictEqual(seen.at(-1), "GiveUp")
    const waited = seen.slice(0, -1).reduce<number>((sum, delay) => sum + Number(delay), 0)
    assert.isAtLeast(waited, 120_000)
    assert.isAtMost(waited, 135_000)
    assert.isAtMost(seen.length, 20)
  })
  it("begins a new row after a minute of health", () => {
    assert.deepStrictEqual(delays(policy, { upMs: 60_000 }), Array.from({ length: 10 }, () => 25))
    assert.include(delays(policy, { upMs: 59_999 }), "GiveUp")
  })
  it("stays within a fifth of the delay", () => {
    const at = (jitter: number) => {
      const next = Restart.next(policy, Restart.NO_ROW, { nowMs: 0, upMs: 0, wasUp: false, jitter })
      return next._tag === "Restart" ? next.delayMs : -1
    }
    assert.approximately(at(0), 20, 1e-9)
    assert.approximately(at(1), 30, 1e-9)
  })
})

describe("StopOrder", () => {
  it("puts callers before those they use", () => {
    const order = StopOrder.callersFirst([
      { name: "a", uses: [] },
      { name: "b", uses: ["a", "c"] },
      { name: "c", uses: ["a"] }
    ])
    assert.deepStrictEqual(order, ["b", "c", "a"])
  })
  it("breaks a cycle at the one listed first", () => {
    const order = StopOrder.callersFirst([{ name: "a", uses: ["b"] }, { name: "b", uses: ["a"] }])
    assert.deepStrictEqual(order, ["a", "b"])
  })
})

describe("Placement", () => {
  const actors = [{ name: "a", uses: ["b"] }, { name: "b", uses: [] }]
  const problem = (placement: Placement.Placement, of = actors) =>
    Either.match(Placement.resolve(placement, of), { onLeft: ({ message }) => message, onRight: () => "" })
  it("gives each actor a thread of its own when isolated", () => {
    const threads = Either.getOrThrow(Placement.resolve("isolated", actors))
    assert.deepStrictEqual([...threads], [["a", ["a"]], ["b", ["b"]]])
  })
  it("tells what is wrong", () => {
    assert.include(problem({ x: ["a"] }), "actor b is placed on 0 threads")
    assert.include(problem({ x: ["a", "b"], y: ["b"] }), "actor b is placed on 2 threads")
    assert.include(problem({ x: ["a", "b", "c"] }), "no actor c")
    assert.include(problem("isolated", [{ name: "a", uses: ["b"] }]), "a uses b")
    assert.strictEqual(problem({ x: ["a"], y: ["b"] }), "")
  })
})

type Message =
  | { readonly _tag: "Add"; readonly n: number }
  | { readonly _tag: "Get"; readonly reply: Inbox.Reply<ReadonlyArray<number>> }
  | { readonly _tag: "Never"; readonly reply: Inbox.Reply<number> }
  | { readonly _tag: "Block"; readonly until: Deferred.Deferred<void> }
  | { readonly _tag: "Die" }

const makeInbox = (capacity = 4) => {
  const seen: Array<number> = []
  return Inbox.make<Message>({
    capacity,
    handle: (message) => {
      switch (message._tag) {
        case "Add":
          return Effect.sync(() => void seen.push(message.n))
        case "Get":
          return Deferred.succeed(message.reply, [...seen])
        case "Never":
          return Effect.void
        case "Block":
          return Deferred.await(message.until)
        case "Die":
          return Effect.dieMessage("boom")
      }
    }
  })
}
const get = (inbox: Inbox.Inbox<Message>) => inbox.ask<ReadonlyArray<number>>((reply) => ({ _tag: "Get", reply }))

describe("Inbox", () => {
  it.scoped("makes senders wait while it is full, and shows depth", () =>
    Effect.gen(function*() {
      const inbox = yield* makeInbox(2)
      const until = yield* Deferred.make<void>()
      yield* inbox.post({ _tag: "Block", until })
      yield* Effect.yieldNow()
      for (const n of [1, 2]) yield* inbox.post({ _tag: "Add", n })
      assert.strictEqual(inbox.depth(), 2)
      assert.isFalse(inbox.unsafePost({ _tag: "Add", n: 9 }))
      const waiting = yield* Effect.fork(inbox.post({ _tag: "Add", n: 3 }))
      yield* Effect.yieldNow()
      assert.isTrue(Option.isNone(yield* Fiber.poll(waiting)))
      yield* Deferred.succeed(until, undefined)
      assert.isTrue(yield* Fiber.join(waiting))
      assert.deepStrictEqual([...yield* get(inbox)], [1, 2, 3])
    }).pipe(Effect.provide(layerTest())))

  it.scoped("posts a timer's message once, and replaces timers by name", () =>
    Effect.gen(function*() {
      const inbox = yield* makeInbox()
      yield* inbox.setTimer("a", "1 second", { _tag: "Add", n: 1 })
      yield* inbox.setTimer("a", "2 seconds", { _tag: "Add", n: 2 })
      yield* inbox.setTimer("b", "1 second", { _tag: "Add", n: 3 })
      yield* inbox.clearTimer("b")
      yield* TestClock.adjust("1999 millis")
      assert.deepStrictEqual([...yield* get(inbox)], [])
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual([...yield* get(inbox)], [2])
    }).pipe(Effect.provide(layerTest())))

  it.scoped("ends an ask at its deadline, when one is given", () =>
    Effect.gen(function*() {
      const inbox = yield* makeInbox()
      const asking = yield* Effect.fork(inbox.askWithin<number>("1 second", (reply) => ({ _tag: "Never", reply })))
      yield* TestClock.adjust("1 second")
      assert.isTrue(Exit.isFailure(yield* Fiber.await(asking)))
    }).pipe(Effect.provide(layerTest())))

  it.scoped("kills its actor by a defect, and strands no asker", () =>
    Effect.gen(function*() {
      const died = yield* Deferred.make<Cause.Cause<unknown>>()
      const self = Self.of({
        name: "test",
        incarnation: 1,
        die: (cause) => Deferred.succeed(died, cause),
        watchQueue: () => Effect.void,
        exposeMetrics: () => Effect.void
      })
      const inbox = yield* Effect.provideService(makeInbox(), Self, self)
      const asking = yield* Effect.fork(inbox.ask<number>((reply) => ({ _tag: "Never", reply })))
      yield* Effect.yieldNow()
      yield* inbox.post({ _tag: "Die" })
      assert.include(Cause.pretty(yield* Deferred.await(died)), "boom")
      const exit = yield* Fiber.await(asking)
      assert.isTrue(Exit.isFailure(exit) && Cause.isDie(exit.cause))
      assert.isFalse(yield* inbox.post({ _tag: "Add", n: 1 }))
      assert.isTrue(Exit.isFailure(yield* Effect.exit(get(inbox))))
    }))
})
