/** What a subscriber of the relay's events begins with. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Option, Stream } from "effect"
import * as EventFeed from "../../src/actors/signaling/EventFeed.ts"
import type { SignalingEvent } from "../../src/actors/signaling/RelaySignalingRpcs.ts"
import type { TimeLearned } from "../../src/actors/signaling/TimeKeeper.ts"

const SESSION = "0123456789abcdef0123456789abcdef"
const DOCUMENT = { payload: new Uint8Array(1), signature: new Uint8Array(64) }
const SNAPSHOT: SignalingEvent = {
  _tag: "Snapshot",
  version: 1,
  serverTime: 0,
  relay: { host: "192.0.2.1", httpsPort: 443, udpPort: 3478 },
  relays: [],
  credential: DOCUMENT,
  reports: true
}
const INVITE: SignalingEvent = { _tag: "Invite", session: SESSION, grant: DOCUMENT, ticket: DOCUMENT }

const setup = Effect.gen(function*() {
  const world = { now: 0, learned: null as TimeLearned | null }
  const feed = yield* EventFeed.make({ hostMs: () => world.now, learned: () => world.learned })
  const tagsOf = <A extends { readonly _tag: string }>(stream: Stream.Stream<A>, count: number) =>
    Effect.gen(function*() {
      const reading = yield* Effect.fork(Stream.runCollect(Stream.take(stream, count)))
      for (let turn = 0; turn < 10; turn++) yield* Effect.yieldNow()
      yield* feed.publish({ _tag: "BindingsLost" })
      return [...yield* Fiber.join(reading)].map(({ _tag }) => _tag)
    })
  return { feed, tagsOf, world }
})

describe("the events of the relay", () => {
  it.effect("begin with the time, the snapshot and open invitations", () =>
    Effect.gen(function*() {
      const { feed, tagsOf, world } = yield* setup
      assert.deepStrictEqual(yield* tagsOf(feed.events, 2), ["ReachChanged", "BindingsLost"])
      world.learned = { _tag: "TimeLearned", offsetMs: 5 }
      yield* feed.onEvent(SNAPSHOT)
      yield* feed.onEvent(INVITE)
      const known = ["ReachChanged", "TimeLearned", "Snapshot"]
      assert.deepStrictEqual(yield* tagsOf(feed.events, 5), [...known, "Invite", "BindingsLost"])
      yield* feed.onAnswered(SESSION)
      assert.deepStrictEqual(yield* tagsOf(feed.events, 4), [...known, "BindingsLost"])
      yield* feed.onEvent(INVITE)
      world.now += 2_500
      assert.deepStrictEqual(yield* tagsOf(feed.events, 4), [...known, "BindingsLost"])
    }))

  it.effect("say whether the directory is reached, and since when", () =>
    Effect.gen(function*() {
      const { feed, world } = yield* setup
      const first = Effect.map(Stream.runHead(feed.events), Option.getOrThrow)
      assert.deepStrictEqual(yield* first, { _tag: "ReachChanged", reached: false, sinceMs: 0 })
      world.now = 7
      yield* feed.onReach(true)
      assert.deepStrictEqual(yield* first, { _tag: "ReachChanged", reached: true, sinceMs: 7 })
      world.now = 9
      yield* feed.onReach(true)
      assert.deepStrictEqual(yield* first, { _tag: "ReachChanged", reached: true, sinceMs: 7 })
      yield* feed.onReach(false)
      assert.deepStrictEqual(yield* first, { _tag: "ReachChanged", reached: false, sinceMs: 9 })
    }))

  it.effect("say that a report is wanted, and ask questions", () =>
    Effect.gen(function*() {
      const { feed } = yield* setup
      yield* feed.onEvent(SNAPSHOT)
      const reading = yield* Effect.fork(Stream.runCollect(Stream.take(feed.wanted, 2)))
      for (let turn = 0; turn < 10; turn++) yield* Effect.yieldNow()
      yield* feed.onEvent({ ...SNAPSHOT, reports: false })
      yield* feed.onEvent({ _tag: "Examine", question: "q" })
      assert.deepStrictEqual([...yield* Fiber.join(reading)].map(({ _tag }) => _tag), ["ReportWanted", "Examine"])
    }))
})
