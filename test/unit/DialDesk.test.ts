/** How the hub arranges a session: which connectors are invited, and what the client hears. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, TestClock } from "effect"
import * as Board from "../../src/actors/hub/Board.ts"
import * as DialDesk from "../../src/actors/hub/desks/DialDesk.ts"
import { Denied } from "../../src/services/directory/Directory.ts"
import * as HubBoard from "./support/HubBoard.ts"
import * as VirtualHub from "./support/VirtualHub.ts"

const CLIENT = VirtualHub.newKey().publicKey
const DOCUMENT = { payload: new Uint8Array(1), signature: new Uint8Array(64) }
const TARGET = { host: "wiki.internal", port: 80 }

/** A desk of a directory that permits everything unless `world.denied`. */
const setup = () => {
  const board = Board.make()
  const world = { denied: false, mayDial: true }
  const codes = new Array<string>()
  const authorize: DialDesk.Options["directory"]["authorize"] = () =>
    Effect.suspend(() =>
      world.denied
        ? Effect.fail(new Denied({ message: "no rule permits it" }))
        : Effect.succeed({ network: "office", resource: { name: "wiki" } } as never)
    )
  const desk = DialDesk.make({
    board,
    directory: { authorize },
    signed: { forSession: () => Effect.succeed({ grant: DOCUMENT, outage: DOCUMENT, ticket: DOCUMENT, empty: false }) },
    rates: { mayDial: () => world.mayDial },
    metrics: { onDial: (code) => void codes.push(code) }
  })
  return { board, codes, desk, dial: desk.dial(CLIENT, TARGET as never, []), world }
}

describe("a dial", () => {
  it.scoped("is answered when the connector is ready", () =>
    Effect.gen(function*() {
      const { board, codes, desk, dial } = setup()
      const connector = VirtualHub.newKey().publicKey
      const { heard } = yield* HubBoard.connect(board, connector, "connector")
      yield* HubBoard.connect(board, CLIENT, "client", true)
      const asking = yield* Effect.fork(dial)
      yield* TestClock.adjust(0)
      const [event] = yield* heard
      if (event?._tag !== "Invite") return assert.fail("no invitation")
      assert.deepStrictEqual([event.clientName, event.over], ["client", "webrtc"])
      // Another node's answer to this invitation is ignored.
      yield* desk.ready(event.session, CLIENT)
      yield* TestClock.adjust("1 second")
      assert.isNull(asking.unsafePoll())
      yield* desk.ready(event.session, connector)
      const dialed = yield* Fiber.join(asking)
      assert.deepStrictEqual([dialed.session, dialed.connectorKey], [event.session, connector])
      assert.deepStrictEqual(codes, ["accepted"])
    }))

  it.scoped("goes to another connector while one is silent", () =>
    Effect.gen(function*() {
      const { board, codes, desk, dial } = setup()
      const connectors = yield* Effect.forEach([0, 1], () => {
        const { publicKey } = VirtualHub.newKey()
        return Effect.map(HubBoard.connect(board, publicKey, "connector"), (it) => ({ ...it, key: publicKey }))
      })
      /** Connectors that have been invited since the last look, with the session's name. */
      const invited = Effect.map(
        Effect.forEach(connectors, ({ heard, key }) => Effect.map(heard, (events) => ({ key, events }))),
        (all) => all.flatMap(({ events, key }) => events.flatMap((it) => it._tag === "Invite" ? [{ ...it, key }] : []))
      )
      const first = yield* Effect.fork(dial)
      yield* TestClock.adjust(0)
      const [silent] = yield* invited
      yield* TestClock.adjust("1 second")
      const [other] = yield* invited
      assert.notStrictEqual(other!.key, silent!.key)
      yield* desk.ready(other!.session, other!.key)
      assert.strictEqual((yield* Fiber.join(first)).connectorKey, other!.key)
      // The silent connector is invited last from now on, until it answers.
      for (let again = 0; again < 8; again++) {
        const dialing = yield* Effect.fork(Effect.flip(dial))
        yield* TestClock.adjust(0)
        const [next] = yield* invited
        assert.strictEqual(next!.key, other!.key)
        yield* desk.decline(next!.session, next!.key, "it is full")
        yield* TestClock.adjust(0)
        const [last] = yield* invited
        assert.strictEqual(last!.key, silent!.key)
        yield* TestClock.adjust("2500 millis")
        assert.match((yield* Fiber.join(dialing)).message, /connector: no answer in time/)
      }
      assert.deepStrictEqual(codes, ["accepted", ...Array.from({ length: 8 }, () => "connector_declined")])
    }))

  it.scoped("that is declined makes the relay forget no session", () =>
    Effect.gen(function*() {
      const { board, desk, dial } = setup()
      const connector = VirtualHub.newKey().publicKey
      const { heard } = yield* HubBoard.connect(board, connector, "connector")
      const invitation = Effect.gen(function*() {
        yield* TestClock.adjust(0)
        const [event] = yield* heard
        return event?._tag === "Invite" ? event.session : yield* Effect.dieMessage("no invitation")
      })
      const first = yield* Effect.fork(dial)
      const live = yield* invitation
      yield* desk.ready(live, connector)
      yield* Fiber.join(first)
      for (let again = 0; again < Board.MAX_SESSIONS_PER_NODE; again++) {
        const dialling = yield* Effect.fork(Effect.flip(dial))
        yield* desk.decline(yield* invitation, connector, "it drains")
        yield* Fiber.join(dialling)
      }
      assert.deepStrictEqual([...board.sessions.keys()], [live])
    }))

  it.scoped("goes to the connector with fewer sessions", () =>
    Effect.gen(function*() {
      const { board, desk, dial } = setup()
      const connectors = yield* Effect.forEach([0, 1], () => {
        const { publicKey } = VirtualHub.newKey()
        return Effect.map(HubBoard.connect(board, publicKey, "connector"), (it) => ({ ...it, key: publicKey }))
      })
      for (let pair = 1; pair <= 8; pair++) {
        for (const _ of connectors) {
          const dialling = yield* Effect.fork(dial)
          yield* TestClock.adjust(0)
          for (const { heard, key } of connectors) {
            for (const event of yield* heard) if (event._tag === "Invite") yield* desk.ready(event.session, key)
          }
          yield* Fiber.join(dialling)
        }
        assert.deepStrictEqual(connectors.map(({ key }) => board.load(key)), [pair, pair])
      }
    }))

  it.scoped("is refused with the reason", () =>
    Effect.gen(function*() {
      const { board, codes, dial, world } = setup()
      const refused = Effect.map(Effect.flip(dial), ({ code }) => code)
      assert.strictEqual(yield* refused, "no_connector")
      yield* HubBoard.connect(board, VirtualHub.newKey().publicKey, "connector")
      world.mayDial = false
      assert.strictEqual(yield* refused, "overloaded")
      world.denied = true
      assert.strictEqual(yield* refused, "denied")
      assert.deepStrictEqual(codes, ["no_connector", "overloaded", "denied"])
    }))

  it.scoped("does not invite connectors that the client excludes", () =>
    Effect.gen(function*() {
      const { board, desk } = setup()
      const excluded = VirtualHub.newKey().publicKey
      const { heard } = yield* HubBoard.connect(board, excluded, "connector")
      const { code } = yield* Effect.flip(desk.dial(CLIENT, TARGET as never, [excluded]))
      assert.strictEqual(code, "no_connector")
      assert.deepStrictEqual(yield* heard, [])
    }))
})
