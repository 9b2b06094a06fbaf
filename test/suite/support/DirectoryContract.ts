/** The contract of the directory's store: tests that every store passes, below the same `Directory`. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Layer, Option, Redacted, TestClock } from "effect"
import { generateKeyPairSync } from "node:crypto"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Resource } from "../../../src/protocol/trust/Documents.ts"
import type { NodeKey } from "../../../src/protocol/trust/NodeKey.ts"
import * as Directory from "../../../src/services/directory/Directory.ts"
import type { DirectoryError, DirectoryStore } from "../../../src/services/directory/DirectoryStore.ts"
import * as Keys from "../../../src/services/identity/Keys.ts"

export const folder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "sallyport-directory-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true }))
)
export const newKey = (): NodeKey => {
  const key = Keys.fromPrivateKey(generateKeyPairSync("ed25519").privateKey)
  if (key === null) throw new Error("no key")
  return key.publicKey
}
export const enrol = Effect.fnUntraced(function*(
  name: string,
  role: "client" | "connector" = "client",
  network: string | null = null
) {
  const directory = yield* Directory.Directory
  const token = yield* directory.createToken({ role, name, network, ttl: Duration.hours(1) })
  const nodeKey = newKey()
  const fields = yield* directory.enrol({ tokenId: token.id, secret: token.secret, nodeKey, onlyAs: null })
  return { token, nodeKey, fields }
})
export const resource = (name: string, over: Partial<Resource> = {}): Resource => ({
  name,
  network: "office",
  address: `${name}.internal`,
  tcp: [{ from: 80, to: 80 }],
  udp: [],
  allowLoopback: false,
  ...over
})
export const tagOf = <A, E extends { readonly _tag: string }, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.match(effect, { onFailure: ({ _tag }) => _tag, onSuccess: () => "ok" })

/**
 * Runs the contract over a store. `layerOf` opens one in an empty folder, which each test has for
 * itself.
 */
export const contract = (
  name: string,
  layerOf: (options: { readonly stateDir: string }) => Layer.Layer<DirectoryStore, DirectoryError>
) => {
  const test = <E>(title: string, body: Effect.Effect<void, E, Directory.Directory>) =>
    it.scoped(
      title,
      () =>
        Effect.flatMap(folder, (stateDir) =>
          Effect.provide(body, Layer.provide(Directory.fromStore, layerOf({ stateDir }))))
    )

  describe(`a directory in ${name}`, () => {
    describe("enrolment", () => {
      test(
        "lets a token be used once, or by its key",
        Effect.gen(function*() {
          const directory = yield* Directory.Directory
          const { fields, nodeKey, token } = yield* enrol("office-1", "connector", "office")
          assert.deepStrictEqual(fields, { nodeKey, name: "office-1", role: "connector", network: "office" })
          const ask = (nodeKey: NodeKey) =>
            directory.enrol({ tokenId: token.id, secret: token.secret, nodeKey, onlyAs: null })
          assert.deepStrictEqual(yield* ask(nodeKey), fields)
          assert.strictEqual(yield* tagOf(ask(newKey())), "TokenUsed")
          yield* TestClock.adjust("2 hours") // a retry may come after the token's end, a stranger still learns no more
          assert.deepStrictEqual(yield* ask(nodeKey), fields)
          assert.strictEqual(yield* tagOf(ask(newKey())), "TokenUsed")
          assert.strictEqual((yield* directory.listNodes).length, 1)
        })
      )

      test(
        "leaves a token usable after a wrong role or name",
        Effect.gen(function*() {
          const directory = yield* Directory.Directory
          const token = yield* directory.createToken({
            role: "connector",
            name: "office",
            network: "office",
            ttl: Duration.hours(1)
          })
          const nodeKey = newKey()
          const ask = (onlyAs: string, onlyNamed: string) =>
            directory.enrol({ tokenId: token.id, secret: token.secret, nodeKey, onlyAs, onlyNamed })
          const role = yield* Effect.flip(ask("client", "office"))
          assert.strictEqual(role._tag, "TokenForOther")
          assert.match(role.message, /for the connector office.*not for a client.*--role client/)
          const name = yield* Effect.flip(ask("connector", "alice"))
          assert.strictEqual(name._tag, "TokenForOther")
          assert.match(name.message, /connector named office.*name: alice; write name: office.*--name alice/)
          assert.deepStrictEqual(yield* directory.listNodes, [])
          assert.strictEqual(yield* tagOf(ask("connector", "office")), "ok")
          assert.strictEqual((yield* Effect.flip(ask("connector", "alice")))._tag, "TokenForOther")
        })
      )

      test(
        "refuses unknown tokens and wrong secrets alike, and expired ones",
        Effect.gen(function*() {
          const directory = yield* Directory.Directory
          const token = yield* directory.createToken({
            role: "client",
            name: "a",
            network: null,
            ttl: Duration.minutes(10)
          })
          const other = yield* directory.createToken({
            role: "client",
            name: "b",
            network: null,
            ttl: Duration.minutes(10)
          })
          const ask = (tokenId: string, secret: Redacted.Redacted) =>
            directory.enrol({ tokenId, secret, nodeKey: newKey(), onlyAs: null })
          assert.strictEqual(yield* tagOf(ask("0000000000000000", token.secret)), "TokenUnknown")
          assert.strictEqual(yield* tagOf(ask(token.id, other.secret)), "TokenUnknown")
          assert.strictEqual(yield* tagOf(ask(token.id, Redacted.make(""))), "TokenUnknown")
          yield* TestClock.adjust("599 seconds")
          assert.strictEqual(yield* tagOf(ask(other.id, other.secret)), "ok")
          yield* TestClock.adjust("1 seconds")
          assert.strictEqual(yield* tagOf(ask(token.id, token.secret)), "TokenExpired")
        })
      )

      test(
        "does not revive tokens when the clock is set back",
        Effect.gen(function*() {
          const directory = yield* Directory.Directory
          const fresh = (name: string) =>
            directory.createToken({ role: "client", name, network: null, ttl: Duration.minutes(10) })
          const begin = yield* Clock.currentTimeMillis
          assert.strictEqual(yield* directory.latestTime, 0)
          const old = yield* fresh("old")
          yield* TestClock.adjust("10 minutes")
          yield* directory.keepTime(yield* Clock.currentTimeMillis)
          yield* TestClock.setTime(begin) // set back
          yield* directory.keepTime(begin)
          assert.strictEqual(yield* directory.latestTime, begin + 600_000)
          const ask = ({ id, secret }: Directory.CreatedToken) =>
            directory.enrol({ tokenId: id, secret, nodeKey: newKey(), onlyAs: null })
          assert.strictEqual(yield* tagOf(ask(old)), "TokenExpired")
          const next = yield* fresh("next")
          assert.strictEqual(next.expiresAt, begin / 1000 + 1200)
          assert.strictEqual(yield* tagOf(ask(next)), "ok")
          yield* directory.removeNode("next")
          assert.deepStrictEqual((yield* directory.removedSince(begin / 1000 + 600)).map(({ name }) => name), ["next"])
        })
      )

      test(
        "lists relays, reports changes, and forgets removed ones",
        Effect.gen(function*() {
          const directory = yield* Directory.Directory
          const ttl = Duration.minutes(10)
          const token = yield* directory.createToken({ role: "relay", name: "relay-2", network: null, ttl })
          const late = yield* directory.createToken({ role: "relay", name: "relay-3", network: null, ttl })
          const nodeKey = newKey()
          yield* directory.enrol({ tokenId: token.id, secret: token.secret, nodeKey, onlyAs: null })
          yield* TestClock.adjust("10 minutes")
          const tooLate = directory.enrol({ tokenId: late.id, secret: late.secret, nodeKey: newKey(), onlyAs: null })
          assert.strictEqual(yield* tagOf(tooLate), "TokenExpired")
          assert.deepStrictEqual(yield* directory.relays, [])
          const point = { name: "relay-2", addresses: ["203.0.113.20"], port: 3478 } as const
          const before = yield* directory.latestAuditId
          assert.isTrue(yield* directory.placeRelay(nodeKey, point))
          assert.isFalse(yield* directory.placeRelay(nodeKey, point))
          assert.deepStrictEqual((yield* directory.changesSince(before)).map(({ kind }) => kind), ["relay_placed"])
          assert.isTrue(yield* directory.placeRelay(nodeKey, { ...point, port: 443 }))
          assert.deepStrictEqual(yield* directory.relays, [{ ...point, port: 443 }])
          yield* directory.removeNode("relay-2")
          assert.deepStrictEqual(yield* directory.relays, [])
        })
      )

      test(
        "keeps names unique, and lets one key be one node",
        Effect.gen(function*() {
          const directory = yield* Directory.Directory
          const create = (name: string) =>
            directory.createToken({ role: "client", name, network: null, ttl: Duration.hours(1) })
          const [first, second, third] = [yield* create("alice"), yield* create("alice"), yield* create("bob")]
          const nodeKey = newKey()
          const ask = (token: Directory.CreatedToken, nodeKey: NodeKey) =>
            directory.enrol({ tokenId: token.id, secret: token.secret, nodeKey, onlyAs: null })
          yield* ask(first, nodeKey)
          assert.strictEqual(yield* tagOf(ask(second, newKey())), "NameTaken")
          assert.strictEqual(yield* tagOf(ask(third, nodeKey)), "AlreadyEnrolled")
          assert.strictEqual(yield* tagOf(ask(second, nodeKey)), "ok") // the same node with a new token
          assert.strictEqual(yield* tagOf(create("alice")), "NameTaken")
        })
      )

      test(
        "shows a node's name as written, and compares any spelling",
        Effect.gen(function*() {
          const directory = yield* Directory.Directory
          const { fields } = yield* enrol("Johns-MacBook-Pro.local")
          yield* enrol("Büro.example", "connector", "office")
          assert.strictEqual(fields.name, "johns-macbook-pro.local")
          assert.deepStrictEqual((yield* directory.listNodes).map(({ name, shown }) => [name, shown]), [
            ["johns-macbook-pro.local", "Johns-MacBook-Pro.local"],
            ["xn--bro-hoa.example", "Büro.example"]
          ])
          const ttl = Duration.hours(1)
          const taken = yield* Effect.flip(
            directory.createToken({ role: "client", name: "johns-macbook-PRO.local.", network: null, ttl })
          )
          assert.include(taken.message, "there is a node named Johns-MacBook-Pro.local;")
          assert.isTrue(Option.isSome(yield* directory.removeNode("BÜRO.example")))
        })
      )

      test(
        "shows a resource's name as written, signs the normal one",
        Effect.gen(function*() {
          const directory = yield* Directory.Directory
          const { nodeKey } = yield* enrol("Alice")
          const access = [{ clients: ["alice"], resources: ["db_1"] }]
          const policy = (shown: string) => ({ resources: [{ ...resource("db_1"), shown }], access })
          assert.isTrue(yield* directory.replacePolicy(policy("DB_1")))
          assert.isFalse(yield* directory.replacePolicy(policy("DB_1")))
          const refused = yield* Effect.flip(
            directory.authorize({ clientKey: nodeKey, host: "db_1", protocol: "tcp", port: 81 })
          )
          assert.match(refused.message, /^DB_1 does not list tcp port 81/)
          assert.isTrue(yield* directory.replacePolicy(policy("Db_1")))
          const [first] = yield* directory.allResourcesFor(nodeKey, null)
          assert.deepStrictEqual([first?.name, first?.shown], ["db_1", "Db_1"])
        })
      )

      test(
        "refuses a removed key permanently, and frees its name",
        Effect.gen(function*() {
          const directory = yield* Directory.Directory
          const { nodeKey, token } = yield* enrol("alice")
          assert.isTrue(Option.isSome(yield* directory.findNode(nodeKey)))
          assert.deepStrictEqual(
            Option.map(yield* directory.removeNode("alice"), ({ key }) => key),
            Option.some(nodeKey)
          )
          assert.isTrue(Option.isNone(yield* directory.findNode(nodeKey)))
          assert.isTrue(Option.isNone(yield* directory.removeNode("alice")))
          assert.strictEqual(
            yield* tagOf(directory.enrol({ tokenId: token.id, secret: token.secret, nodeKey, onlyAs: null })),
            "NodeRemoved"
          )
          const again = yield* directory.createToken({
            role: "client",
            name: "alice",
            network: null,
            ttl: Duration.hours(1)
          })
          const ask = (nodeKey: NodeKey) =>
            directory.enrol({ tokenId: again.id, secret: again.secret, nodeKey, onlyAs: null })
          assert.strictEqual(yield* tagOf(ask(nodeKey)), "NodeRemoved")
          assert.strictEqual(yield* tagOf(ask(newKey())), "ok")
        })
      )

      test(
        "tells who was removed since when, the newest first",
        Effect.gen(function*() {
          const directory = yield* Directory.Directory
          const { nodeKey } = yield* enrol("alice")
          yield* enrol("bob")
          yield* TestClock.adjust("1 hour")
          yield* directory.removeNode("alice")
          const at = 3600
          assert.deepStrictEqual(yield* directory.removedSince(at), [{ key: nodeKey, name: "alice", removedAt: at }])
          yield* TestClock.adjust("1 minute")
          yield* directory.removeNode("bob")
          assert.deepStrictEqual((yield* directory.removedSince(0)).map(({ name }) => name), ["bob", "alice"])
          assert.deepStrictEqual((yield* directory.removedSince(at + 1)).map(({ name }) => name), ["bob"])
          assert.deepStrictEqual(yield* directory.removedSince(at + 61), [])
        })
      )

      test(
        "leaves a token alone if only another role is possible",
        Effect.gen(function*() {
          const directory = yield* Directory.Directory
          const ttl = Duration.hours(1)
          const token = yield* directory.createToken({ role: "connector", name: "office", network: "office", ttl })
          const ask = (onlyAs: "client" | null) =>
            directory.enrol({ tokenId: token.id, secret: token.secret, nodeKey: newKey(), onlyAs })
          const { message } = yield* Effect.flip(ask("client"))
          assert.match(message, /for the connector office.*not for a client.*--role client/)
          assert.strictEqual(yield* tagOf(ask(null)), "ok")
          assert.strictEqual(yield* tagOf(ask(null)), "TokenUsed")
        })
      )
    })

    describe("access", () => {
      test(
        "is denied by default, and the reasons differ",
        Effect.gen(function*() {
          const directory = yield* Directory.Directory
          const { nodeKey: alice } = yield* enrol("alice")
          const { nodeKey: bob } = yield* enrol("bob")
          const { nodeKey: connector } = yield* enrol("office-1", "connector", "office")
          const dial = (clientKey: NodeKey, host: string, port = 80, protocol: "tcp" | "udp" = "tcp") =>
            tagOf(directory.authorize({ clientKey, host, protocol, port }))
          const resources = [resource("wiki", { address: "10.0.0.5" }), resource("mail")]
          yield* directory.replacePolicy({ resources, access: [] })
          assert.strictEqual(yield* dial(alice, "wiki"), "Denied")
          yield* directory.replacePolicy({ resources, access: [{ clients: ["alice"], resources: ["wiki"] }] })
          assert.strictEqual(yield* dial(alice, "wiki"), "ok")
          assert.strictEqual(yield* dial(alice, "WIKI"), "ok")
          assert.strictEqual(yield* dial(alice, "10.0.0.5"), "ok")
          assert.strictEqual(yield* dial(alice, "wiki", 81), "PortNotListed")
          assert.strictEqual(yield* dial(alice, "wiki", 80, "udp"), "PortNotListed")
          assert.strictEqual(yield* dial(alice, "mail"), "Denied")
          assert.strictEqual(yield* dial(alice, "mail", 81), "Denied") // not whether the port is open
          assert.strictEqual(yield* dial(alice, "nothing"), "UnknownResource")
          assert.strictEqual(yield* dial(bob, "wiki"), "Denied")
          assert.strictEqual(yield* dial(newKey(), "wiki"), "Denied")
          assert.strictEqual(yield* dial(connector, "wiki"), "Denied")
          yield* directory.removeNode("alice")
          assert.strictEqual(yield* dial(alice, "wiki"), "Denied")
        })
      )

      test(
        "grants all that the client may reach in one network",
        Effect.gen(function*() {
          const directory = yield* Directory.Directory
          const { nodeKey: alice } = yield* enrol("alice")
          const { nodeKey: bob } = yield* enrol("bob")
          const resources = [resource("wiki"), resource("mail"), resource("cam", { network: "home" })]
          yield* directory.replacePolicy({
            resources,
            access: [{ clients: ["alice"], resources: ["*"] }, { clients: ["*"], resources: ["mail"] }]
          })
          const names = (key: NodeKey, network: string | null) =>
            Effect.map(directory.allResourcesFor(key, network), (found) => found.map(({ name }) => name))
          assert.deepStrictEqual(yield* names(alice, "office"), ["wiki", "mail"])
          assert.deepStrictEqual(yield* names(alice, "home"), ["cam"])
          assert.deepStrictEqual(yield* names(alice, null), ["wiki", "mail", "cam"])
          assert.deepStrictEqual(yield* names(bob, "office"), ["mail"])
          assert.deepStrictEqual(yield* names(newKey(), "office"), [])
          const found = yield* directory.authorize({ clientKey: alice, host: "cam", protocol: "tcp", port: 80 })
          assert.deepStrictEqual([found.network, found.resource], ["home", resources[2]])
        })
      )

      test(
        "is what the configuration says, whole or not at all",
        Effect.gen(function*() {
          const directory = yield* Directory.Directory
          const policy = { resources: [resource("wiki")], access: [{ clients: ["*"], resources: ["wiki"] }] }
          assert.isTrue(yield* directory.replacePolicy(policy))
          const id = yield* directory.latestAuditId
          assert.isFalse(yield* directory.replacePolicy(policy))
          assert.strictEqual(yield* directory.latestAuditId, id)
          const twice = { ...policy, resources: [resource("mail"), resource("mail")] } // breaks the uniqueness of names
          assert.strictEqual(yield* tagOf(directory.replacePolicy(twice)), "DirectoryError")
          assert.deepStrictEqual(yield* directory.resources, policy.resources)
          assert.isTrue(yield* directory.replacePolicy({ resources: [], access: [] }))
          assert.deepStrictEqual(yield* directory.resources, [])
        })
      )
    })

    describe("the audit log", () => {
      test(
        "tells a running relay what changed, and keeps dials apart",
        Effect.gen(function*() {
          const directory = yield* Directory.Directory
          assert.strictEqual(yield* directory.latestAuditId, 0)
          const { nodeKey } = yield* enrol("alice")
          const seen = yield* directory.latestAuditId
          yield* Effect.exit(
            directory.authorize({ clientKey: nodeKey, host: "x".repeat(999), protocol: "tcp", port: 1 })
          )
          assert.strictEqual(yield* directory.latestAuditId, seen)
          yield* directory.removeNode("alice")
          const changes = yield* directory.changesSince(seen)
          assert.deepStrictEqual(changes.map(({ kind, nodeKey, nodeName }) => [kind, nodeName, nodeKey]), [
            ["node_removed", "alice", nodeKey]
          ])
          const log = yield* directory.auditLog(10)
          assert.deepStrictEqual(log.map(({ kind }) => kind), [
            "node_removed",
            "dial_denied",
            "enrolled",
            "token_created"
          ])
          assert.isBelow(JSON.stringify(log).length, 2000)
          assert.isTrue(log.every(({ at }) => at === 0))
          assert.strictEqual(yield* Clock.currentTimeMillis, 0)
        })
      )
    })

    describe("an allowed dial", () => {
      test(
        "is recorded with its target",
        Effect.gen(function*() {
          const directory = yield* Directory.Directory
          const { nodeKey } = yield* enrol("alice")
          const access = [{ clients: ["alice"], resources: ["wiki"] }]
          yield* directory.replacePolicy({ resources: [resource("wiki")], access })
          yield* directory.check
          const dial = { clientKey: nodeKey, host: "wiki", protocol: "tcp", port: 80 } as const
          assert.strictEqual((yield* directory.authorize(dial)).client.name, "alice")
          const [last] = yield* directory.auditLog(1)
          assert.deepInclude(last, { kind: "dial_allowed", nodeName: "alice", nodeKey })
          assert.deepInclude(last?.detail, { host: "wiki", protocol: "tcp", port: 80, resource: "wiki" })
        })
      )
    })
  })
}
