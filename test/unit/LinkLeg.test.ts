/** The link to the relay: one at a time, and how soon the next one follows. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, TestClock } from "effect"
import type { BindingLoop } from "../../src/actors/relay/BindingLoop.ts"
import * as LinkLeg from "../../src/actors/relay/LinkLeg.ts"

const QUIET: LinkLeg.Situation = { hasSessions: false, lostAt: -Infinity }

/** A binding that does nothing, in this phase. */
const fakeBinding = (phase: string) => {
  const seen = { starts: 0, closed: 0 }
  const binding = {
    phase,
    start: () => Effect.sync(() => void seen.starts++),
    onLinkClosed: () => void seen.closed++
  }
  return { binding: binding as unknown as BindingLoop & { phase: string }, seen }
}

const setup = Effect.gen(function*() {
  const ended = yield* Deferred.make<void>()
  const world = { problem: null as string | null, phase: "bound" }
  const seen = {
    opened: new Array<BindingLoop>(),
    ended: new Array<BindingLoop>(),
    bindings: new Array<ReturnType<typeof fakeBinding>>(),
    closes: 0
  }
  const link = LinkLeg.make({
    connection: {
      open: Effect.suspend(() =>
        world.problem === null ? Effect.succeed("relay-tcp" as const) : Effect.fail({ message: world.problem })
      ),
      ended: Deferred.await(ended),
      close: Effect.sync(() => void seen.closes++)
    },
    newBinding: () => {
      const made = fakeBinding(world.phase)
      seen.bindings.push(made)
      return made.binding
    },
    fork: (effect) => Effect.asVoid(Effect.forkDaemon(effect)),
    onOpened: (of) => Effect.sync(() => void seen.opened.push(of)),
    onEnded: (of) => Effect.sync(() => void seen.ended.push(of))
  })
  const open = (now: number) => Effect.zipRight(link.open(now), TestClock.adjust(0))
  return { ended, link, open, seen, world }
})

describe("the link", () => {
  it.effect("is opened once, and bound when its kind is known", () =>
    Effect.gen(function*() {
      const { link, open, seen } = yield* setup
      yield* open(0)
      yield* open(0)
      const [made, another] = seen.bindings
      assert.isUndefined(another)
      assert.strictEqual(made?.seen.starts, 1)
      assert.isNull(link.bound)
      assert.isTrue(link.isOpened(seen.opened[0]!, "relay-tcp", 0))
      assert.strictEqual(link.bound, "relay-tcp")
    }))

  it.effect("ignores the news of a link that was replaced", () =>
    Effect.gen(function*() {
      const { link, open, seen } = yield* setup
      yield* open(0)
      const old = seen.bindings[0]!.binding
      yield* link.close
      assert.strictEqual(seen.closes, 1)
      yield* open(0)
      assert.isFalse(link.isOpened(old, "relay-h3", 0))
      assert.isFalse(link.isEnded(old, 0))
      assert.strictEqual(link.binding, seen.bindings[1]?.binding)
    }))

  it.effect("is replaced at once if it has served", () =>
    Effect.gen(function*() {
      const { ended, link, open, seen } = yield* setup
      for (const [servedMs, delay] of [[500, Duration.zero], [499, Duration.seconds(3)]] as const) {
        yield* open(0)
        const { binding } = seen.bindings.at(-1)!
        link.isOpened(binding, "relay-tcp", 1_000)
        assert.isTrue(link.isEnded(binding, 1_000 + servedMs))
        assert.deepStrictEqual(yield* link.retryDelay(QUIET, 2_000), delay)
      }
      yield* Deferred.succeed(ended, undefined)
      yield* TestClock.adjust(0)
      assert.strictEqual(seen.ended.length, 2)
      assert.deepStrictEqual(seen.bindings.map((it) => it.seen.closed), [1, 1])
    }))

  it.effect("is tried sooner while sessions have just lost their leg", () =>
    Effect.gen(function*() {
      const { link, open, seen, world } = yield* setup
      world.problem = "refused"
      world.phase = "binding"
      yield* open(0)
      assert.isTrue(link.isEnded(seen.ended[0]!, 0))
      const delay = (hasSessions: boolean, now: number) =>
        Effect.map(link.retryDelay({ hasSessions, lostAt: 0 }, now), Duration.toMillis)
      assert.isBelow(yield* delay(true, 1_000), 600)
      assert.strictEqual(yield* delay(false, 1_000), 3_000)
      assert.strictEqual(yield* delay(true, 3_600_000), 3_000)
    }))
})
