/** What the hub answers the ends of a session that it has arranged. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Option, TestClock } from "effect"
import * as Board from "../../src/actors/hub/Board.ts"
import * as SessionDesk from "../../src/actors/hub/desks/SessionDesk.ts"
import { NORMAL } from "../../src/protocol/trust/Lifetimes.ts"
import * as Authority from "../../src/services/identity/Authority.ts"
import * as HubBoard from "./support/HubBoard.ts"
import * as VirtualHub from "./support/VirtualHub.ts"

const CLIENT = VirtualHub.newKey().publicKey
const CONNECTOR = VirtualHub.newKey().publicKey
const STRANGER = VirtualHub.newKey().publicKey
const BOX = new Uint8Array([1, 2, 3])

/** A desk, and a client and a connector with a ticket for their session. */
const setup = Effect.gen(function*() {
  yield* TestClock.setTime(VirtualHub.START)
  const board = Board.make()
  const authority = Authority.make(VirtualHub.newKey())
  const world = { isEnrolled: true, permitsNothing: false, mayForward: true }
  const passed = new Array<boolean>()
  const names = yield* Authority.newSession
  const ticket = yield* authority.ticket({ ...names, clientKey: CLIENT, connectorKey: CONNECTOR })
  const desk = yield* SessionDesk.make({
    board,
    authorityKey: authority.key,
    directory: {
      findNode: (key) =>
        Effect.succeed(world.isEnrolled ? Option.some({ key, network: "office" } as never) : Option.none())
    },
    signed: {
      forSession: () => Effect.succeed({ grant: ticket, outage: ticket, ticket, empty: world.permitsNothing })
    },
    rates: { mayForward: () => world.mayForward },
    metrics: { onMessage: (passes) => void passed.push(passes) }
  })
  const client = yield* HubBoard.connect(board, CLIENT, "client")
  const connector = yield* HubBoard.connect(board, CONNECTOR, "connector")
  const { session } = names
  const accept = Effect.flatMap(
    Effect.suspend(() => Effect.fromNullable(board.sessions.get(session))),
    ({ answer }) => Deferred.succeed(answer, undefined)
  )
  return { accept, board, client, connector, desk, passed, session, ticket, world }
})

describe("a session at the hub", () => {
  it.scoped("is renewed by its ticket, though the hub forgot it", () =>
    Effect.gen(function*() {
      const { board, connector, desk, session, ticket } = yield* setup
      yield* desk.renew(CLIENT, ticket)
      assert.strictEqual(board.sessionOf(session, CLIENT)?.connector, CONNECTOR)
      assert.deepStrictEqual(yield* connector.heard, [
        { _tag: "TicketRenewed", session, ticket },
        { _tag: "GrantReplaced", session, grant: ticket, outage: ticket }
      ])
    }))

  it.scoped("is renewed by its connector, even if nothing is permitted", () =>
    Effect.gen(function*() {
      const { client, connector, desk, ticket, world } = yield* setup
      world.permitsNothing = true
      assert.deepStrictEqual(yield* desk.renew(CONNECTOR, ticket), { grant: ticket, outage: ticket, ticket })
      assert.deepStrictEqual((yield* client.heard).map(({ _tag }) => _tag), ["TicketRenewed", "GrantReplaced"])
      assert.deepStrictEqual(yield* connector.heard, [])
    }))

  it.scoped("is renewed by a ticket that expired in an outage", () =>
    Effect.gen(function*() {
      const { desk, ticket } = yield* setup
      yield* TestClock.adjust(Duration.seconds(NORMAL.ticket + NORMAL.outage))
      yield* desk.renew(CLIENT, ticket)
      yield* TestClock.adjust("20 seconds")
      assert.match((yield* Effect.flip(desk.renew(CLIENT, ticket))).message, /has expired/)
    }))

  it.scoped("is not renewed without a permission", () =>
    Effect.gen(function*() {
      const { desk, ticket, world } = yield* setup
      const refusal = (node = CLIENT) =>
        Effect.match(desk.renew(node, ticket), { onFailure: ({ message }) => message, onSuccess: () => "renewed" })
      assert.match(yield* refusal(STRANGER), /another node's/)
      world.permitsNothing = true
      assert.match(yield* refusal(), /nothing is permitted/)
      world.isEnrolled = false
      assert.match(yield* refusal(), /removed/)
      yield* TestClock.adjust("8 days")
      assert.match(yield* refusal(), /has expired/)
    }))

  it.scoped("has its sealed messages passed to the other end", () =>
    Effect.gen(function*() {
      const { client, connector, desk, passed, session, ticket, world } = yield* setup
      yield* desk.renew(CLIENT, ticket)
      yield* connector.heard
      assert.strictEqual((yield* Effect.flip(desk.forward(STRANGER, session, BOX)))._tag, "UnknownSession")
      yield* desk.forward(CLIENT, session, BOX)
      yield* desk.forward(CONNECTOR, session, BOX)
      world.mayForward = false
      yield* desk.forward(CLIENT, session, BOX)
      assert.deepStrictEqual((yield* connector.heard).map(({ _tag }) => _tag), ["Sealed"])
      assert.deepStrictEqual((yield* client.heard).map(({ _tag }) => _tag), ["Sealed"])
      assert.deepStrictEqual(passed, [true, true, false])
    }))

  it.scoped("is reported lost unless it is held or not accepted", () =>
    Effect.gen(function*() {
      const { accept, board, client, desk, session, ticket } = yield* setup
      yield* desk.renew(CLIENT, ticket)
      yield* desk.sessionsLost(CONNECTOR, [])
      assert.deepStrictEqual(yield* client.heard, [])
      yield* accept
      yield* desk.sessionsLost(CONNECTOR, [session])
      yield* desk.sessionsLost(STRANGER, [])
      yield* desk.browsersLost(CONNECTOR)
      assert.deepStrictEqual(yield* client.heard, [])
      assert.strictEqual(board.load(CONNECTOR), 1)
      yield* desk.sessionsLost(CONNECTOR, [])
      assert.deepStrictEqual(yield* client.heard, [{ _tag: "SessionLost", session }])
      assert.strictEqual(board.load(CONNECTOR), 0)
    }))

  it.scoped("has a connector that may still come back at first", () =>
    Effect.gen(function*() {
      const { board, desk, ticket } = yield* setup
      assert.strictEqual(yield* desk.presence(CLIENT, ticket), "connected")
      board.links.delete(CONNECTOR)
      assert.strictEqual(yield* desk.presence(CLIENT, ticket), "unknown")
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(yield* desk.presence(CLIENT, ticket), "absent")
    }))
})
