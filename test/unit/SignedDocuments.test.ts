import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Duration, Effect, Option, TestClock } from "effect"
import { generateKeyPairSync } from "node:crypto"
import * as Board from "../../src/actors/hub/Board.ts"
import * as SignedDocuments from "../../src/actors/hub/SignedDocuments.ts"
import type { Resource } from "../../src/protocol/trust/Documents.ts"
import type { Signed } from "../../src/protocol/trust/Signed.ts"
import { DirectoryError } from "../../src/services/directory/DirectoryStore.ts"
import * as Authority from "../../src/services/identity/Authority.ts"
import * as Keys from "../../src/services/identity/Keys.ts"
import * as HubBoard from "./support/HubBoard.ts"

const newSigningKey = () => {
  const key = Keys.fromPrivateKey(generateKeyPairSync("ed25519").privateKey)
  if (key === null) throw new Error("no key")
  return key
}
const CLIENT = newSigningKey().publicKey
const CONNECTOR = newSigningKey().publicKey
const WIKI: Resource = {
  name: "wiki",
  network: "office",
  address: "wiki.internal",
  tcp: [{ from: 80, to: 80 }],
  udp: [],
  allowLoopback: false
}

/** A board, an authority and a directory whose rules the test changes; nobody is connected yet. */
const hub = () => {
  const board = Board.make()
  const authority = Authority.make(newSigningKey())
  const rules = { resources: [WIKI] as ReadonlyArray<Resource>, readable: true }
  const directory: SignedDocuments.Options["directory"] = {
    findNode: (key) =>
      Effect.succeed(
        Option.some({ key, name: key === CLIENT ? "laptop" : "office", role: "client", network: null } as never)
      ),
    allResourcesFor: () =>
      Effect.suspend(() =>
        rules.readable
          ? Effect.succeed(rules.resources)
          : Effect.fail(new DirectoryError({ reason: "busy", message: "it is locked" }))
      )
  }
  const verify = <K extends "grant" | "credential">(kind: K, signed: Signed) =>
    Effect.flatMap(
      Clock.currentTimeMillis,
      (ms) => Authority.verify(kind, signed, authority.key, Math.floor(ms / 1000))
    )
  return { board, rules, verify, signed: SignedDocuments.make({ authority, board, directory }) }
}

const addSession = Effect.fnUntraced(function*(board: ReturnType<typeof Board.make>) {
  const names = yield* Authority.newSession
  const answer = yield* Deferred.make<void, string>()
  board.addSession({
    id: names.session,
    client: CLIENT,
    connector: CONNECTOR,
    network: "office",
    clientTag: names.clientTag,
    connectorTag: names.connectorTag,
    expiresAt: 3600,
    answer
  })
  return names.session
})

describe("relay credentials", () => {
  it.scoped("are renewed for nodes that connect later, period after period", () =>
    Effect.gen(function*() {
      const { board, signed, verify } = hub()
      yield* Effect.forkScoped(signed.keepCredentialsFresh)
      yield* TestClock.adjust("1 minute")
      const { heard: told } = yield* HubBoard.connect(board, CLIENT, "client")
      for (let period = 1; period <= 6; period++) {
        yield* TestClock.adjust(SignedDocuments.CREDENTIAL_REFRESH)
        const events = yield* told
        assert.deepStrictEqual(events.map(({ _tag }) => _tag), ["CredentialRenewed"], `period ${period}`)
        const [event] = events
        if (event?._tag !== "CredentialRenewed") return
        const credential = yield* verify("credential", event.credential)
        assert.strictEqual(credential.nodeKey, CLIENT)
        const now = yield* Clock.currentTimeMillis
        // The credential outlives the next renewal, and the one after it is lost at most once.
        assert.isAbove(credential.expiresAt * 1000 - now, Duration.toMillis(SignedDocuments.CREDENTIAL_REFRESH))
      }
    }))
})

describe("grants", () => {
  it.scoped("are replaced also for sessions that began later", () =>
    Effect.gen(function*() {
      const { board, rules, signed, verify } = hub()
      const { heard: client } = yield* HubBoard.connect(board, CLIENT, "client")
      const { heard: connector } = yield* HubBoard.connect(board, CONNECTOR, "connector")
      const session = yield* addSession(board)
      for (const resources of [[WIKI], [], [{ ...WIKI, name: "mail" }], []]) {
        rules.resources = resources
        yield* TestClock.adjust("10 minutes")
        yield* signed.replaceGrants
        for (const told of [client, connector]) {
          const [event, ...more] = yield* told
          assert.deepStrictEqual(more, [])
          if (event?._tag !== "GrantReplaced") return assert.fail("no grant came")
          assert.strictEqual(event.session, session)
          const grant = yield* verify("grant", event.grant)
          assert.deepStrictEqual(grant.resources.map(({ name }) => name), resources.map(({ name }) => name))
        }
      }
    }))

  it.scoped("fail if the directory cannot be read", () =>
    Effect.gen(function*() {
      const { board, rules, signed } = hub()
      yield* addSession(board)
      rules.readable = false
      assert.strictEqual((yield* Effect.flip(signed.replaceGrants))._tag, "DirectoryError")
    }))
})
