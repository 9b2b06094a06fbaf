/** Flows of an application whose connector does not answer, with sessions whose answers the test gives. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, TestClock } from "effect"
import * as FlowOpener from "../../src/actors/mux/FlowOpener.ts"
import * as FlowTrace from "../../src/actors/mux/FlowTrace.ts"
import type { Request } from "../../src/actors/mux/Listeners.ts"
import { MuxMetrics } from "../../src/actors/mux/MuxMetrics.ts"
import type { Verdict } from "../../src/protocol/flow/FlowWire.ts"
import type { Answer } from "../../src/session/FlowStart.ts"
import type { FlowSession } from "../../src/transport/plane/FlowSession.ts"

const LOST: Answer = { _tag: "Rejected", verdict: { code: "unreachable", reason: "the session ended" }, lost: true }
const REFUSED: Answer = { _tag: "Rejected", verdict: { code: "refused", reason: "no listener" }, lost: false }
const ACCEPTED: Answer = { _tag: "Accepted", stream: { abort: () => undefined } as never, rest: new Uint8Array(0) }

/** A session that opens no streams. */
const sessionOf = (name: string) => {
  const asked: Array<(answer: Answer) => void> = []
  const given = { up: 0, ended: 0 }
  const session = {
    id: name,
    peer: { peerName: name },
    resourceOf: () => "web",
    openFlow: (_target: unknown, done: (answer: Answer) => void) => {
      asked.push(done)
      return () => void given.up++
    },
    flowEnded: () => void given.ended++
  } as unknown as FlowSession
  return { session, asked, given }
}

/** Opens a flow. `obtained` are the sessions of one `obtain` after another. `other`: there after a second of silence. */
const setup = Effect.fnUntraced(function*(
  obtained: ReadonlyArray<FlowSession>,
  other: FlowSession | null = null,
  leaves: "before" | "unseen" | null = null
) {
  const left = [...obtained]
  const told = { end: () => {}, begun: 0, refused: [] as Array<Verdict>, peers: [] as Array<string | null> }
  const opener = yield* FlowOpener.make({
    obtain: () =>
      Effect.suspend((): Effect.Effect<FlowSession, Verdict> => {
        const session = left.shift()
        return session === undefined
          ? Effect.fail({ code: "unreachable", reason: "no connector is connected" })
          : Effect.succeed(session)
      }),
    elsewhere: (session) =>
      other === null || session === other ? Effect.never : Effect.delay(Effect.succeed(other), "1 second"),
    metrics: new MuxMetrics(),
    traces: yield* FlowTrace.make,
    routeOf: () => null,
    onRefused: (_request, peer) => void told.peers.push(peer)
  })
  const gone = new AbortController()
  const request: Request = {
    kind: "tcp",
    host: "web",
    port: 80,
    forward: null,
    gone: gone.signal,
    begin: (_stream, _rest, watch) => {
      told.end = () => watch.onDone({ sent: 0, received: 0, how: "ended" })
      return ++told.begun > 0 && leaves !== "unseen"
    },
    refuse: (verdict) => void told.refused.push(verdict)
  }
  if (leaves === "before") gone.abort()
  const opening = yield* Effect.fork(opener(request))
  yield* TestClock.adjust("10 millis") // flows are opened at a limited rate
  return { opening, told, leave: () => gone.abort() }
})

describe("a flow that waits for its connector", () => {
  it.scoped("is asked for in another session after a silence", () =>
    Effect.gen(function*() {
      const [office, branch] = [sessionOf("office"), sessionOf("branch")]
      const { opening, told } = yield* setup([office.session], branch.session)
      assert.deepStrictEqual([office.asked.length, branch.asked.length], [1, 0])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([office.given.up, branch.asked.length], [1, 1])
      branch.asked[0]!(ACCEPTED)
      yield* Fiber.join(opening)
      assert.deepStrictEqual([told.begun, told.refused, branch.given.ended], [1, [], 0])
      told.end()
      assert.strictEqual(branch.given.ended, 1)
    }))

  it.scoped("is opened once if the answer comes in time", () =>
    Effect.gen(function*() {
      const [office, branch] = [sessionOf("office"), sessionOf("branch")]
      const { opening, told } = yield* setup([office.session], branch.session)
      office.asked[0]!(ACCEPTED)
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(opening)
      assert.deepStrictEqual([told.begun, office.given.up, branch.asked.length], [1, 0, 0])
    }))

  it.scoped("is asked for again when its session is lost", () =>
    Effect.gen(function*() {
      const [office, branch] = [sessionOf("office"), sessionOf("branch")]
      const { opening, told } = yield* setup([office.session, branch.session])
      office.asked[0]!(LOST)
      yield* TestClock.adjust("1 millis")
      branch.asked[0]!(ACCEPTED)
      yield* Fiber.join(opening)
      assert.deepStrictEqual([told.begun, told.refused], [1, []])
    }))

  it.scoped("is refused when no connector is left", () =>
    Effect.gen(function*() {
      const office = sessionOf("office")
      const { opening, told } = yield* setup([office.session])
      office.asked[0]!(LOST)
      yield* Fiber.join(opening)
      assert.deepStrictEqual(told.refused, [{ code: "unreachable", reason: "no connector is connected" }])
    }))

  it.scoped("is refused after its fourth session is lost", () =>
    Effect.gen(function*() {
      const office = sessionOf("office")
      const { opening, told } = yield* setup(Array.from({ length: 9 }, () => office.session))
      for (let turn = 0; turn < 4; turn++) {
        office.asked[turn]!(LOST)
        yield* TestClock.adjust("1 millis")
      }
      yield* Fiber.join(opening)
      assert.strictEqual(office.asked.length, 4)
      assert.deepStrictEqual(told.refused.map(({ reason }) => reason), ["the session ended"])
    }))

  it.scoped("is reset if the application has just left", () =>
    Effect.gen(function*() {
      const office = sessionOf("office")
      const { opening } = yield* setup([office.session], null, "unseen")
      let resets = 0
      office.asked[0]!({ ...ACCEPTED, stream: { abort: () => void resets++ } as never })
      yield* Fiber.join(opening)
      assert.deepStrictEqual([resets, office.given.ended], [1, 1])
    }))

  it.scoped("is not asked for if the application left before", () =>
    Effect.gen(function*() {
      const office = sessionOf("office")
      const { opening } = yield* setup([office.session], null, "before")
      yield* Fiber.join(opening)
      assert.strictEqual(office.asked.length, 0)
    }))

  it.scoped("is not asked for again after a refusal", () =>
    Effect.gen(function*() {
      const [office, branch] = [sessionOf("office"), sessionOf("branch")]
      const { opening, told } = yield* setup([office.session, branch.session], branch.session)
      office.asked[0]!(REFUSED)
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(opening)
      assert.deepStrictEqual([told.refused.length, told.peers, branch.asked.length], [1, ["office"], 0])
    }))

  it.scoped("is asked for nowhere after the application left", () =>
    Effect.gen(function*() {
      const [office, branch] = [sessionOf("office"), sessionOf("branch")]
      const { leave, opening, told } = yield* setup([office.session], branch.session)
      leave()
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(opening)
      assert.deepStrictEqual([office.given.up, branch.asked.length, told.begun, told.refused], [1, 0, 0, []])
    }))
})
