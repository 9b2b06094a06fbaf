/** The documents with which a session begins, at a node's end. The test's clock stands at 0. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Either } from "effect"
import { generateKeyPairSync } from "node:crypto"
import * as SessionDocuments from "../../src/actors/mux/sessions/SessionDocuments.ts"
import { type NodeKey } from "../../src/protocol/trust/NodeKey.ts"
import * as Authority from "../../src/services/identity/Authority.ts"
import * as Keys from "../../src/services/identity/Keys.ts"

const newKey = () => {
  const key = Keys.fromPrivateKey(generateKeyPairSync("ed25519").privateKey)
  if (key === null) throw new Error("no key")
  return key
}
const [CLIENT, CONNECTOR, OTHER] = [newKey().publicKey, newKey().publicKey, newKey().publicKey]
const authority = Authority.make(newKey())

const at = (role: "client" | "connector", key: NodeKey) =>
  SessionDocuments.make({ authorityKey: authority.key, role, key, nowSeconds: () => 0 })

const issue = (forGrant: NodeKey = CONNECTOR, by: typeof authority = authority) =>
  Effect.gen(function*() {
    const names = yield* Authority.newSession
    const keys = { clientKey: CLIENT, connectorKey: forGrant }
    const grant = yield* by.grant({ ...keys, clientName: "laptop", connectorName: "office", resources: [] })
    const ticket = yield* authority.ticket({ ...names, clientKey: CLIENT, connectorKey: CONNECTOR })
    return { grant: grant.signed, ticket, outage: yield* by.outage(grant.id) }
  })
const reasonOf = (opened: Either.Either<unknown, string>) => Either.isLeft(opened) ? opened.left : null

describe("a session's documents", () => {
  it.effect("are taken at both ends", () =>
    Effect.gen(function*() {
      const issued = yield* issue()
      const opened = yield* at("client", CLIENT).open(issued)
      assert.strictEqual(opened.outage?.document.grant, opened.grant.id)
      assert.isTrue(Either.isRight(at("connector", CONNECTOR).open(issued)))
    }))

  it.effect("are refused where another node is meant", () =>
    Effect.gen(function*() {
      const issued = yield* issue()
      assert.strictEqual(reasonOf(at("connector", OTHER).open(issued)), "the grant is for another node")
      assert.strictEqual(reasonOf(at("client", CONNECTOR).open(issued)), "the grant is for another node")
    }))

  it.effect("must be for the same two nodes", () =>
    Effect.gen(function*() {
      const issued = yield* issue(OTHER)
      assert.strictEqual(reasonOf(at("client", CLIENT).open(issued)), "grant and ticket are for different nodes")
    }))

  it.effect("must be signed by the authority", () =>
    Effect.gen(function*() {
      const { grant, outage, ticket } = yield* issue(CONNECTOR, Authority.make(newKey()))
      assert.isNotNull(reasonOf(at("client", CLIENT).open({ grant, ticket })))
      const { grant: good } = yield* issue()
      const opened = yield* at("client", CLIENT).open({ grant: good, ticket, outage })
      assert.isNull(opened.outage)
    }))
})
