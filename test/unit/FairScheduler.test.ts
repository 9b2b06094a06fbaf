/** Fibers share their thread with timers and sockets. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, type Scheduler } from "effect"
import { FairScheduler, SLICE_MS } from "../../src/actors/runtime/thread/FairScheduler.ts"

/** A clock that each task moves on by a millisecond, so that nothing depends on how quick this host is. */
const withClock = () => {
  const clock = { ms: 0 }
  return { clock, scheduler: new FairScheduler(() => clock.ms) }
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

/** Fibers that wake each other without end, as actors do that have much to do. */
const busy = (clock: { ms: number }, ran: { count: number }) =>
  Effect.forever(Effect.zipRight(
    Effect.sync(() => {
      clock.ms++
      ran.count++
    }),
    Effect.yieldNow()
  ))

describe("FairScheduler", () => {
  it("gives the event loop a turn after each slice", async () => {
    const { clock, scheduler } = withClock()
    const ran = { count: 0 }
    const fibers = Array.from({ length: 20 }, () => Effect.runFork(busy(clock, ran), { scheduler }))
    await turn()
    for (let turns = 0; turns < 50; turns++) {
      const before = ran.count
      await turn()
      assert.isAbove(ran.count, before)
      assert.isAtMost(ran.count - before, 2 * SLICE_MS)
    }
    await Effect.runPromise(Fiber.interruptAll(fibers))
  })

  it("runs all tasks by priority, then in order", async () => {
    const { clock, scheduler } = withClock()
    const order: Array<string> = []
    const schedule = (name: string, priority: number) =>
      scheduler.scheduleTask(() => {
        clock.ms++
        order.push(name)
        if (name === "a0") schedule("late", 0)
      }, priority)
    for (let n = 0; n < 8; n++) {
      schedule(`b${n}`, 1)
      schedule(`a${n}`, 0)
    }
    while (order.length < 17) await turn()
    const of = (letter: string) => Array.from({ length: 8 }, (_, n) => `${letter}${n}`)
    assert.deepStrictEqual(order, [...of("a"), ...of("b"), "late"])
  })

  it("goes on after it was idle", async () => {
    const scheduler: Scheduler.Scheduler = new FairScheduler()
    for (let n = 0; n < 3; n++) {
      const fiber = Effect.runFork(Effect.as(Effect.yieldNow(), n), { scheduler })
      assert.strictEqual(await Effect.runPromise(Fiber.join(fiber)), n)
      await turn()
    }
  })
})
