/** The tickets of open sessions, and who presents them. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { generateKeyPairSync } from "node:crypto"
import * as OpenSessions from "../../src/actors/relay/OpenSessions.ts"
import { tagFromHex } from "../../src/protocol/bytes/Frame.ts"
import type { NodeKey } from "../../src/protocol/trust/NodeKey.ts"
import * as Authority from "../../src/services/identity/Authority.ts"
import * as Keys from "../../src/services/identity/Keys.ts"

const CLIENT = "A".repeat(43) as NodeKey
const CONNECTOR = `${"A".repeat(42)}E` as NodeKey

const setup = Effect.gen(function*() {
  const root = Keys.fromPrivateKey(generateKeyPairSync("ed25519").privateKey)
  if (root === null) return yield* Effect.dieMessage("no key")
  const names = yield* Authority.newSession
  const ticket = yield* Authority.make(root).ticket({ ...names, clientKey: CLIENT, connectorKey: CONNECTOR })
  const told = new Array<string | number>()
  const presenter: OpenSessions.Presenter = {
    onTicket: (_, { tag }) => Effect.sync(() => void told.push(tag)),
    onTicketRemoved: (session) => Effect.sync(() => void told.push(session))
  }
  return { names, presenter, ticket, told }
})

describe("the open sessions of a node", () => {
  it.effect("are presented with this node's own tag", () =>
    Effect.gen(function*() {
      const { names, presenter, ticket, told } = yield* setup
      for (const [key, tag] of [[CLIENT, names.clientTag], [CONNECTOR, names.connectorTag]] as const) {
        const sessions = OpenSessions.make(key)
        yield* sessions.open(names.session, ticket, [presenter], 0)
        assert.deepStrictEqual(told.splice(0), [tagFromHex(tag)])
        yield* sessions.close(names.session, [presenter])
        assert.deepStrictEqual(told.splice(0), [names.session])
        assert.strictEqual(sessions.tickets.size, 0)
      }
    }))

  it.effect("do not open with a ticket that cannot be read", () =>
    Effect.gen(function*() {
      const { names, presenter, ticket, told } = yield* setup
      const sessions = OpenSessions.make(CLIENT)
      yield* sessions.open(names.session, { ...ticket, payload: ticket.payload.subarray(1) }, [presenter], 0)
      assert.strictEqual(sessions.tickets.size, 0)
      assert.deepStrictEqual(told, [])
    }))

  it.effect("outlive the first data plane's start, but no later one", () =>
    Effect.gen(function*() {
      const { names, presenter, ticket, told } = yield* setup
      const sessions = OpenSessions.make(CLIENT)
      yield* sessions.open(names.session, ticket, [], 0)
      yield* sessions.onMuxStarted([presenter])
      assert.strictEqual(sessions.tickets.size, 1)
      yield* sessions.onMuxStarted([presenter])
      assert.strictEqual(sessions.tickets.size, 0)
      assert.deepStrictEqual(told, [names.session])
    }))
})
